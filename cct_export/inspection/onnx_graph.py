"""The graph of an ONNX model: its operators, what they cost, and what is quantized."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from cct_export.records import Operator, Tensor

_Shape = tuple[int | None, ...]

# Operators that only bring a stored weight into the type of the computation.
_DECODERS = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear")
# Inputs that hold scales, zero points, sizes or bounds, by kind. Integers need no mention.
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
}
_WEIGHT_TYPES = ("float", "bfloat", "int2", "int4", "int8", "uint2", "uint4", "uint8")
# Where a quantized tensor, its scale and its zero point are among the inputs; a tensor at -1 is
# the output. *Integer operators have no scale: it follows them.
_QUANTIZED = {
    "ConvInteger": ((1, None, 3),),
    "DequantizeLinear": ((0, 1, 2),),
    "MatMulInteger": ((1, None, 3),),
    "QLinearConv": ((0, 1, 2), (3, 4, 5), (-1, 6, 7)),
    "QLinearMatMul": ((0, 1, 2), (3, 4, 5), (-1, 6, 7)),
    "QuantizeLinear": ((-1, 1, 2),),
    "com.microsoft.DynamicQuantizeMatMul": ((1, 2, 3),),
}
# The weights of a convolution: (out, in, ...); those of a product: (..., in, out).
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = (
    "MatMul", "MatMulInteger", "QLinearMatMul", "com.microsoft.DynamicQuantizeMatMul",
    "com.microsoft.FusedMatMul",
)  # fmt: skip


class Value(NamedTuple):
    """Type and shape of a tensor; None if the file does not tell."""

    dtype: str
    shape: _Shape | None


def subgraphs(graph: Any) -> Iterator[Any]:
    """Gives a graph, and those inside its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from subgraphs(inner)


def steps(graph: Any) -> list[Any]:
    """Returns the operators of all graphs; a Constant is a tensor, and not one."""
    nodes = (node for inner in subgraphs(graph) for node in inner.node)
    return [node for node in nodes if node.op_type != "Constant"]


def stored(graph: Any) -> dict[str, Any]:
    """Returns the constants by name, as ``TensorProto``; sparse ones are not among them."""
    import numpy as np
    import onnx

    found: dict[str, Any] = {}
    for inner in subgraphs(graph):
        found |= {tensor.name: tensor for tensor in inner.initializer}
        for node in inner.node:
            if node.op_type != "Constant":
                continue
            for value in map(onnx.helper.get_attribute_value, node.attribute):
                if isinstance(value, onnx.TensorProto):
                    found[node.output[0]] = value
                elif not isinstance(value, onnx.SparseTensorProto):
                    found[node.output[0]] = onnx.numpy_helper.from_array(np.asarray(value))
    return found


def _dtype(number: int) -> str:
    """Returns numpy's name of an element type of ONNX."""
    import onnx

    if number == onnx.TensorProto.STRING:
        return "string"
    if not number:
        return "unknown"
    return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)


def _value(info: Any) -> Value:
    type = info.type.tensor_type
    if not type.HasField("shape"):
        return Value(_dtype(type.elem_type), None)
    sizes = (size.dim_value if size.HasField("dim_value") else None for size in type.shape.dim)
    return Value(_dtype(type.elem_type), tuple(sizes))


def annotated(graph: Any) -> dict[str, Value]:
    """Returns type and shape of every tensor for which the graphs say it."""
    return {
        info.name: _value(info)
        for inner in subgraphs(graph)
        for info in (*inner.value_info, *inner.input, *inner.output)
    }


def _kind(node: Any) -> str:
    """Returns the operator's name; one that is not of ONNX itself has its domain before it."""
    standard = node.domain in ("", "ai.onnx")
    return str(node.op_type if standard else f"{node.domain}.{node.op_type}")


