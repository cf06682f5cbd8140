"""Writes a plan as an ONNX graph, of standard operators where they are as fast."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatchmethod

import numpy as np

from cct_export.errors import MissingDependency
from cct_export.formats.onnx_conv import ConvGraph, pads_of
from cct_export.formats.onnx_graph import MICROSOFT, GraphEnd
from cct_export.formats.onnx_layout import (
    PackedAttention,
    with_packed_attention,
    with_relu_after_pools,
)
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import FOR_8_BITS, FOR_FLOAT32
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.graph.steps import Step
from cct_export.records.layout import in_layout
from cct_export.specs import NPU_ACTIVATIONS, ExportSpec, opset_of

# Operators of one activation, beside those that clip values.
_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "hard-sigmoid": "HardSigmoid"}
# The first opsets that have these operators and types; older ones get them composed of others.
_LAYER_NORMALIZATION = 17
_GELU = 20
# The first opset whose ReduceMean takes its axes as an input.
_AXES_AS_INPUT = 18


def skipped_folds(spec: ExportSpec) -> Sequence[str]:
    """Returns the folds that do not make files better: LayerNormalization is one operator.

    Files for NPUs are centred all the same: their plan then is one whose calibration is recorded.
    """
    skipped = (*FOR_8_BITS, *FOR_FLOAT32)
    return skipped if spec.scheme in NPU_ACTIVATIONS else (*skipped, "centred-residual")


def legalize(plan: Plan, spec: ExportSpec) -> Plan:
    """Returns the plan in steps that ONNX has as operators, in the opset of ``spec``.

    Raises:
        InvalidRequest: unknown opset.
    """
    layer_norm = opset_of(spec) >= _LAYER_NORMALIZATION
    plan = expand(plan, layer_norm=layer_norm, activations=("relu", "relu6", *_ACTIVATIONS))
    # LayerNormalization subtracts the mean of any input, also of one that was centred and rounded.
    norms = [step for step in plan.steps if isinstance(step, steps.LayerNorm)]
    return plan.replace({norm.output: [replace(norm, centred=False)] for norm in norms})


def emit(
    plan: Plan | QuantizedPlan, spec: ExportSpec, metadata: Mapping[str, str | bytes] = {}
) -> bytes:
    """Writes a plan and checks the graph.

    Args:
        plan: folded or not, quantized or not.
        spec: ``io``, ``opset`` (20 if None), ``dynamic_batch``, ``layout``, ``target`` and
            ``pure_onnx`` are used.
        metadata: names and texts to store in the file.

    Returns:
        The serialized graph: ``image`` of type ``spec.io`` in ``spec.layout``, 0–255, to
        ``logits`` float32 ``(batch, classes)``.

    Raises:
        ConversionError: onnx.checker refused the graph.
        InvalidRequest: unknown opset.
        MissingDependency: onnx is not installed.
    """
    opset = opset_of(spec)
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingDependency.of("onnx", "onnx") from None
    if isinstance(plan, Plan):
        plan = QuantizedPlan(legalize(plan, spec))
    plan = with_relu_after_pools(plan)
    # It takes unsigned integers only.
    if not spec.pure_onnx and spec.target != "arm64":
        plan = with_packed_attention(plan)
    return _Writer(plan, spec, opset).write(metadata)


class _Writer(ConvGraph):
    """Writes the steps of a plan as nodes."""

    def write(self, metadata: Mapping[str, str | bytes]) -> bytes:
        """Returns the serialized graph."""
        for step in self.plan.steps:
            self.config = self.quantized.config(step)
            self.add(step, *step.inputs)
        plan = self.plan
        self.end(plan.output)
        image_shape = in_layout(plan.shapes[plan.INPUT], self.layout)
        image = GraphEnd(plan.INPUT, self.io, [self.batch, *image_shape])
        logits = GraphEnd(plan.output, "float32", [self.batch, *plan.shapes[plan.output]])
        return self.serialize(image, logits, metadata)

    @singledispatchmethod
    def add(self, step: Step, *inputs: str) -> None:
        """Adds the nodes of a step."""
        raise TypeError(f"ONNX has no operator for {step.kind}")

    @add.register
    def _(self, step: steps.Scale, x: str) -> None:
        inputs = self.elementwise(step)
        scale = self.operand(f"{step.output}/scale", self.beside(step, step.scale))
        self.node("Mul", [*inputs, scale], step.output)

    @add.register
    def _(self, step: steps.Conv, x: str) -> None:
        self.convolution(step, x)

    @add.register
    def _(self, step: steps.ZeroPad, x: str) -> None:
        (top, bottom), (left, right) = step.pads
        amounts = np.array([0, 0, top, left, 0, 0, bottom, right])
        pads = self.constant(f"{step.output}/amounts", amounts)
        self.feature_map("Pad", step, [self.first(x), pads])

    @add.register
    def _(self, step: steps.MaxPool, x: str) -> None:
        self._pool("MaxPool", step, x)

    @add.register
    def _(self, step: steps.AveragePool, x: str) -> None:
        self._pool("AveragePool", step, x)  # the padding does not count, by default

    def _pool(self, kind: str, step: steps.MaxPool | steps.AveragePool, x: str) -> None:
        self.feature_map(
            kind,
            step,
            [self.first(x)],
            kernel_shape=step.size,
            strides=step.strides,
            pads=pads_of(step.pads),
        )

    @add.register
    def _(self, step: steps.GlobalPool, x: str) -> None:
        rank = len(self.plan.shapes[x])
        if x not in self.channels_first:
            self._mean(self.last(x), step.output, range(1, rank), keep=False)
            return
        pooled = self.node("GlobalAveragePool", [self.first(x)], f"{step.output}/map")
        self.node("Flatten", [self.between(step.output, pooled)], step.output)

    @add.register
    def _(self, step: steps.Gather, x: str) -> None:
        order = self.constant(f"{step.output}/order", np.array(step.order))
        axis = 1 if x in self.channels_first else -1
        self.node("Gather", [*self.elementwise(step), order], step.output, axis=axis)

    @add.register
    def _(self, step: steps.Resize, x: str) -> None:
        sizes = zip(self.plan.shapes[x][:2], step.size, strict=True)
        factors = np.array([1, 1, *(_factor(before, after) for before, after in sizes)])
        scales = self.constant(f"{step.output}/scales", factors)
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        self.feature_map("Resize", step, [self.first(x), "", scales], **mode)

    @add.register
    def _(self, step: steps.Reshape, x: str) -> None:
        # 0 keeps the size of the batch axis.
        to = self.constant(f"{step.output}/shape", np.array([0, *step.to]))
        self.node("Reshape", [self.last(x), to], step.output)

    @add.register
    def _(self, step: steps.Transpose, x: str) -> None:
        order = [0, *(axis + 1 for axis in step.order)]
        self.node("Transpose", [self.last(x)], step.output, perm=order)

    @add.register
    def _(self, step: steps.Slice, x: str) -> None:
        bounds = {"start": step.start, "stop": step.stop, "axis": -1}
        constants = [
            self.constant(f"{step.output}/{key}", np.array([value]))
            for key, value in bounds.items()
        ]
        self.node("Slice", [self.last(x), *constants], step.output)

    @add.register
    def _(self, step: steps.Crop, x: str) -> None:
        axes = tuple(range(1, len(step.starts) + 1))
        bounds = {"start": step.starts, "stop": step.stops, "axis": axes}
        constants = [
            self.constant(f"{step.output}/{key}", np.array(value)) for key, value in bounds.items()
        ]
        self.node("Slice", [self.last(x), *constants], step.output)

    @add.register
    def _(self, step: steps.Concat, *inputs: str) -> None:
        self.node("Concat", list(map(self.last, inputs)), step.output, axis=-1)

    @add.register
    def _(self, step: steps.Add, x: str, y: str) -> None:
        self.node("Add", self.elementwise(step), step.output)

    @add.register
    def _(self, step: steps.AddConstant, x: str) -> None:
        inputs = self.elementwise(step)
        value = self.operand(f"{step.output}/value", self.beside(step, step.value))
        self.node("Add", [*inputs, value], step.output)

    @add.register
    def _(self, step: steps.Subtract, x: str, y: str) -> None:
        self.node("Sub", self.elementwise(step), step.output)

    @add.register
    def _(self, step: steps.Multiply, x: str, y: str) -> None:
        self.node("Mul", self.elementwise(step), step.output)

    @add.register
    def _(self, step: steps.Mean, x: str) -> None:
        self._mean(self.last(x), step.output, [-1])

    @add.register
    def _(self, step: steps.MeanSquare, x: str) -> None:
        source = self.last(x)
        self._mean(self.node("Mul", [source, source], f"{step.output}/square"), step.output, [-1])

    def _mean(self, x: str, output: str, axes: Sequence[int], keep: bool = True) -> None:
        if self.opset < _AXES_AS_INPUT:
            self.node("ReduceMean", [x], output, axes=list(axes), keepdims=int(keep))
        else:
            name = "last_axis" if keep else f"{output}/axes"
            stored = self.constant(name, np.array(axes))
            self.node("ReduceMean", [x, stored], output, keepdims=int(keep))

    @add.register
    def _(self, step: steps.Rsqrt, x: str) -> None:
        name = step.output
        epsilon = self.constant(f"{name}/epsilon", np.array(step.epsilon))
        shifted = self.node("Add", [self.last(x), epsilon], f"{name}/shifted")
        root = self.node("Sqrt", [shifted], f"{name}/root")
        self.node("Reciprocal", [root], name)

    @add.register
    def _(self, step: steps.LayerNorm, x: str) -> None:
        width = self.plan.shapes[step.output][-1]
        if step.gamma is None:
            gamma = self.constant(f"ones_{width}", np.ones(width))
        else:
            gamma = self.operand(f"{step.output}/gamma", step.gamma)
        inputs = [self.last(x), gamma]
        if step.beta is not None:
            inputs.append(self.bias(step, step.beta))
        self._normalization(step, inputs)

    def _normalization(self, step: steps.LayerNorm, inputs: list[str]) -> None:
        (x,) = step.inputs
        epsilon = step.epsilon
        fused = isinstance(self.plan.producer(x), steps.Add) and self.plan.only_consumer(x)
        if not fused or self.integers_only:
            self.node("LayerNormalization", inputs, step.output, epsilon=epsilon)
            return
        # ONNX Runtime fuses a sum that only the normalization consumes with it, into a kernel that
        # takes five times as long as both (33.6 against 6.7 µs for 64 tokens of width 128). It does
        # not look through a Reshape, which costs nothing. It would leave a Sum alone, too, but its
        # WebGPU provider has none.
        shape = self.plan.shapes[x]
        expanded = self.constant(f"{step.output}/apart", np.array([0, 1, *shape]))
        inputs[0] = self.node("Reshape", [x, expanded], f"{x}/apart")
        y = self.node("LayerNormalization", inputs, f"{step.output}/normal", epsilon=epsilon)
        back = self.constant(f"{step.output}/shape", np.array([0, *shape]))
        self.node("Reshape", [y, back], step.output)

    @add.register
    def _(self, step: steps.Dense, x: str) -> None:
        self.dense(step, self.last(x))

    @add.register
    def _(self, step: PackedAttention, x: str) -> None:
        self.attention(step, self.last(x))

    @add.register
    def _(self, step: steps.Gelu, x: str) -> None:
        name, (x,) = step.output, self.elementwise(step)
        if self.opset >= _GELU:
            self.node("Gelu", [x], name, approximate="tanh" if step.tanh else "none")
            return

        def scalar(part: str, value: float) -> str:
            return self.constant(f"{name}/{part}", np.array(value))

        if step.tanh:
            square = self.node("Mul", [x, x], f"{name}/square")
            cube = self.node("Mul", [square, x], f"{name}/cube")
            small = self.node("Mul", [cube, scalar("factor", 0.044715)], f"{name}/small")
            inner = self.node("Add", [x, small], f"{name}/inner")
            scale = scalar("scale", math.sqrt(2 / math.pi))
            scaled = self.node("Mul", [inner, scale], f"{name}/scaled")
            curve = self.node("Tanh", [scaled], f"{name}/curve")
        else:
            scaled = self.node("Div", [x, scalar("scale", math.sqrt(2))], f"{name}/scaled")
            curve = self.node("Erf", [scaled], f"{name}/curve")
        raised = self.node("Add", [curve, scalar("one", 1.0)], f"{name}/raised")
        twice = self.node("Mul", [x, raised], f"{name}/twice")
        self.node("Mul", [twice, scalar("half", 0.5)], name)

    @add.register
    def _(self, step: steps.Activation, x: str) -> None:
        inputs = self.elementwise(step)
        if step.function in ("relu", "relu6"):
            self.clipped(inputs, step.output, 6.0 if step.function == "relu6" else math.inf)
            return
        kind = _ACTIVATIONS[step.function]
        attributes = {"alpha": 1 / 6, "beta": 0.5} if kind == "HardSigmoid" else {}
        self.node(kind, inputs, step.output, **attributes)

    @add.register
    def _(self, step: steps.Softmax, x: str) -> None:
        self.node("Softmax", [self.last(x)], step.output, axis=-1)

    @add.register
    def _(self, step: steps.MatMul, a: str, b: str) -> None:
        columns = self.last(b)
        if step.transpose_b:
            leading = range(len(self.plan.shapes[b]) - 1)
            order = [*leading, len(leading) + 1, len(leading)]
            columns = self.node("Transpose", [columns], f"{step.output}/transposed", perm=order)
            columns = self.between(b, columns)
        self.node("MatMul", [self.last(a), columns], step.output)

    @add.register
    def _(self, step: steps.ConstantMatMul, x: str) -> None:
        matrix = self.operand(f"{step.output}/matrix", step.matrix)
        self.node("MatMul", [matrix, self.last(x)], step.output)


def engine_operators(content: bytes) -> tuple[str, ...]:
    """Returns the operators of a file that are of ONNX Runtime's own, with their domain."""
    import onnx

    nodes = onnx.load_from_string(content).graph.node
    return tuple(sorted({f"{n.domain}.{n.op_type}" for n in nodes if n.domain == MICROSOFT}))


def _factor(before: int, after: int) -> np.float32:
    """Returns the smallest float32 scale of an axis that gives the size ``after``, rounded down."""
    factor = np.float32(after / before)
    while int(before * float(factor)) < after:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor
