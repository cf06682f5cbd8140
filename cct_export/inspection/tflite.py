"""What is in a TFLite file: read from the flatbuffer, placed by LiteRT in a process of its own."""

import json
import math
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from cct_export.errors import InvalidArtifact
from cct_export.records import Inspection, Operator, Tensor
from cct_export.runtimes import litert, litert_file

# LiteRT verifies the flatbuffer when it opens it. What it can open but not prepare, such as a file
# with operators of somebody else's, can still be read.
_NODES = """
import json, sys
from ai_edge_litert.interpreter import Interpreter
nodes, refusal, opened = [], "", False
try:
    interpreter = Interpreter(sys.argv[1])
    opened = True
    interpreter.allocate_tensors()
    for node in interpreter._get_ops_details():
        ends = {end: [int(tensor) for tensor in node[end]] for end in ("inputs", "outputs")}
        nodes.append({"index": int(node["index"]), "op_name": node["op_name"], **ends})
except (ValueError, RuntimeError) as error:
    refusal = str(error).strip().partition("\\n")[0] or "it does not say why"
print(json.dumps([nodes, refusal, opened]))
"""
# Operators that only bring a stored weight into the type of the computation.
_DECODERS = ("DEQUANTIZE", "DENSIFY")
# Integers of other types are shapes, axes and the like, unless they carry a scale.
_WEIGHT_TYPES = (
    "float16", "float32", "float64", "bfloat16", "int2", "int4", "int8", "uint4", "uint8",
)  # fmt: skip

_Shape = tuple[int, ...]


def inspect(path: Path) -> Inspection:
    """Returns what is in ``path``.

    Raises:
        InvalidArtifact: LiteRT does not take it for a TFLite file.
        MissingDependency: ai-edge-litert is not installed.
    """
    litert.import_engine()
    content = path.read_bytes()
    try:
        contract = litert_file.read_contract(content)
    except InvalidArtifact as error:
        raise InvalidArtifact(f"{path}: {error}") from error
    nodes, refusal, opened = json.loads(
        litert_file.in_child(_NODES, path).strip().rpartition("\n")[2]
    )
    if not opened:
        raise InvalidArtifact(f"LiteRT cannot open {path}: {refusal}")
    partitions = litert_file.partitions(nodes)
    delegates = sum(node["op_name"] == "DELEGATE" for node in nodes)
    try:
        model = _Model(content)
        operators = _operators(model, partitions)
        ends = model.ends()
        quantized = tuple(filter(None, map(_quantized, model.all_tensors())))
    except Exception as error:  # a broken flatbuffer raises anything, struct.error above all
        raise InvalidArtifact(f"{path}: not a readable TFLite file: {error}") from error
    return Inspection(
        path=path,
        format="tflite",
        contract=contract,
        size_bytes=len(content),
        inputs=ends[0],
        outputs=ends[1],
        operators=operators,
        parameters=model.parameters(),
        tensors=len(model.all_tensors()),
        quantized=quantized,
        engine=f"litert {metadata.version('ai-edge-litert')}",
        nodes=None if refusal else len(nodes) - delegates,
        delegated=None if refusal else len(partitions),
        partitions=None if refusal else delegates,
        warnings=(f"LiteRT cannot run it: {refusal}",) if refusal else (),
    )


class _Graph:
    """One subgraph, with its constants.

    Attributes:
        tensors: its tensors, as the schema has them.
        steps: kind and operator, in order.
        stored: for each constant tensor, and for what an operator only decodes of one, the
            constant.
    """

    def __init__(self, model: Any, graph: Any, codes: list[str]) -> None:
        self.graph = graph
        self.tensors = list(graph.tensors)
        self.steps = [(codes[step.opcodeIndex], step) for step in _list(graph.operators)]
        self.stored = {
            index: index
            for index, tensor in enumerate(self.tensors)
            if _has_data(model.buffers[tensor.buffer])
        }
        for kind, step in self.steps:
            if kind in _DECODERS and int(step.inputs[0]) in self.stored:
                self.stored[int(step.outputs[0])] = self.stored[int(step.inputs[0])]

    def weights(self, kind: str, step: Any) -> set[int]:
        """Returns the constants that an operator reads as weights, by index."""
        if kind in _DECODERS:
            return set()
        read = {int(tensor) for tensor in _list(step.inputs)}
        found = {self.stored[tensor] for tensor in read if tensor in self.stored}
        return {tensor for tensor in found if _is_weight(self.tensors[tensor])}


class _Model:
    """A flatbuffer, unpacked."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._model = schema.ModelT.InitFromPackedBuf(content, 0)
        codes = [_kind(code) for code in self._model.operatorCodes or []]
        self.graphs = [_Graph(self._model, graph, codes) for graph in self._model.subgraphs]

    def all_tensors(self) -> list[Any]:
        """Returns the tensors of all subgraphs."""
        return [tensor for graph in self.graphs for tensor in graph.tensors]

    def parameters(self) -> int:
        """Returns the elements of all weights, each counted once."""
        return sum(
            _size(graph.tensors[index])
            for graph in self.graphs
            for index in set().union(*(graph.weights(*step) for step in graph.steps))
        )

    def ends(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns inputs and outputs of the main subgraph, named as in the signature."""
        main = self.graphs[0]
        inputs, outputs = {}, {}
        for signature in _list(self._model.signatureDefs)[:1]:
            inputs = {entry.tensorIndex: entry.name for entry in _list(signature.inputs)}
            outputs = {entry.tensorIndex: entry.name for entry in _list(signature.outputs)}
        return (
            tuple(_end(main.tensors[index], inputs.get(index)) for index in main.graph.inputs),
            tuple(_end(main.tensors[index], outputs.get(index)) for index in main.graph.outputs),
        )


def _list(vector: Any) -> list[Any]:
    """Returns a vector of the flatbuffer, in which an empty one may be absent."""
    return [] if vector is None else list(vector)


def _has_data(buffer: Any) -> bool:
    # Behind the flatbuffer, in files over 2 GB, a buffer has an offset.
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.offset > 1


def _kind(code: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    # Files older than the second field have their number in the first.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM {(code.customCode or b'').decode(errors='replace')}"
    return _names(schema.BuiltinOperator).get(number, f"BUILTIN {number}")


def _names(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if not name.startswith("_")}


def _dtype(tensor: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    return _names(schema.TensorType).get(tensor.type, f"type {tensor.type}").lower()


def _shape(tensor: Any) -> _Shape:
    """Returns the sizes for one image: the flatbuffer has 1 where the signature is open."""
    return tuple(int(size) for size in _list(tensor.shape))


def _size(tensor: Any) -> int:
    return math.prod(_shape(tensor))


def _scales(tensor: Any) -> tuple[float, ...]:
    if tensor.quantization is None or _dtype(tensor).startswith("float"):
        return ()
    return tuple(float(scale) for scale in _list(tensor.quantization.scale))


def _is_weight(tensor: Any) -> bool:
    """Tells a weight from a shape, an axis, or a number such as the epsilon of a norm."""
    return bool(_shape(tensor)) and (_dtype(tensor) in _WEIGHT_TYPES or bool(_scales(tensor)))


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


def _quantized(tensor: Any) -> Tensor | None:
    """Returns the record of a tensor that has a scale, else None."""
    scales = _scales(tensor)
    if not scales:
        return None
    channels = len(scales) > 1
    return Tensor(
        _text(tensor.name),
        _dtype(tensor),
        _shape(tensor),
        granularity="channel" if channels else "tensor",
        axis=int(tensor.quantization.quantizedDimension) if channels else None,
        scales=scales,
        zero_points=tuple(int(zero) for zero in _list(tensor.quantization.zeroPoint)),
    )


def _end(tensor: Any, name: bytes | None) -> Tensor:
    signature = _list(tensor.shapeSignature) or _shape(tensor)
    shape = tuple(None if size < 0 else int(size) for size in signature)
    plain = Tensor("", _dtype(tensor), shape)
    return replace(_quantized(tensor) or plain, name=_text(name or tensor.name), shape=shape)


def _operators(model: _Model, partitions: dict[int, int]) -> tuple[Operator, ...]:
    """Returns every operator; those of other subgraphs than the main one follow it.

    LiteRT tells the partitions of the main one only.
    """
    found: list[Operator] = []
    for number, graph in enumerate(model.graphs):
        for place, (kind, step) in enumerate(graph.steps):
            weights = [graph.tensors[index] for index in sorted(graph.weights(kind, step))]
            outputs = _list(step.outputs)
            found.append(
                Operator(
                    index=len(found),
                    kind=kind,
                    shape=_shape(graph.tensors[outputs[0]]) if outputs else None,
                    macs=_macs(kind, step, graph.tensors),
                    parameters=sum(map(_size, weights)),
                    weight_dtype=_dtype(max(weights, key=_size)) if weights else None,
                    partition=partitions.get(place) if number == 0 else None,
                )
            )
    return tuple(found)


def _macs(kind: str, step: Any, tensors: list[Any]) -> int:
    """Returns the multiply-accumulates of an operator, taps over the border included."""

    def input(slot: int) -> _Shape:
        return _shape(tensors[step.inputs[slot]])

    if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED",
                    "BATCH_MATMUL"):  # fmt: skip
        return 0
    made = math.prod(_shape(tensors[step.outputs[0]]))
    if kind == "CONV_2D":  # weights (out, height, width, in)
        return made * math.prod(input(1)[1:])
    if kind == "DEPTHWISE_CONV_2D":  # weights (1, height, width, out)
        return made * math.prod(input(1)[1:3])
    if kind == "TRANSPOSE_CONV":  # shape, weights (out, height, width, in), images
        return math.prod(input(2)) * math.prod(input(1)[:3])
    if kind == "FULLY_CONNECTED":  # weights (out, in)
        return made * input(1)[-1]
    return made * input(0)[-2 if getattr(step.builtinOptions, "adjX", False) else -1]
