"""What is in an ONNX file: read with onnx, placed by ONNX Runtime."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.results import CONTRACT_KEY, Inspection, Operator, Tensor
from cct_export.runtimes import onnxruntime as engine
from cct_export.sidecar import parse_contract

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
_ENGINE_TYPES = {"float": "float32", "double": "float64"}
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


class _Value(NamedTuple):
    """Type and shape of a tensor; None if the file does not tell."""

    dtype: str
    shape: _Shape | None


def inspect(path: Path) -> Inspection:
    """Returns what is in ``path``.

    Raises:
        InvalidArtifact: not an ONNX file that onnx or ONNX Runtime accepts.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    engine.import_engine()
    import onnxruntime

    model = _read(path)
    places, refusal = _placement(model)
    if refusal:
        _check(model, path, refusal)
    try:
        properties = {entry.key: entry.value for entry in model.metadata_props}
        contract = parse_contract(properties.get(CONTRACT_KEY, "{}"))
    except ValueError as error:
        raise InvalidArtifact(f"{path}: its {CONTRACT_KEY} cannot be read: {error}") from error
    known = _stored(model.graph)
    inputs = [end for end in model.graph.input if end.name not in known]
    ends = [
        tuple(_end(end, _annotated(model.graph)) for end in side)
        for side in (inputs, model.graph.output)
    ]
    _fix_batch(model, inputs)
    graph = _Graph(model, runs=not refusal)
    partitions = {name: 0 for name in places if name.isdecimal()}
    operators = graph.operators(partitions)
    unknown = sum(operator.macs is None for operator in operators)
    return Inspection(
        path=path,
        format="onnx",
        scheme=contract.get("scheme"),
        size_bytes=path.stat().st_size,
        inputs=ends[0],
        outputs=ends[1],
        operators=operators,
        parameters=graph.parameters(),
        tensors=len(graph.names()),
        quantized=graph.quantized(),
        engine=f"onnxruntime {onnxruntime.__version__}",
        nodes=None if refusal else len(places),
        delegated=None if refusal else len(places),
        # One provider, the CPU's, takes everything: one part.
        partitions=None if refusal else min(1, len(places)),
        warnings=_warnings(refusal, unknown),
    )


def _warnings(refusal: str, unknown: int) -> tuple[str, ...]:
    found = [f"ONNX Runtime cannot run it: {refusal}"] if refusal else []
    if unknown:
        found.append(f"the shapes of {unknown} operators are unknown: their MACs are not counted")
    return tuple(found)


def _read(path: Path) -> Any:
    """Returns the model with functions unfolded and every operator named by its place."""
    try:
        import onnx
        import onnx.inliner
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependency.of("onnx", "onnx") from None

    try:
        model = onnx.load(path, format="protobuf")
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise InvalidArtifact(f"{path}: not a readable ONNX file: {error}") from error
    if not model.ir_version or not model.graph.output:
        raise InvalidArtifact(f"{path}: not a readable ONNX file: no graph with an output")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    # A name that is missing or used twice could not be found again in what ONNX Runtime runs.
    for place, node in enumerate(_steps(model.graph)):
        node.name = str(place)
    return model


def _subgraphs(graph: Any) -> Iterator[Any]:
    """Gives a graph, and those inside its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _subgraphs(inner)


def _steps(graph: Any) -> list[Any]:
    """Returns the operators of all graphs; a Constant is a tensor, and not one."""
    nodes = (node for inner in _subgraphs(graph) for node in inner.node)
    return [node for node in nodes if node.op_type != "Constant"]


def _stored(graph: Any) -> dict[str, Any]:
    """Returns the constants by name, as ``TensorProto``; sparse ones are not among them."""
    import numpy as np
    import onnx

    found: dict[str, Any] = {}
    for inner in _subgraphs(graph):
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


def _placement(model: Any) -> tuple[list[str], str]:
    """Returns the names of the nodes that ONNX Runtime runs, or why it runs none."""
    try:
        session = _session(model)
    except Exception as error:  # its exceptions have no common base class
        return [], str(error).strip().partition("\n")[0] or type(error).__name__
    parts = session.get_provider_graph_assignment_info()
    return [node.name for part in parts for node in part.get_nodes()], ""


def _session(model: Any, optimized: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # The fallback, which tries the same provider again, prints on standard output.
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[engine.PROVIDER], enable_fallback=0
    )


def _check(model: Any, path: Path, refusal: str) -> None:
    """Raises ``InvalidArtifact`` if onnx finds fault too with what ONNX Runtime refuses."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidArtifact(f"ONNX Runtime cannot open {path}: {refusal}") from error