class Graph:
    """The operators of a model whose batch is fixed, with what they read.

    Args:
        model: the file, each operator named by its place.
        values: type and shape of every tensor for which they are known.
    """

    def __init__(self, model: Any, values: dict[str, Value]) -> None:
        self.steps = steps(model.graph)
        self.constants = stored(model.graph)
        self.values = dict(values)
        for name, tensor in self.constants.items():
            self.values[name] = Value(_dtype(tensor.data_type), tuple(tensor.dims))
        self._inputs = [end.name for end in model.graph.input]
        self._makers = {name: node for node in self.steps for name in node.output}
        # For each constant, and for what operators only decode of one, the constant.
        self._root = {name: name for name in self.constants}
        self._scaled: set[str] = set()
        for node in self.steps:
            if self._decodes(node):
                root = self._root[node.output[0]] = self._root[node.input[0]]
                if _kind(node) == "DequantizeLinear":
                    self._scaled.add(root)

    def _decodes(self, node: Any) -> bool:
        """Tells whether an operator only brings a stored weight into its reals."""
        root = self._root.get(node.input[0]) if node.input else None
        if root is None or _kind(node) in _DECODERS:
            return root is not None
        # Integers that were cast, times their scales: what DequantizeLinear does.
        integers = self.values[root].dtype.startswith(("int", "uint"))
        return _kind(node) == "Mul" and integers and node.input[1] in self.constants

    def names(self) -> set[str]:
        """Returns the names of all tensors."""
        made = {name for node in self.steps for name in node.output if name}
        return made | set(self._inputs) | set(self.constants)

    def parameters(self) -> int:
        """Returns the elements of all weights, each counted once."""
        found: set[str] = set().union(*map(self._weights, self.steps))
        return sum(map(self._size, found))

    def operators(self, partitions: dict[str, int]) -> tuple[Operator, ...]:
        """Returns every operator; ``partitions`` has the partition by the operator's name."""
        return tuple(self._operator(node, partitions.get(node.name)) for node in self.steps)

    def _operator(self, node: Any, partition: int | None) -> Operator:
        weights = sorted(self._weights(node))
        output = node.output[0] if node.output else ""
        return Operator(
            index=int(node.name),
            kind=_kind(node),
            shape=self._shape(output),
            macs=self._macs(node),
            parameters=sum(map(self._size, weights)),
            weight_dtype=self.values[max(weights, key=self._size)].dtype if weights else None,
            partition=partition,
        )

    def _shape(self, name: str) -> _Shape | None:
        return self.values[name].shape if name in self.values else None

    def _size(self, constant: str) -> int:
        return math.prod(self.constants[constant].dims)

    def _weights(self, node: Any) -> set[str]:
        """Returns the constants that an operator reads as weights."""
        kind = _kind(node)
        if self._decodes(node):
            return set()
        found = set()
        for slot, name in enumerate(node.input):
            root = self._root.get(name)
            if root is None or slot in _SETTINGS.get(kind, ()) or not self.constants[root].dims:
                continue
            dtype = self.values[root].dtype
            bias = root in self._scaled or (kind, slot) == ("QLinearConv", 8)
            if (bias or dtype.startswith(_WEIGHT_TYPES)) and not self._is_scale(node, name):
                found.add(root)
        return found

    def _is_scale(self, node: Any, name: str) -> bool:
        """Tells whether ``name`` is what a scale found at run time is multiplied with."""
        made = [self._makers.get(other) for other in node.input if other != name]
        return node.op_type == "Mul" and any(
            maker is not None
            and maker.op_type == "DynamicQuantizeLinear"
            and maker.output[1] in node.input
            for maker in made
        )

    def _macs(self, node: Any) -> int | None:
        """Returns the multiply-accumulates, taps over the border included; None if unknown."""
        kind = _kind(node)
        made = self._shape(node.output[0]) if node.output else None
        if kind in _CONVOLUTIONS:
            weights = self._shape(node.input[_CONVOLUTIONS[kind]])
            return _product(made, weights and weights[1:])
        if kind == "ConvTranspose":  # weights (in, out, ...)
            weights = self._shape(node.input[1])
            return _product(self._shape(node.input[0]), weights and weights[1:])
        if kind in _PRODUCTS or kind == "Gemm":
            flags = {entry.name: entry.i for entry in node.attribute}
            left = self._shape(node.input[0])
            if not left or flags.get("transBatchA"):
                return None
            return _product(made, left[-2:-1] if flags.get("transA") else left[-1:])
        return 0

    def quantized(self) -> tuple[Tensor, ...]:
        """Returns the tensors whose scale, or zero point at least, is in the file."""
        found: dict[str, Tensor] = {}
        for node in self.steps:
            for slots in _QUANTIZED.get(_kind(node), ()):
                record = self._quantized(node, *slots)
                if record is not None:
                    found.setdefault(record.name, record)
        return tuple(found.values())

    def _quantized(self, node: Any, tensor: int, scale: int | None, zero: int) -> Tensor | None:
        name = node.output[0] if tensor < 0 else node.input[tensor]
        scales = self._integer_scale(node) if scale is None else self._array(node.input[scale])
        zeros = self._array(node.input[zero]) if zero < len(node.input) else None
        if scales is None and not (scale is None and name in self.constants):
            return None  # found at run time
        value = self.values.get(name, Value("unknown", None))
        if tensor < 0 and zeros is not None:
            value = value._replace(dtype=str(zeros.dtype.name))
        granularity = _granularity(scales if scales is not None else zeros)
        return Tensor(
            name,
            *value,
            granularity=granularity,
            axis=_axis(node, tensor, value.shape) if granularity == "channel" else None,
            scales=() if scales is None else tuple(map(float, scales.reshape(-1))),
            zero_points=() if zeros is None else tuple(map(int, zeros.reshape(-1))),
        )

    def _array(self, name: str) -> Any | None:
        """Returns a constant as an array, None for anything else."""
        import onnx

        tensor = self.constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def _integer_scale(self, node: Any) -> Any | None:
        """Returns the weights' scale of a ``*Integer`` operator, which a Mul after it applies.

        The sums are cast and multiplied with the product of both scales, that of the images and
        that of the weights; the first is not a constant.
        """
        sums = {node.output[0]}
        for step in self.steps:
            if step.op_type == "Cast" and step.input[0] in sums:
                sums.add(step.output[0])
            if step.op_type != "Mul" or not sums.intersection(step.input):
                continue
            for factor in set(step.input) - sums:
                made = self._makers.get(factor)
                names = made.input if made is not None and made.op_type == "Mul" else [factor]
                for name in names:
                    if name in self.constants:
                        return self._array(name)
        return None


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


def _axis(node: Any, tensor: int, shape: _Shape | None) -> int | None:
    """Returns which axis of the tensor has a scale for each index, counted from the front."""
    kind = _kind(node)
    if kind in ("QuantizeLinear", "DequantizeLinear"):
        given = [entry.i for entry in node.attribute if entry.name == "axis"]
        axis = given[0] if given else 1
    else:
        axis = 0 if kind in _CONVOLUTIONS else -1
    return axis + len(shape) if axis < 0 and shape is not None else axis
