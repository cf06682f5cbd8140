"""The first operators of a TFLite file as files of their own."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_TensorIds = dict[int, None]  # a set that keeps its order


class Prefix(NamedTuple):
    """A file cut off behind an operator.

    Attributes:
        name: of the first tensor that the operator makes.
        content: the flatbuffer with this operator and all before it; None for one that no input
            reaches, because what it makes is the same in every run.
    """

    name: str
    content: bytes | None


def prefixes(content: bytes) -> Iterator[Prefix]:
    """Yields the prefix of every operator of the main subgraph, in the file's order.

    A prefix gives all tensors that a later operator or the caller still reads. With the last
    one alone, the engine would be free to drop whatever that one does not depend on.

    Args:
        content: a flatbuffer that LiteRT opens. It stays as it is.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    steps = _list(graph.operators)
    reached = _reached(graph)
    for last, step in enumerate(steps):
        made = _ids(step.outputs)
        name = _list(graph.tensors)[next(iter(made))].name if made else None
        flows = not reached.keys().isdisjoint(made)
        outputs = _live(graph, reached, last) if flows else {}
        packed = _packed(_cut(model, last, outputs)) if flows else None
        yield Prefix((name or b"").decode(errors="replace"), packed)


def _list(vector: Any) -> list[Any]:
    """Returns a vector of the flatbuffer, in which an empty one may be absent."""
    return [] if vector is None else list(vector)


def _ids(vector: Any) -> _TensorIds:
    """Returns the tensors that an operator names; −1 is an optional one that it lacks."""
    return {int(index): None for index in _list(vector) if index >= 0}


def _reached(graph: Any) -> _TensorIds:
    """Returns what the inputs of a graph lead to, the inputs included."""
    found = _ids(graph.inputs)
    for step in _list(graph.operators):
        if not found.keys().isdisjoint(_ids(step.inputs)):
            found |= _ids(step.outputs)
    return found


def _live(graph: Any, reached: _TensorIds, last: int) -> _TensorIds:
    """Returns what a prefix has to give: what its last operator makes, and what is read later.

    Constants that an operator decoded are not among it. As outputs they would be written in every
    run, which the whole file does not do.
    """
    steps = _list(graph.operators)
    read = _ids(graph.outputs)
    for step in steps[last + 1 :]:
        read |= _ids(step.inputs)
    made: _TensorIds = {}
    for step in steps[: last + 1]:
        made |= {index: None for index in _ids(step.outputs) if index in reached}
    wanted = read | _ids(steps[last].outputs)
    return {index: None for index in made if index in wanted}


def _cut(model: Any, last: int, outputs: _TensorIds) -> Any:
    """Returns a copy of ``model`` that ends behind the operator ``last``."""
    cut, graph = copy.copy(model), copy.copy(model.subgraphs[0])
    graph.operators = _list(graph.operators)[: last + 1]
    graph.outputs = np.asarray(list(outputs), np.int32)
    cut.subgraphs = [graph, *model.subgraphs[1:]]
    # They name inputs and outputs of the whole.
    cut.signatureDefs = []
    cut.buffers = _read_buffers(cut)
    return cut


def _read_buffers(model: Any) -> list[Any]:
    """Returns the buffers, those empty that only operators behind the cut read."""
    graph, others = model.subgraphs[0], model.subgraphs[1:]
    used = _ids(graph.inputs)
    for step in graph.operators:
        used |= _ids(step.inputs) | _ids(step.outputs)
    kept = {graph.tensors[index].buffer for index in used}
    kept |= {tensor.buffer for other in others for tensor in _list(other.tensors)}
    # Some of it tells the delegate what it may do.
    kept |= {entry.buffer for entry in _list(model.metadata)}
    return [
        buffer if index in kept else type(buffer)() for index, buffer in enumerate(model.buffers)
    ]


def _packed(model: Any) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