def _fix_batch(model: Any, inputs: list[Any]) -> None:
    """Sets the first size of each input to 1 where it is open, and what has the same symbol."""
    symbols = set()
    for end in inputs:
        sizes = end.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            symbols.add(sizes[0].dim_param)
            sizes[0].dim_value = 1
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param and size.dim_param in symbols:
                size.dim_value = 1


def _dtype(number: int) -> str:
    """Returns numpy's name of an element type of ONNX."""
    import onnx

    if number == onnx.TensorProto.STRING:
        return "string"
    if not number:
        return "unknown"
    return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)


def _value(info: Any) -> _Value:
    type = info.type.tensor_type
    if not type.HasField("shape"):
        return _Value(_dtype(type.elem_type), None)
    sizes = (size.dim_value if size.HasField("dim_value") else None for size in type.shape.dim)
    return _Value(_dtype(type.elem_type), tuple(sizes))


def _annotated(graph: Any) -> dict[str, _Value]:
    """Returns type and shape of every tensor for which the graphs say it."""
    return {
        info.name: _value(info)
        for inner in _subgraphs(graph)
        for info in (*inner.value_info, *inner.input, *inner.output)
    }


def _end(info: Any, values: dict[str, _Value]) -> Tensor:
    return Tensor(info.name, *values[info.name])


def _inferred(model: Any, runs: bool) -> dict[str, _Value]:
    """Returns type and shape of every tensor for which they can be known.

    onnx knows the standard operators; for what is left ONNX Runtime, which knows its own too, is
    asked, if it can open the file.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model
    found = _annotated(inferred.graph)
    outputs = [name for node in model.graph.node for name in node.output if name]
    missing = [name for name in outputs if not _is_known(found.get(name))]
    return found | (_asked(model, missing) if missing and runs else {})


def _is_known(value: _Value | None) -> bool:
    return value is not None and value.shape is not None and None not in value.shape


def _asked(model: Any, names: list[str]) -> dict[str, _Value]:
    """Returns type and shape of tensors as ONNX Runtime sees them."""
    import onnx

    open = onnx.ModelProto()
    open.CopyFrom(model)
    given = {end.name for end in open.graph.output}
    open.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    found = {}
    # An optimization could do away with the tensors asked for.
    for end in _session(open, optimized=False).get_outputs():
        dtype = end.type.removeprefix("tensor(").removesuffix(")")
        if end.name in names and dtype != end.type:
            sizes = tuple(size if isinstance(size, int) else None for size in end.shape)
            found[end.name] = _Value(_ENGINE_TYPES.get(dtype, dtype), sizes)
    return found


def _kind(node: Any) -> str:
    """Returns the operator's name; one that is not of ONNX itself has its domain before it."""
    standard = node.domain in ("", "ai.onnx")
    return str(node.op_type if standard else f"{node.domain}.{node.op_type}")


class _Graph:
    """The operators of a model whose batch is fixed, with what they read.

    Args:
        model: the file, each operator named by its place.
        runs: whether ONNX Runtime can open it.
    """

    def __init__(self, model: Any, runs: bool) -> None:
        self.steps = _steps(model.graph)
        self.constants = _stored(model.graph)
        self.values = _inferred(model, runs)
        for name, tensor in self.constants.items():
            self.values[name] = _Value(_dtype(tensor.data_type), tuple(tensor.dims))
        self._inputs = [end.name for end in model.graph.input]
        self._makers = {name: node for node in self.steps for name in node.output}
        # For each constant, and for what operators only decode of one, the constant.
        self._root = {name: name for name in self.constants}
        self._scaled: set[str] = set()
        for node in self.steps:
            if _kind(node) in _DECODERS and node.input and node.input[0] in self._root:
                root = self._root[node.output[0]] = self._root[node.input[0]]
                if _kind(node) == "DequantizeLinear":
                    self._scaled.add(root)

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
        if kind in _DECODERS and node.input and node.input[0] in self._root:
            return set()
        found = set()
        for slot, name in enumerate(node.input):
            root = self._root.get(name)
            if root is None or slot in _SETTINGS.get(kind, ()) or not self.constants[root].dims:
                continue
            stored = self.values[root].dtype
            bias = root in self._scaled or (kind, slot) == ("QLinearConv", 8)
            if (bias or stored.startswith(_WEIGHT_TYPES)) and not self._is_scale(node, name):
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
        value = self.values.get(name, _Value("unknown", None))
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
