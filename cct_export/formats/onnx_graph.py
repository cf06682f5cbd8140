"""Builds an ONNX graph, node by node: constants, tensor layouts and QDQ pairs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cct_export.formats.onnx_checked import checked
from cct_export.graph import steps
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Step
from cct_export.records.layout import NCHW
from cct_export.specs import ExportSpec

# Operators of ONNX Runtime's own, "contrib" operators.
MICROSOFT = "com.microsoft"
# Fewer channels make loops over the last axis too short.
SHORT_ROW = 16


class GraphEnd(NamedTuple):
    """An input or output of the graph: name, numpy type and shape, a dynamic batch by its name."""

    name: str
    type: str
    shape: list[int | str]


class OnnxGraph:
    """The nodes and constants of a plan.

    Convolutions and pools take channels first, elementwise operators what their first input has,
    all other operators channels last; a tensor is transposed for its first consumer that needs the
    other layout. Quantized tensors are written as
    QDQ pairs (QuantizeLinear, DequantizeLinear), which engines turn into integer arithmetic.

    In a plan of integers only, whose files are for NPUs, every node stands between such pairs,
    those that only move values too, and activations are unsigned: ONNX Runtime's QNN provider gives
    the chip a node only as a whole group of DequantizeLinear, node and QuantizeLinear, with one
    type of input and output (``NodeGroupSelector`` in its ``qdq_transformer/selectors_actions``).

    Args:
        quantized: the plan.
        spec: ``io``, ``dynamic_batch``, ``layout``, ``target`` and ``pure_onnx`` are used.
        opset: version of the operator set.
    """

    def __init__(self, quantized: QuantizedPlan, spec: ExportSpec, opset: int) -> None:
        import onnx

        self.onnx = onnx
        self.opset = opset
        self.quantized = quantized
        self.plan = quantized.plan
        self.io = spec.io
        self.batch: int | str = "batch" if spec.dynamic_batch else 1
        self.integers_only = any(quantized.is_integer_only(bits) for bits in (8, 16))
        self.pure = spec.pure_onnx or self.integers_only
        self.unsigned = self.integers_only or spec.target != "arm64"
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        # Tensors of the plan that are stored channels first, and conversions that exist already.
        self.layout = spec.layout.upper()
        self.channels_first = {self.plan.INPUT} if self.layout == NCHW else set()
        self.conversions: set[str] = set()
        self.config = OpQuantConfig()

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output, standard without a ``domain``; returns the output's name."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def feature_map(self, kind: str, step: Step, inputs: list[str], **attributes: Any) -> str:
        """Adds a node whose output, that of a step, has its channels first."""
        self.channels_first.add(step.output)
        return self.node(kind, inputs, step.output, **attributes)

    def constant(self, name: str, array: np.ndarray) -> str:
        """Adds a constant, once per name: int64 if it holds integers, else float32."""
        return self.typed_constant(name, array, "int64" if array.dtype.kind == "i" else "float32")

    def typed_constant(self, name: str, array: np.ndarray, type: str, scalar: bool = False) -> str:
        """Adds a constant of a numpy type, or of ``int4``; returns its name.

        Args:
            name: its name.
            array: its values.
            type: its type.
            scalar: whether a single value has the shape ``()``, not ``(1,)``.
        """
        if type == "int4":
            flat = array.astype(np.int64).reshape(-1)
            int4 = self.onnx.TensorProto.INT4
            tensor = self.onnx.helper.make_tensor(name, int4, array.shape, flat)
        else:
            stored = np.ascontiguousarray(array.astype(type))
            tensor = self.onnx.numpy_helper.from_array(
                stored.reshape(()) if scalar else stored, name
            )
        self.constants[name] = tensor
        return name

    def kernel(self, step: steps.Conv | steps.Dense, kernel: Array, axis: int) -> str:
        """Adds the kernel of the current step, stored as its config says.

        Args:
            step: whose kernel it is.
            kernel: in ONNX's layout.
            axis: that of the output channels.
        """
        name, params = f"{step.output}/kernel", self.config.weights
        if params is None:
            return self.float_constant(name, kernel)
        return self._integer_constant(name, np.moveaxis(kernel, axis, -1), params, axis)

    def float_constant(self, name: str, array: Array) -> str:
        """Adds a float constant of the current step; engines fold the Cast at load time."""
        if not self.config.float16_weights:
            return self.constant(name, array)
        half = self.typed_constant(f"{name}/half", array, "float16")
        return self.to_float(half, name)

    def operand(self, name: str, array: Array) -> str:
        """Adds a constant that the current step computes with, of the type of integer activations.

        Args:
            name: its name.
            array: its values.
        """
        params = self.config.weights
        if params is None:
            return self.float_constant(name, array)
        half = 2 ** (params.bits - 1)
        integers = params.quantize(array) + half
        stored = self.typed_constant(f"{name}/integers", integers, f"uint{params.bits}")
        return self.node("DequantizeLinear", [stored, *self._grid(name, params)], name)

    def bias(self, step: steps.Conv | steps.Dense | steps.LayerNorm, values: Array) -> str:
        """Adds the bias of the current step: if it is static, int32 in units of its products."""
        name, weights = f"{step.output}/bias", self.config.weights
        if self.config.inputs != "static" or weights is None:
            return self.constant(name, values)
        scale = self.quantized.qparams[step.inputs[0]].scale * weights.scale
        stored = self.typed_constant(f"{name}/integers", np.rint(values / scale), "int32")
        if np.ndim(scale) == 0:
            unit = self.typed_constant(f"{name}/scale", scale, "float32", scalar=True)
            return self.node("DequantizeLinear", [stored, unit], name)
        return self.node(
            "DequantizeLinear", [stored, self.constant(f"{name}/scale", scale)], name, axis=0
        )

    def to_float(self, x: str, output: str) -> str:
        """Adds a Cast to float32; returns its output."""
        return self.node("Cast", [x], output, to=self.onnx.TensorProto.FLOAT)

    def _integer_constant(
        self, name: str, channels_last: Array, params: QuantParams, axis: int
    ) -> str:
        """Adds a quantized constant, its channels moved to ``axis``, and its dequantization."""
        integers = np.moveaxis(params.quantize(channels_last), -1, axis)
        stored = self.typed_constant(f"{name}/integers", integers, f"int{params.bits}")
        if params.scale.ndim == 2:
            # ONNX Runtime fuses it with the product that follows to a MatMulNBits.
            scales = self.constant(f"{name}/scale", params.scale)
            block = len(channels_last) // len(params.scale)
            return self.node("DequantizeLinear", [stored, scales], name, axis=0, block_size=block)
        scale = np.broadcast_to(params.scale, channels_last.shape[-1:])
        if self.config.inputs == "static":
            scales = self.constant(f"{name}/scale", scale)
            return self.node("DequantizeLinear", [stored, scales], name, axis=axis)
        # The arithmetic is float. ONNX Runtime folds a Cast and a Mul at load time; it would run a
        # DequantizeLinear at every inference.
        shape = [-1 if index == axis else 1 for index in range(channels_last.ndim)]
        scales = self.constant(f"{name}/scale", scale.reshape(shape))
        return self.node("Mul", [self.to_float(stored, f"{name}/reals"), scales], name)

    def first(self, name: str) -> str:
        """Returns a feature map with channels first, as the current step consumes it."""
        if name in self.channels_first:
            return self._consumed(name, name)
        return self._consumed(name, self._transposed(name, "channels_first", [0, 3, 1, 2]))

    def last(self, name: str) -> str:
        """Returns a tensor with channels last, as the current step consumes it."""
        if name not in self.channels_first:
            return self._consumed(name, name)
        return self._consumed(name, self._transposed(name, "channels_last", [0, 2, 3, 1]))

    def elementwise(self, step: Step) -> list[str]:
        """Returns the inputs of a step in the layout of the first; its output has that, too."""
        if step.inputs[0] in self.channels_first:
            self.channels_first.add(step.output)
            return [self.first(name) for name in step.inputs]
        return [self.last(name) for name in step.inputs]

    def beside(self, step: Step, array: Array) -> Array:
        """Returns a constant in the layout of an elementwise step whose output it broadcasts to."""
        if array.size == 1:
            return array
        if step.output not in self.channels_first:
            return self._by_rows(self.plan.shapes[step.output], array)
        return np.moveaxis(array.reshape((1,) * (3 - array.ndim) + array.shape), -1, 0)

    def _by_rows(self, shape: steps.Shape, array: Array) -> Array:
        """Returns a value for each of a few channels, such as an image's, repeated for a row.

        Engines broadcast over the last axis in loops of its length, which for three values take
        ten times as long as for a row of them.
        """
        few = array.ndim == 1 and len(shape) == 3 and array.size < SHORT_ROW
        return array if self.integers_only or not few else np.tile(array, (shape[1], 1))

    def end(self, name: str) -> None:
        """Finishes the output of the graph, which keeps its name.

        It has its channels last and, in a plan of integers only, passed through its QDQ pair.
        """
        transposed = name in self.channels_first
        if not transposed and not self.integers_only:
            return
        stored = f"{name}/stored"
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [stored if other == name else other for other in names]
            node.name = node.output[0]
        if transposed:
            output = f"{name}/channels_last" if self.integers_only else name
            source = self.between(name, stored)
            stored = self.node("Transpose", [source], output, perm=[0, 2, 3, 1])
        if self.integers_only:
            self._qdq_pair(name, stored, name)

    def _transposed(self, name: str, layout: str, order: list[int]) -> str:
        """Returns the tensor in another layout, transposed once for all consumers."""
        output = f"{name}/{layout}"
        if output not in self.conversions:
            source = self._consumed(name, name) if self.integers_only else name
            self.conversions.add(self.node("Transpose", [source], output, perm=order))
        return output

    def _consumed(self, name: str, stored: str) -> str:
        """Returns a tensor as the current step consumes it: quantized or not.

        Args:
            name: of the tensor in the plan.
            stored: the same tensor in the layout that the step needs.
        """
        static = self.config.inputs == "static"
        if name == self.plan.INPUT and self.io == "uint8":
            if static and self.quantized.qparams[name].bits == 8:
                is_integer = stored == name or not self.integers_only
                return self._on_grid(name, stored, is_integer=is_integer)
            if stored == name or not self.integers_only:
                stored = self._pixels_as_floats(stored)
        producer = self.plan.producer(name)
        produced_quantized = (
            producer is not None and self.quantized.config(producer).quantized_output
        )
        if not static and not produced_quantized:
            return stored
        return self._on_grid(name, stored)

    def _pixels_as_floats(self, stored: str) -> str:
        """Returns an image of uint8 as float32, converted once for all consumers."""
        output = f"{stored}/float"
        if output in self.conversions:
            return output
        self.conversions.add(output)
        if not self.integers_only:
            return self.to_float(stored, output)
        # The QNN provider makes one conversion of a DequantizeLinear and the QuantizeLinear after
        # it (``dq_q_fusion`` in its ``builder/qnn_node_group``).
        pixels = QuantParams(np.array(1.0), -128, -128, 127)
        return self.node("DequantizeLinear", [stored, *self._grid(output, pixels)], output)

    def integers(self, x: str) -> list[str]:
        """Returns integers, scale and zero point of a tensor as a step consumes it."""
        return next(list(node.input) for node in self.nodes if node.output[0] == x)

    def between(self, name: str, stored: str) -> str:
        """Returns a tensor between two nodes of one step, in integers where nothing else is.

        Args:
            name: the tensor of the plan whose parameters it has.
            stored: what the first node computes.
        """
        return self._on_grid(name, stored) if self.integers_only else stored

    def _on_grid(self, name: str, stored: str, *, is_integer: bool = False) -> str:
        """Returns a tensor after its QDQ pair, which is added once for all consumers."""
        output = f"{stored}/on_grid"
        if output not in self.conversions:
            self.conversions.add(output)
            self._qdq_pair(name, stored, output, is_integer=is_integer)
        return output

    def _qdq_pair(self, name: str, stored: str, output: str, *, is_integer: bool = False) -> None:
        """Adds the QDQ pair of a tensor; only the second half if it ``is_integer`` already."""
        params = self.quantized.qparams[name]
        grid = self._grid(output, params, unsigned=self.unsigned or is_integer)
        integers = stored
        if not is_integer:
            integers = self.node("QuantizeLinear", [stored, *grid], f"{output}/integers")
        self.node("DequantizeLinear", [integers, *grid], output)

    def _grid(self, name: str, params: QuantParams, *, unsigned: bool = True) -> list[str]:
        """Adds scale and zero point of a tensor; returns their names."""
        zero_point = params.zero_point + (2 ** (params.bits - 1) if unsigned else 0)
        type = f"{'u' if unsigned else ''}int{params.bits}"
        # Scalars: ONNX Runtime's integer average pool refuses parameters of the shape (1,).
        return [
            self.typed_constant(f"{name}/scale", params.scale, "float32", scalar=True),
            self.typed_constant(f"{name}/zero_point", np.array(zero_point), type, scalar=True),
        ]

    def serialize(
        self, image: GraphEnd, logits: GraphEnd, metadata: Mapping[str, str | bytes]
    ) -> bytes:
        """Checks the graph and returns it, serialized.

        Args:
            image: the input.
            logits: the output.
            metadata: names and texts.

        Raises:
            ConversionError: onnx.checker refused the graph.
        """
        helper = self.onnx.helper
        ends = [
            helper.make_tensor_value_info(
                end.name, helper.np_dtype_to_tensor_dtype(np.dtype(end.type)), end.shape
            )
            for end in (image, logits)
        ]
        # What takes integers itself leaves their dequantization without consumers.
        consumed = {image.name, logits.name, *(name for node in self.nodes for name in node.input)}
        nodes = [node for node in self.nodes if node.output[0] in consumed]
        graph = helper.make_graph(nodes, "cct", ends[:1], ends[1:])
        graph.value_info.extend(self._annotations(nodes))
        opset = helper.make_opsetid("", self.opset)
        own = [helper.make_opsetid(MICROSOFT, 1)] if graph.value_info else []
        model = helper.make_model(graph, opset_imports=[opset, *own], producer_name="cct-export")
        for name in list(self.constants):  # each is there once, not here and there
            model.graph.initializer.append(self.constants.pop(name))
        # The oldest file format that has the opset, which older engines read, too.
        model.ir_version = helper.find_min_ir_version_for([opset])
        return checked(model, metadata)

    def _annotations(self, nodes: Sequence[Any]) -> list[Any]:
        """Returns type and shape of what operators compute that other readers do not know."""
        shapes = {f"{name}/sum": shape for name, shape in self.plan.shapes.items()}
        shapes |= self.plan.shapes
        return [
            self.onnx.helper.make_tensor_value_info(
                node.output[0],
                self.onnx.TensorProto.FLOAT,
                [self.batch, *shapes[node.output[0]]],
            )
            for node in nodes
            if node.domain == MICROSOFT
        ]
