"""A plan as a float32 TFLite flatbuffer: builtin operators only, batch 1.

Every activation keeps its batch axis, up to the pooled vector: LiteRT's GPU accelerator adds
constants to tensors of rank 2 wrongly.
"""

from functools import singledispatchmethod

import numpy as np

from cct_export.formats.flatbuffer import FlatGraph
from cct_export.graph import plan as steps
from cct_export.graph.expand import expand
from cct_export.graph.lower import same_pads
from cct_export.graph.plan import Array, Plan, Shape, Step
from cct_export.specs import ExportSpec


def emit(plan: Plan, spec: ExportSpec) -> bytes:
    """Writes a plan.

    Args:
        plan: folded or not.
        spec: unused but for the format; TFLite files take one image.

    Returns:
        The flatbuffer: ``image`` float32 ``(1, H, W, C)``, 0–255, to ``logits`` float32
        ``(1, classes)``, as the signature ``serving_default``.
    """
    return _Writer(expand(plan)).write()


class _Writer:
    """Writes the steps of a plan as operators."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = FlatGraph()
        image = self.graph.tensor(plan.INPUT, (1, *plan.image_shape))
        self.tensors = {plan.INPUT: image}

    def write(self) -> bytes:
        """Returns the flatbuffer."""
        for step in self.plan.steps:
            self.tensors[step.output] = self.add(step, *(self.tensors[x] for x in step.inputs))
        ends = [(name, self.tensors[name]) for name in (self.plan.INPUT, self.plan.output)]
        return self.graph.serialize(*ends)

    @singledispatchmethod
    def add(self, step: Step, *inputs: int) -> int:
        """Adds the operators of a step; returns the tensor that they make."""
        raise TypeError(f"TFLite has no operator for {step.kind}")

    def _shape(self, name: str) -> Shape:
        return self.plan.shapes[name]

    def _new(self, name: str, shape: Shape | None = None) -> int:
        """Adds an activation; by default with the shape that the plan's tensor ``name`` has."""
        return self.graph.tensor(name, (1, *(self._shape(name) if shape is None else shape)))

    def _constant(self, name: str, array: Array) -> int:
        return self.graph.constant(name, array)

    def _with_constant(self, kind: str, step: Step, x: int, value: Array, part: str) -> int:
        """Adds ``x + value`` or ``x · value``; the value spreads over the leading axes."""
        constant = self._constant(f"{step.output}/{part}", value)
        return self._elementwise(kind, x, constant, self._new(step.output))

    def _elementwise(self, kind: str, x: int, y: int, output: int) -> int:
        return self.graph.operator(kind, [x, y], output, f"{kind.capitalize()}Options")

    @add.register
    def _(self, step: steps.Scale, x: int) -> int:
        if np.any(step.shift):
            scaled = self._new(f"{step.output}/scaled", self._shape(step.output))
            scale = self._constant(f"{step.output}/scale", step.scale)
            x = self._elementwise("MUL", x, scale, scaled)
            return self._with_constant("ADD", step, x, step.shift, "shift")
        return self._with_constant("MUL", step, x, step.scale, "scale")

    @add.register
    def _(self, step: steps.Conv, x: int) -> int:
        schema = self.graph.schema
        if step.pads != steps.NO_PADS:
            x = self._pad(f"{step.output}/padding", x, step.inputs[0], step.pads, 0.0)
        kernel = self._constant(f"{step.output}/kernel", step.kernel.transpose(3, 0, 1, 2))
        bias = np.zeros(step.kernel.shape[3]) if step.bias is None else step.bias
        relu = schema.ActivationFunctionType.RELU if step.relu else 0
        return self.graph.operator(
            "CONV_2D",
            [x, kernel, self._constant(f"{step.output}/bias", bias)],
            self._new(step.output),
            "Conv2DOptions",
            padding=schema.Padding.VALID,
            strideH=step.strides[0],
            strideW=step.strides[1],
            fusedActivationFunction=relu,
        )

    @add.register
    def _(self, step: steps.ZeroPad, x: int) -> int:
        return self._pad(step.output, x, step.inputs[0], step.pads, 0.0)

    def _pad(self, name: str, x: int, source: str, pads: steps.Pads, value: float) -> int:
        """Pads tensor ``x``, which the plan calls ``source``, with a value."""
        rows, columns, channels = self._shape(source)
        padded = self._new(name, (rows + sum(pads[0]), columns + sum(pads[1]), channels))
        amounts = self.graph.constant(f"{name}/amounts", np.array([(0, 0), *pads, (0, 0)]))
        if value == 0:
            return self.graph.operator("PAD", [x, amounts], padded, "PadOptions")
        filler = self._constant(f"{name}/value", np.array([value]))
        return self.graph.operator("PADV2", [x, amounts, filler], padded, "PadV2Options")

    @add.register
    def _(self, step: steps.MaxPool, x: int) -> int:
        padding = self.graph.schema.Padding
        source = step.inputs[0]
        shape = self._shape(source)
        same = tuple(map(same_pads, shape[:2], step.size, step.strides))
        kind = padding.SAME if step.pads == same else padding.VALID
        if kind == padding.VALID and step.pads != steps.NO_PADS:
            maker = self.plan.maker(source)
            positive = isinstance(maker, steps.Conv) and maker.relu
            lowest = 0.0 if positive else float(np.finfo(np.float32).min)
            x = self._pad(f"{step.output}/padding", x, source, step.pads, lowest)
        return self.graph.operator(
            "MAX_POOL_2D",
            [x],
            self._new(step.output),
            "Pool2DOptions",
            padding=kind,
            filterHeight=step.size[0],
            filterWidth=step.size[1],
            strideH=step.strides[0],
            strideW=step.strides[1],
        )

    @add.register
    def _(self, step: steps.Reshape, x: int) -> int:
        shape = np.array([1, *step.to])
        to = self.graph.constant(f"{step.output}/shape", shape)
        new = self._new(step.output)
        return self.graph.operator(
            "RESHAPE", [x, to], new, "ReshapeOptions", newShape=shape.astype(np.int32)
        )

    @add.register
    def _(self, step: steps.Transpose, x: int) -> int:
        order = np.array([0, *(axis + 1 for axis in step.order)])
        axes = self.graph.constant(f"{step.output}/order", order)
        return self.graph.operator(
            "TRANSPOSE", [x, axes], self._new(step.output), "TransposeOptions"
        )

    @add.register
    def _(self, step: steps.Columns, x: int) -> int:
        shape = self._shape(step.output)
        begin = np.array([0] * len(shape) + [step.start])
        parts = {"begin": begin, "size": np.array([1, *shape])}
        constants = [self.graph.constant(f"{step.output}/{k}", v) for k, v in parts.items()]
        return self.graph.operator("SLICE", [x, *constants], self._new(step.output), "SliceOptions")

    @add.register
    def _(self, step: steps.Add, x: int, y: int) -> int:
        return self._elementwise("ADD", x, y, self._new(step.output))

    @add.register
    def _(self, step: steps.AddConstant, x: int) -> int:
        # LiteRT broadcasts any shape; accelerators want the rank of the activation.
        leading = (1,) * (len(self._shape(step.output)) + 1 - step.value.ndim)
        value = step.value.reshape(leading + step.value.shape)
        return self._with_constant("ADD", step, x, value, "value")

    @add.register
    def _(self, step: steps.Normalize, x: int) -> int:
        name, shape = step.output, self._shape(step.output)
        one = (*shape[:-1], 1)
        mean = self._mean(f"{name}/mean", x, one)
        centred = self._elementwise("SUB", x, mean, self._new(f"{name}/centred", shape))
        square = self._elementwise("MUL", centred, centred, self._new(f"{name}/square", shape))
        variance = self._mean(f"{name}/variance", square, one)
        epsilon = self._constant(f"{name}/epsilon", np.array(step.epsilon))
        shifted = self._elementwise("ADD", variance, epsilon, self._new(f"{name}/shifted", one))
        inverse = self.graph.operator("RSQRT", [shifted], self._new(f"{name}/inverse", one))
        y = self._elementwise("MUL", centred, inverse, self._new(f"{name}/bare", shape))
        for kind, part, value in (("MUL", "gamma", step.gamma), ("ADD", "beta", step.beta)):
            if value is not None:
                constant = self._constant(f"{name}/{part}", value)
                y = self._elementwise(kind, y, constant, self._new(f"{name}/{part}_applied", shape))
        return y

    def _mean(self, name: str, x: int, shape: Shape) -> int:
        axis = self.graph.constant("last_axis", np.array([len(shape)]))
        new = self._new(name, shape)
        return self.graph.operator("MEAN", [x, axis], new, "ReducerOptions", keepDims=True)

    @add.register
    def _(self, step: steps.Dense, x: int) -> int:
        kernel = self._constant(f"{step.output}/kernel", step.kernel.T)
        bias = -1 if step.bias is None else self._constant(f"{step.output}/bias", step.bias)
        # Version 5 keeps the leading axes.
        return self.graph.operator(
            "FULLY_CONNECTED",
            [x, kernel, bias],
            self._new(step.output),
            "FullyConnectedOptions",
            version=5,
            keepNumDims=True,
        )

    @add.register
    def _(self, step: steps.Gelu, x: int) -> int:
        return self.graph.operator(
            "GELU", [x], self._new(step.output), "GeluOptions", approximate=step.tanh
        )

    @add.register
    def _(self, step: steps.Softmax, x: int) -> int:
        return self.graph.operator(
            "SOFTMAX", [x], self._new(step.output), "SoftmaxOptions", beta=1.0
        )

    @add.register
    def _(self, step: steps.MatMul, a: int, b: int) -> int:
        return self.graph.operator(
            "BATCH_MATMUL",
            [a, b],
            self._new(step.output),
            "BatchMatMulOptions",
            adjY=step.transpose_b,
        )
