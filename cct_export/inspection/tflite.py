"""Inspection of a TFLite file: the flatbuffer is parsed, and opened by LiteRT."""

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from cct_export.errors import InvalidArtifact
from cct_export.operator_lists import OPERATOR_LISTS, OperatorUse
from cct_export.records import Inspection, Operator, Tensor
from cct_export.runtimes import litert, litert_file
from cct_export.runtimes.litert_file import Node
from cct_export.untrusted import refusing

# Operators that only convert a stored weight to the type of the computation.
_DECODERS = ("DEQUANTIZE", "DENSIFY")
# Integers of other types are shapes, axes and the like, unless they have a scale.
_WEIGHT_TYPES = (
    "float16", "float32", "float64", "bfloat16", "int2", "int4", "int8", "uint4", "uint8",
)  # fmt: skip

_Shape = tuple[int, ...]


def inspect(path: Path) -> Inspection:
    """Lists operators and tensors of a ``.tflite`` file.

    Raises:
        InvalidArtifact: LiteRT cannot open it.
        MissingDependency: ai-edge-litert is not installed.
    """
    litert.import_engine()
    contract = litert_file.contract_of(path)
    nodes, error_line = _list_nodes(path)
    partitions = litert_file.partitions(nodes)
    delegate_nodes = sum(node.is_partition for node in nodes)
    with refusing(InvalidArtifact, f"{path}: {litert_file.UNREADABLE}", otherwise="it is damaged"):
        model = _Model(path.read_bytes())
        operators = _operators(model, partitions)
        inputs, outputs = model.inputs_and_outputs()
        quantized = tuple(filter(None, map(_quantized, model.all_tensors())))
    return Inspection(
        path=path,
        format="tflite",
        contract=contract,
        size_bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
        operators=operators,
        parameters=model.parameters(),
        tensors=len(model.all_tensors()),
        quantized=quantized,
        engine=f"litert {metadata.version('ai-edge-litert')}",
        nodes=None if error_line else len(nodes) - delegate_nodes,
        delegated=None if error_line else len(partitions),
        partitions=None if error_line else delegate_nodes,
        warnings=(f"LiteRT cannot run it: {error_line}",) if error_line else (),
    )


def _list_nodes(path: Path) -> tuple[list[Node], str]:
    """Returns the nodes that LiteRT runs, or none of them and its error message.

    LiteRT validates the flatbuffer when it opens it. A file that it opens and cannot run, such as
    one with custom operators, can still be inspected.
    """
    from ai_edge_litert.interpreter import Interpreter

    opened = False
    try:
        interpreter = Interpreter(str(path))
        opened = True
        interpreter.allocate_tensors()
        return litert_file.nodes_of(interpreter), ""
    except (ValueError, RuntimeError) as error:
        error_line = str(error).strip().partition("\n")[0] or "LiteRT gives no reason"
        if not opened:
            raise InvalidArtifact(f"LiteRT cannot open {path}: {error_line}") from error
        return [], error_line


class _Graph:
    """A subgraph with its constants.

    Attributes:
        graph: the subgraph, as the schema has it.
        tensors: its tensors, as the schema has them.
        operators: kind and operator, in order.
        versions: of the operators, in the same order.
        constants: index of the stored constant, by the index of each constant tensor and of each
            tensor that only decodes one.
    """

    def __init__(self, model: Any, graph: Any, kinds: list[str]) -> None:
        self.graph = graph
        self.tensors = list(graph.tensors)
        self.operators = [
            (kinds[operator.opcodeIndex], operator) for operator in _list(graph.operators)
        ]
        self.versions = [
            int(model.operatorCodes[operator.opcodeIndex].version) for _, operator in self.operators
        ]
        self.constants = {
            index: index
            for index, tensor in enumerate(self.tensors)
            if _has_data(model.buffers[tensor.buffer])
        }
        for kind, operator in self.operators:
            if kind in _DECODERS and int(operator.inputs[0]) in self.constants:
                constant = self.constants[int(operator.inputs[0])]
                self.constants[int(operator.outputs[0])] = constant

    def weights(self, kind: str, operator: Any) -> set[int]:
        """Returns the indices of the constants that an operator reads as weights."""
        if kind in _DECODERS:
            return set()
        inputs = {int(tensor) for tensor in _list(operator.inputs)}
        constants = {self.constants[tensor] for tensor in inputs if tensor in self.constants}
        return {index for index in constants if _is_weight(self.tensors[index])}


class _Model:
    """An unpacked flatbuffer."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._model = schema.ModelT.InitFromPackedBuf(content, 0)
        kinds = [_kind(code) for code in self._model.operatorCodes or []]
        self.graphs = [_Graph(self._model, graph, kinds) for graph in self._model.subgraphs]

    def all_tensors(self) -> list[Any]:
        """Returns the tensors of all subgraphs."""
        return [tensor for graph in self.graphs for tensor in graph.tensors]

    def parameters(self) -> int:
        """Returns the number of elements of all weights, each counted once."""
        return sum(
            _size(graph.tensors[index])
            for graph in self.graphs
            for index in set().union(*(graph.weights(*operator) for operator in graph.operators))
        )

    def inputs_and_outputs(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns inputs and outputs of the main subgraph, with their names in the signature."""
        main = self.graphs[0]
        inputs, outputs = {}, {}
        for signature in _list(self._model.signatureDefs)[:1]:
            inputs = {entry.tensorIndex: entry.name for entry in _list(signature.inputs)}
            outputs = {entry.tensorIndex: entry.name for entry in _list(signature.outputs)}
        return (
            tuple(_named(main.tensors[index], inputs.get(index)) for index in main.graph.inputs),
            tuple(_named(main.tensors[index], outputs.get(index)) for index in main.graph.outputs),
        )


