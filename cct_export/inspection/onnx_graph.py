"""The graph of an ONNX model: its operators, their cost, and its quantized tensors."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from cct_export.records import Operator, Tensor
from cct_export.untrusted import Malformed

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_Shape = tuple[int | None, ...]

# Operators that only convert a stored weight to the type of the computation.
_DECODERS = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear")
# Inputs that hold scales, zero points, sizes or bounds, by kind; integer inputs need no entry.
_SETTINGS = {
    "Clip": (1, 2),
    "ConvInteger": (2, 3),
    "DequantizeLinear": (1, 2),
    "MatMulInteger": (2, 3),
    "Pad": (2,),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
    "com.microsoft.DynamicQuantizeMatMul": (2, 3),
    "com.microsoft.MatMulIntegerToFloat": (2, 3, 4, 5),
    "com.microsoft.QAttention": (3, 4, 6, 7),
}
_WEIGHT_TYPES = ("float", "bfloat", "int2", "int4", "int8", "uint2", "uint4", "uint8")


class _Slots(NamedTuple):
    """Positions of a quantized tensor, its scale and its zero point among a node's inputs."""

    tensor: int  # -1 for the node's output
    scale: int | None  # None for *Integer operators: a Mul that follows has it
    zero_point: int  # optional: may be beyond the last input


_QUANTIZED = {
    "ConvInteger": (_Slots(1, None, 3),),
    "DequantizeLinear": (_Slots(0, 1, 2),),
    "MatMulInteger": (_Slots(1, None, 3),),
    "QLinearConv": (_Slots(0, 1, 2), _Slots(3, 4, 5), _Slots(-1, 6, 7)),
    "QLinearMatMul": (_Slots(0, 1, 2), _Slots(3, 4, 5), _Slots(-1, 6, 7)),
    "QuantizeLinear": (_Slots(-1, 1, 2),),
    "com.microsoft.DynamicQuantizeMatMul": (_Slots(1, 2, 3),),
    "com.microsoft.MatMulIntegerToFloat": (_Slots(0, 2, 4), _Slots(1, 3, 5)),
    "com.microsoft.QAttention": (_Slots(0, 3, 6), _Slots(1, 4, 7)),
}
# The weights of a convolution are (out, in, ...), those of a matrix product (..., in, out).
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = (
    "MatMul", "MatMulInteger", "QLinearMatMul", "com.microsoft.DynamicQuantizeMatMul",
    "com.microsoft.FusedMatMul", "com.microsoft.MatMulIntegerToFloat",
)  # fmt: skip


class Value(NamedTuple):
    """Type and shape of a tensor; the shape is None if the file does not specify it."""

    dtype: str
    shape: _Shape | None


def subgraphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    """Yields a graph and those inside its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from subgraphs(inner)


def nodes_of(graph: "GraphProto") -> list["NodeProto"]:
    """Returns the operators of all subgraphs; Constant nodes are tensors, and left out."""
    nodes = (node for inner in subgraphs(graph) for node in inner.node)
    return [node for node in nodes if node.op_type != "Constant"]


def constants_of(graph: "GraphProto") -> dict[str, "TensorProto"]:
    """Returns the constants by name, without sparse ones."""
    import numpy as np
    import onnx

    constants: dict[str, TensorProto] = {}
    for inner in subgraphs(graph):
        constants |= {tensor.name: tensor for tensor in inner.initializer}
        for node in inner.node:
            if node.op_type != "Constant":
                continue
            for value in map(onnx.helper.get_attribute_value, node.attribute):
                if isinstance(value, onnx.TensorProto):
                    constants[node.output[0]] = value
                elif not isinstance(value, onnx.SparseTensorProto):
                    constants[node.output[0]] = onnx.numpy_helper.from_array(np.asarray(value))
    return constants


def _dtype(number: int) -> str:
    """Returns numpy's name of an element type of ONNX."""
    import onnx

    if number == onnx.TensorProto.STRING:
        return "string"
    if not number:
        return "unknown"
    if number not in onnx.TensorProto.DataType.values():
        raise Malformed(f"it has a tensor of type {number}, which onnx {onnx.__version__} lacks")
    return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)


def _value(info: "ValueInfoProto") -> Value:
    type = info.type.tensor_type
    if not type.HasField("shape"):
        return Value(_dtype(type.elem_type), None)
    sizes = (axis.dim_value if axis.HasField("dim_value") else None for axis in type.shape.dim)
    return Value(_dtype(type.elem_type), tuple(sizes))


