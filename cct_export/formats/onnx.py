"""A plan as a float32 ONNX graph of standard operators."""

import math
from functools import singledispatchmethod
from typing import Any

import numpy as np

from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.graph import plan as steps
from cct_export.graph.expand import expand
from cct_export.graph.plan import Array, Plan, Step
from cct_export.specs import ExportSpec

OPSETS = range(13, 24)
DEFAULT_OPSET = 20
# The first operator sets that have them; before, they are written as what they are made of.
_LAYER_NORMALIZATION = 17
_GELU = 20


def emit(plan: Plan, spec: ExportSpec) -> bytes:
    """Writes a plan.

    Args:
        plan: folded or not.
        spec: ``opset`` (20 if None) and ``dynamic_batch`` are used.

    Returns:
        The serialized graph: ``image`` float32 ``(batch, H, W, C)``, 0–255, to ``logits`` float32
        ``(batch, classes)``.

    Raises:
        InvalidRequest: unknown opset.
        MissingDependency: onnx is not installed.
    """
    opset = chosen_opset(spec, OPSETS, DEFAULT_OPSET)
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingDependency.of("onnx", "onnx") from None
    return _Writer(expand(plan), opset).write("batch" if spec.dynamic_batch else 1)


def chosen_opset(spec: ExportSpec, allowed: range, default: int) -> int:
    """Returns the operator set that ``spec`` asks for, or ``default``.

    Raises:
        InvalidRequest: it is not among those that are allowed.
    """
    opset = default if spec.opset is None else spec.opset
    if opset not in allowed:
        raise InvalidRequest(
            f"opset {opset} is not one that can be written: "
            f"choose {allowed.start} to {allowed.stop - 1}"
        )
    return opset