def _list(vector: Any) -> list[Any]:
    """Returns a vector of the flatbuffer, which is absent where it is empty."""
    return [] if vector is None else list(vector)


def _has_data(buffer: Any) -> bool:
    # In files over 2 GB the data follows the flatbuffer, at an offset.
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.offset > 1


def _kind(code: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    # Older files have the number in the first field only.
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
    """Returns the shape for one image: an open batch is stored as 1."""
    return tuple(int(size) for size in _list(tensor.shape))


def _size(tensor: Any) -> int:
    return math.prod(_shape(tensor))


def _scales(tensor: Any) -> tuple[float, ...]:
    if tensor.quantization is None or _dtype(tensor).startswith("float"):
        return ()
    return tuple(float(scale) for scale in _list(tensor.quantization.scale))


def _is_weight(tensor: Any) -> bool:
    """Distinguishes a weight from a shape, an axis, or a scalar such as an epsilon."""
    return bool(_shape(tensor)) and (_dtype(tensor) in _WEIGHT_TYPES or bool(_scales(tensor)))


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


def _quantized(tensor: Any) -> Tensor | None:
    """Returns the record of a tensor with a scale, None for others."""
    scales = _scales(tensor)
    if not scales:
        return None
    per_channel = len(scales) > 1
    return Tensor(
        _text(tensor.name),
        _dtype(tensor),
        _shape(tensor),
        granularity="channel" if per_channel else "tensor",
        axis=int(tensor.quantization.quantizedDimension) if per_channel else None,
        scales=scales,
        zero_points=tuple(int(zero) for zero in _list(tensor.quantization.zeroPoint)),
    )


def _named(tensor: Any, name: bytes | None) -> Tensor:
    """Returns an input or output with its name in the signature."""
    signature = _list(tensor.shapeSignature) or _shape(tensor)
    shape = tuple(None if size < 0 else int(size) for size in signature)
    record = _quantized(tensor) or Tensor("", _dtype(tensor), shape)
    return replace(record, name=_text(name or tensor.name), shape=shape)


def _operators(model: _Model, partitions: Mapping[int, int]) -> tuple[Operator, ...]:
    """Returns all operators, those of the main subgraph first.

    LiteRT lists the partitions of the main subgraph only.
    """
    records: list[Operator] = []
    for number, graph in enumerate(model.graphs):
        for position, (kind, operator) in enumerate(graph.operators):
            weights = [graph.tensors[index] for index in sorted(graph.weights(kind, operator))]
            outputs = _list(operator.outputs)
            records.append(
                Operator(
                    index=len(records),
                    kind=kind,
                    shape=_shape(graph.tensors[outputs[0]]) if outputs else None,
                    macs=_macs(kind, operator, graph.tensors),
                    parameters=sum(map(_size, weights)),
                    weight_dtype=_dtype(max(weights, key=_size)) if weights else None,
                    partition=partitions.get(position) if number == 0 else None,
                    taken_by=_taken_by(kind, graph.versions[position], operator, graph),
                )
            )
    return tuple(records)


def _taken_by(kind: str, version: int, operator: Any, graph: _Graph) -> tuple[str, ...]:
    """Returns the names of the operator lists that have an operator."""
    used = {int(index) for index in (*_list(operator.inputs), *_list(operator.outputs))} - {-1}
    types, constants = (
        frozenset(_dtype(graph.tensors[index]) for index in indices)
        for indices in (used - graph.constants.keys(), used & graph.constants.keys())
    )
    use = OperatorUse(kind, version, types, constants)
    return tuple(name for name, listed in OPERATOR_LISTS.items() if listed.takes(use))


def _macs(kind: str, operator: Any, tensors: list[Any]) -> int:
    """Returns the multiply-accumulates of an operator, including those on padding."""

    def input_shape(slot: int) -> _Shape:
        return _shape(tensors[operator.inputs[slot]])

    if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED",
                    "BATCH_MATMUL"):  # fmt: skip
        return 0
    output_size = math.prod(_shape(tensors[operator.outputs[0]]))
    if kind == "CONV_2D":  # weights (out, height, width, in)
        return output_size * math.prod(input_shape(1)[1:])
    if kind == "DEPTHWISE_CONV_2D":  # weights (1, height, width, out)
        return output_size * math.prod(input_shape(1)[1:3])
    if kind == "TRANSPOSE_CONV":  # shape, weights (out, height, width, in), images
        return math.prod(input_shape(2)) * math.prod(input_shape(1)[:3])
    if kind == "FULLY_CONNECTED":  # weights (out, in)
        return output_size * input_shape(1)[-1]
    transposed = getattr(operator.builtinOptions, "adjX", False)
    return output_size * input_shape(0)[-2 if transposed else -1]