def annotations(graph: "GraphProto") -> dict[str, Value]:
    """Returns type and shape of every tensor that the file annotates."""
    return {
        info.name: _value(info)
        for inner in subgraphs(graph)
        for info in (*inner.value_info, *inner.input, *inner.output)
    }


def _kind(node: "NodeProto") -> str:
    """Returns the operator's name, with its domain unless that is ONNX's own."""
    standard = node.domain in ("", "ai.onnx")
    return str(node.op_type if standard else f"{node.domain}.{node.op_type}")


class Graph:
    """The operators of a model with a fixed batch, and their constants.

    Args:
        model: the file, each node named by its position.
        values: type and shape of every tensor for which they are known.
    """

    def __init__(self, model: "ModelProto", values: Mapping[str, Value]) -> None:
        self.nodes = nodes_of(model.graph)
        self.constants = constants_of(model.graph)
        self.values = dict(values)
        for name, tensor in self.constants.items():
            self.values[name] = Value(_dtype(tensor.data_type), tuple(tensor.dims))
        self._inputs = [value.name for value in model.graph.input]
        self._producers = {name: node for node in self.nodes for name in node.output}
        # The stored constant of each constant tensor, and of each tensor that only decodes one.
        self._stored = {name: name for name in self.constants}
        self._dequantized: set[str] = set()
        for node in self.nodes:
            if self._is_decoder(node):
                constant = self._stored[node.output[0]] = self._stored[node.input[0]]
                if _kind(node) == "DequantizeLinear":
                    self._dequantized.add(constant)

    def _is_decoder(self, node: "NodeProto") -> bool:
        """Returns whether an operator only decodes a stored weight to real numbers."""
        constant = self._stored.get(node.input[0]) if node.input else None
        if constant is None or _kind(node) in _DECODERS:
            return constant is not None
        # Cast integers times their scales: the equivalent of DequantizeLinear.
        is_integer = self.values[constant].dtype.startswith(("int", "uint"))
        return _kind(node) == "Mul" and is_integer and node.input[1] in self.constants

    def names(self) -> set[str]:
        """Returns the names of all tensors."""
        computed = {name for node in self.nodes for name in node.output if name}
        return computed | set(self._inputs) | set(self.constants)

    def parameters(self) -> int:
        """Returns the number of elements of all weights, each counted once."""
        weights: set[str] = set().union(*map(self._weights, self.nodes))
        return sum(map(self._size, weights))

    def operators(self, partitions: Mapping[str, int]) -> tuple[Operator, ...]:
        """Returns every operator; ``partitions`` has the partition by the name of the node."""
        return tuple(self._operator(node, partitions.get(node.name)) for node in self.nodes)

    def _operator(self, node: "NodeProto", partition: int | None) -> Operator:
        weights = sorted(self._weights(node))
        return Operator(
            index=int(node.name),
            kind=_kind(node),
            shape=self._output_shape(node),
            macs=self._macs(node),
            parameters=sum(map(self._size, weights)),
            weight_dtype=self.values[max(weights, key=self._size)].dtype if weights else None,
            partition=partition,
        )

    def _shape(self, name: str) -> _Shape | None:
        return self.values[name].shape if name in self.values else None

    def _output_shape(self, node: "NodeProto") -> _Shape | None:
        return self._shape(node.output[0]) if node.output else None

    def _size(self, constant: str) -> int:
        return math.prod(self.constants[constant].dims)

    def _weights(self, node: "NodeProto") -> set[str]:
        """Returns the constants that an operator reads as weights."""
        kind = _kind(node)
        if self._is_decoder(node):
            return set()
        weights = set()
        for slot, name in enumerate(node.input):
            stored = self._stored.get(name)
            is_setting = slot in _SETTINGS.get(kind, ())
            if stored is None or is_setting or not self.constants[stored].dims:
                continue
            dtype = self.values[stored].dtype
            # Biases are int32, as shapes are.
            is_bias = stored in self._dequantized or (kind, slot) == ("QLinearConv", 8)
            if (is_bias or dtype.startswith(_WEIGHT_TYPES)) and not self._is_scale(node, name):
                weights.add(stored)
        return weights

    def _is_scale(self, node: "NodeProto", name: str) -> bool:
        """Returns whether a Mul multiplies ``name`` with a scale computed at run time."""
        producers = [self._producers.get(other) for other in node.input if other != name]
        return node.op_type == "Mul" and any(
            producer is not None
            and producer.op_type == "DynamicQuantizeLinear"
            and producer.output[1] in node.input
            for producer in producers
        )

    def _macs(self, node: "NodeProto") -> int | None:
        """Returns the multiply-accumulates, including those on padding; None if unknown."""
        kind = _kind(node)
        output = self._output_shape(node)
        if kind in _CONVOLUTIONS:
            weights = self._shape(node.input[_CONVOLUTIONS[kind]])
            return _product(output, weights and weights[1:])
        if kind == "ConvTranspose":  # weights (in, out, ...)
            weights = self._shape(node.input[1])
            return _product(self._shape(node.input[0]), weights and weights[1:])
        if kind in _PRODUCTS or kind == "Gemm":
            flags = {attribute.name: attribute.i for attribute in node.attribute}
            left = self._shape(node.input[0])
            if not left or flags.get("transBatchA"):
                return None
            return _product(output, left[-2:-1] if flags.get("transA") else left[-1:])
        if kind == "com.microsoft.QAttention":
            return _attention_macs(self._shape(node.input[0]), self._shape(node.input[1]))
        return 0

    def quantized(self) -> tuple[Tensor, ...]:
        """Returns the tensors whose scale, or at least zero point, is stored in the file."""
        records: dict[str, Tensor] = {}
        for node in self.nodes:
            for slots in _QUANTIZED.get(_kind(node), ()):
                record = self._quantized(node, slots)
                if record is not None:
                    records.setdefault(record.name, record)
        return tuple(records.values())

    def _quantized(self, node: "NodeProto", slots: _Slots) -> Tensor | None:
        """Returns the record of a quantized tensor, None if its scale is computed at run time."""
        is_output = slots.tensor < 0
        name = node.output[0] if is_output else node.input[slots.tensor]
        if slots.scale is None:
            scales = self._integer_scale(node)
        else:
            scales = self._array(node.input[slots.scale])
        if scales is None and not (slots.scale is None and name in self.constants):
            return None
        has_zero_point = slots.zero_point < len(node.input)
        zeros = self._array(node.input[slots.zero_point]) if has_zero_point else None
        value = self.values.get(name, Value("unknown", None))
        if is_output and zeros is not None:
            value = value._replace(dtype=str(zeros.dtype.name))
        granularity = _granularity(scales if scales is not None else zeros)
        return Tensor(
            name,
            *value,
            granularity=granularity,
            axis=_axis(node, value.shape) if granularity == "channel" else None,
            scales=() if scales is None else tuple(map(float, scales.reshape(-1))),
            zero_points=() if zeros is None else tuple(map(int, zeros.reshape(-1))),
        )

    def _array(self, name: str) -> Any | None:
        """Returns a constant as an array, None for anything else."""
        import onnx

        tensor = self.constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def _integer_scale(self, node: "NodeProto") -> Any | None:
        """Returns the scale of the weights of a ``*Integer`` operator, from the Mul after it.

        The accumulators are cast and multiplied by the product of two scales: that of the
        activations, which is computed at run time, and that of the weights, a constant.
        """
        accumulators = {node.output[0]}
        for other in self.nodes:
            if other.op_type == "Cast" and other.input[0] in accumulators:
                accumulators.add(other.output[0])
            if other.op_type != "Mul" or not accumulators.intersection(other.input):
                continue
            for factor in set(other.input) - accumulators:
                producer = self._producers.get(factor)
                names = producer.input if producer and producer.op_type == "Mul" else [factor]
                for name in names:
                    if name in self.constants:
                        return self._array(name)
        return None


def _attention_macs(tokens: _Shape | None, kernel: _Shape | None) -> int | None:
    """Returns those of the projection of queries, keys and values, their products and the sums."""
    if tokens is None or kernel is None or len(tokens) != 3 or len(kernel) != 2:
        return None
    projection = _product(tokens, kernel[1:])
    products = _product(tokens[:2], tokens[1:2], kernel[1:])
    if projection is None or products is None:
        return None
    return projection + 2 * products // 3


def _product(*shapes: _Shape | None) -> int | None:
    """Returns the product of all sizes, None if one is unknown."""
    sizes: list[int | None] = []
    for shape in shapes:
        if shape is None:
            return None
        sizes += shape
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _granularity(scales: Any | None) -> str:
    if scales is None or scales.size == 1:
        return "tensor"
    return "channel" if scales.ndim == 1 else "block"


def _axis(node: "NodeProto", shape: _Shape | None) -> int | None:
    """Returns the axis with one scale per index, counted from the front."""
    kind = _kind(node)
    if kind in ("QuantizeLinear", "DequantizeLinear"):
        axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
        axis = axes[0] if axes else 1
    else:
        axis = 0 if kind in _CONVOLUTIONS else -1
    return axis + len(shape) if axis < 0 and shape is not None else axis