class _Writer:
    """Writes the steps of a plan as nodes.

    Convolutions and pools want channels first, all else channels last. A tensor is transposed when
    the first step reads it that wants the other order.
    """

    def __init__(self, plan: Plan, opset: int) -> None:
        import onnx

        self.onnx = onnx
        self.plan = plan
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.channels_first: set[str] = set()
        self.doors: set[str] = set()

    def write(self, batch: int | str) -> bytes:
        """Returns the serialized graph."""
        for step in self.plan.steps:
            self.add(step, *step.inputs)
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        plan = self.plan
        ends = [
            helper.make_tensor_value_info(name, float32, [batch, *plan.shapes[name]])
            for name in (plan.INPUT, plan.output)
        ]
        graph = helper.make_graph(
            self.nodes, "cct", ends[:1], ends[1:], list(self.constants.values())
        )
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="cct-export")
        # The oldest file format that has the opset: older engines read the file, too.
        model.ir_version = helper.find_min_ir_version_for([opset])
        content: bytes = model.SerializeToString()
        return content

    @singledispatchmethod
    def add(self, step: Step, *inputs: str) -> None:
        """Adds the nodes of a step."""
        raise TypeError(f"ONNX has no operator for {step.kind}")

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        node = self.onnx.helper.make_node(kind, inputs, [output], output, **attributes)
        self.nodes.append(node)
        return output

    def _constant(self, name: str, array: np.ndarray) -> str:
        """Adds a constant, once per name, as int64 if it holds integers, else as float32."""
        stored = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(stored), name)
        return name

    def _first(self, name: str) -> str:
        """Returns a map with the channels before rows and columns."""
        if name in self.channels_first:
            return name
        return self._transposed(name, f"{name}/channels_first", [0, 3, 1, 2])

    def _last(self, name: str) -> str:
        """Returns a tensor with the channels last."""
        if name not in self.channels_first:
            return name
        return self._transposed(name, f"{name}/channels_last", [0, 2, 3, 1])

    def _transposed(self, name: str, output: str, order: list[int]) -> str:
        """Returns the tensor in another order, made once for all who read it."""
        if output not in self.doors:
            self.doors.add(self._node("Transpose", [name], output, perm=order))
        return output

    def _on_map(self, kind: str, step: Step, inputs: list[str], **attributes: Any) -> str:
        """Adds a node whose output has its channels first."""
        self.channels_first.add(step.output)
        return self._node(kind, inputs, step.output, **attributes)

    @add.register
    def _(self, step: steps.Scale, x: str) -> None:
        y, parts = self._last(x), [("Mul", "scale", step.scale)]
        if np.any(step.shift):
            parts.append(("Add", "shift", step.shift))
        self._chain(step, y, parts)

    def _chain(self, step: Step, x: str, parts: list[tuple[str, str, Array]]) -> None:
        """Adds ``kind(x, constant)`` for each part, one after the other."""
        for kind, part, value in parts:
            output = step.output if part == parts[-1][1] else f"{step.output}/{part}_applied"
            x = self._node(kind, [x, self._constant(f"{step.output}/{part}", value)], output)

    @add.register
    def _(self, step: steps.Conv, x: str) -> None:
        inputs = [
            self._first(x),
            self._constant(f"{step.output}/kernel", step.kernel.transpose(3, 2, 0, 1)),
        ]
        if step.bias is not None:
            inputs.append(self._constant(f"{step.output}/bias", step.bias))
        attributes = {"strides": step.strides, "pads": _pads(step.pads)}
        attributes["kernel_shape"] = step.kernel.shape[:2]
        if step.relu:
            y = self._node("Conv", inputs, f"{step.output}/sum", **attributes)
            self._on_map("Relu", step, [y])
        else:
            self._on_map("Conv", step, inputs, **attributes)

    @add.register
    def _(self, step: steps.ZeroPad, x: str) -> None:
        (above, below), (left, right) = step.pads
        amounts = np.array([0, 0, above, left, 0, 0, below, right])
        pads = self._constant(f"{step.output}/amounts", amounts)
        self._on_map("Pad", step, [self._first(x), pads])

    @add.register
    def _(self, step: steps.MaxPool, x: str) -> None:
        self._on_map(
            "MaxPool",
            step,
            [self._first(x)],
            kernel_shape=step.size,
            strides=step.strides,
            pads=_pads(step.pads),
        )

    @add.register
    def _(self, step: steps.Reshape, x: str) -> None:
        # 0 is the size that the axis has: the batch may be any.
        to = self._constant(f"{step.output}/shape", np.array([0, *step.to]))
        self._node("Reshape", [self._last(x), to], step.output)

    @add.register
    def _(self, step: steps.Transpose, x: str) -> None:
        order = [0, *(axis + 1 for axis in step.order)]
        self._node("Transpose", [x], step.output, perm=order)

    @add.register
    def _(self, step: steps.Columns, x: str) -> None:
        bounds = {"start": step.start, "stop": step.stop, "axis": -1}
        constants = [
            self._constant(f"{step.output}/{key}", np.array([value]))
            for key, value in bounds.items()
        ]
        self._node("Slice", [x, *constants], step.output)

    @add.register
    def _(self, step: steps.Add, x: str, y: str) -> None:
        self._node("Add", [self._last(x), self._last(y)], step.output)

    @add.register
    def _(self, step: steps.AddConstant, x: str) -> None:
        self._chain(step, self._last(x), [("Add", "value", step.value)])

    @add.register
    def _(self, step: steps.Normalize, x: str) -> None:
        width = self.plan.shapes[step.output][-1]
        if self.opset >= _LAYER_NORMALIZATION:
            if step.gamma is None:
                gamma = self._constant(f"ones_{width}", np.ones(width))
            else:
                gamma = self._constant(f"{step.output}/gamma", step.gamma)
            inputs = [x, gamma]
            if step.beta is not None:
                inputs.append(self._constant(f"{step.output}/beta", step.beta))
            self._native_normalization(step, inputs)
        else:
            self._decomposed_normalization(step, x)

    def _decomposed_normalization(self, step: steps.Normalize, x: str) -> None:
        name = step.output
        mean = self._node("ReduceMean", [x], f"{name}/mean", axes=[-1], keepdims=1)
        centred = self._node("Sub", [x, mean], f"{name}/centred")
        square = self._node("Mul", [centred, centred], f"{name}/square")
        variance = self._node("ReduceMean", [square], f"{name}/variance", axes=[-1], keepdims=1)
        epsilon = self._constant(f"{name}/epsilon", np.array(step.epsilon))
        shifted = self._node("Add", [variance, epsilon], f"{name}/shifted")
        deviation = self._node("Sqrt", [shifted], f"{name}/deviation")
        parts = [("Mul", "gamma", step.gamma), ("Add", "beta", step.beta)]
        left = [(kind, part, value) for kind, part, value in parts if value is not None]
        bare = self._node("Div", [centred, deviation], f"{name}/bare" if left else name)
        self._chain(step, bare, left)

    def _native_normalization(self, step: steps.Normalize, inputs: list[str]) -> None:
        (x,) = step.inputs
        epsilon = step.epsilon
        if not isinstance(self.plan.maker(x), steps.Add) or not self.plan.only_reader(x):
            self._node("LayerNormalization", inputs, step.output, epsilon=epsilon)
            return
        # ONNX Runtime fuses a sum that nothing else reads with the normalization, into a kernel
        # that takes four times as long as both (33.6 against 6.7 µs for 64 tokens of width 128).
        # It does not look through a Reshape, which costs nothing.
        shape = self.plan.shapes[x]
        apart = self._constant(f"{step.output}/apart", np.array([0, 1, *shape]))
        inputs[0] = self._node("Reshape", [x, apart], f"{x}/apart")
        y = self._node("LayerNormalization", inputs, f"{step.output}/normal", epsilon=epsilon)
        back = self._constant(f"{step.output}/shape", np.array([0, *shape]))
        self._node("Reshape", [y, back], step.output)

    @add.register
    def _(self, step: steps.Dense, x: str) -> None:
        kernel = self._constant(f"{step.output}/kernel", step.kernel)
        rank = len(self.plan.shapes[step.output])
        if rank == 1 and step.bias is not None:
            self._node("Gemm", [x, kernel, self._bias(step)], step.output)
        elif step.bias is None:
            self._node("MatMul", [x, kernel], step.output)
        else:
            product = self._node("MatMul", [x, kernel], f"{step.output}/product")
            self._node("Add", [product, self._bias(step)], step.output)

    def _bias(self, step: steps.Dense) -> str:
        assert step.bias is not None, "asked for the bias of a dense layer without"
        return self._constant(f"{step.output}/bias", step.bias)

    @add.register
    def _(self, step: steps.Gelu, x: str) -> None:
        name = step.output
        if self.opset >= _GELU:
            self._node("Gelu", [x], name, approximate="tanh" if step.tanh else "none")
            return

        def scalar(part: str, value: float) -> str:
            return self._constant(f"{name}/{part}", np.array(value))

        if step.tanh:
            square = self._node("Mul", [x, x], f"{name}/square")
            cube = self._node("Mul", [square, x], f"{name}/cube")
            small = self._node("Mul", [cube, scalar("factor", 0.044715)], f"{name}/small")
            inner = self._node("Add", [x, small], f"{name}/inner")
            scale = scalar("scale", math.sqrt(2 / math.pi))
            scaled = self._node("Mul", [inner, scale], f"{name}/scaled")
            curve = self._node("Tanh", [scaled], f"{name}/curve")
        else:
            scaled = self._node("Div", [x, scalar("scale", math.sqrt(2))], f"{name}/scaled")
            curve = self._node("Erf", [scaled], f"{name}/curve")
        raised = self._node("Add", [curve, scalar("one", 1.0)], f"{name}/raised")
        twice = self._node("Mul", [x, raised], f"{name}/twice")
        self._node("Mul", [twice, scalar("half", 0.5)], name)

    @add.register
    def _(self, step: steps.Softmax, x: str) -> None:
        self._node("Softmax", [x], step.output, axis=-1)

    @add.register
    def _(self, step: steps.MatMul, a: str, b: str) -> None:
        if step.transpose_b:
            leading = range(len(self.plan.shapes[b]) - 1)
            order = [*leading, len(leading) + 1, len(leading)]
            b = self._node("Transpose", [b], f"{step.output}/transposed", perm=order)
        self._node("MatMul", [a, b], step.output)


def _pads(pads: steps.Pads) -> list[int]:
    """Returns pads in ONNX's order: above, left, below, right."""
    (above, below), (left, right) = pads
    return [above, left, below, right]
