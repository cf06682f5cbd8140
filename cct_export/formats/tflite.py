"""Writes a plan as a TFLite flatbuffer: builtin operators only, batch 1.

Every activation keeps its batch axis, up to the pooled vector: LiteRT's GPU accelerator adds
constants to tensors of rank 2 wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatchmethod

import numpy as np

from cct_export.formats import tflite_layout, tflite_micro
from cct_export.formats.flatbuffer import Quantization
from cct_export.formats.tflite_graph import TfliteGraph
from cct_export.graph import steps
from cct_export.graph.expand import expand, is_same_padding
from cct_export.graph.fold import FOR_8_BITS, FOR_FLOAT32
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.graph.steps import Step
from cct_export.specs import ExportSpec

# Operators of one activation, with their options; other activations are composed of these.
_ACTIVATIONS = {
    "relu": ("RELU", ""),
    "relu6": ("RELU6", ""),
    "sigmoid": ("LOGISTIC", ""),
    "tanh": ("TANH", ""),
    "hard-silu": ("HARD_SWISH", "HardSwishOptions"),
}


def skipped_folds(spec: ExportSpec) -> Sequence[str]:
    """Returns the folds that serve other schemes only, or cost size where that counts more."""
    if spec.scheme == "int8-full":
        return FOR_FLOAT32
    if spec.scheme == "none" and spec.optimize == "speed":
        return FOR_8_BITS
    return (*FOR_8_BITS, *FOR_FLOAT32)


def legalize(plan: Plan, spec: ExportSpec) -> Plan:
    """Returns the plan in steps that TFLite has as operators."""
    # LiteRT has no hard-silu of 16-bit integers.
    missing = {"hard-silu"} if spec.scheme == "int16x8" else set()
    activations = steps.ACTIVATIONS if spec.target == "tflm" else _ACTIVATIONS.keys() - missing
    return expand(
        plan,
        layer_norm=False,
        # The 8-bit weights of its SOFTMAX are multiples of 1/256, however many there are.
        softmax=spec.scheme != "int8-full",
        activations=activations,
        uneven_means=False,
    )


def emit(
    plan: Plan | QuantizedPlan, spec: ExportSpec, metadata: Mapping[str, str | bytes] = {}
) -> bytes:
    """Writes a plan.

    Args:
        plan: folded or not, quantized or not.
        spec: ``io`` and ``target`` are used; TFLite files take one image.
        metadata: names and texts to store in the file.

    Returns:
        The flatbuffer: ``image`` of type ``spec.io`` ``(1, H, W, C)``, 0–255, to ``logits``
        ``(1, classes)``, as the signature ``serving_default``. Logits are float32, unless the image
        and all steps are 8-bit integers.
    """
    if isinstance(plan, Plan):
        plan = QuantizedPlan(legalize(plan, spec))
    if spec.target == "tflm":
        return _MicroWriter(_for_micro(plan), spec.io).write(metadata)
    return _Writer(_for_litert(plan), spec.io).write(metadata)


def _for_litert(plan: QuantizedPlan) -> QuantizedPlan:
    """Returns the plan, of the same values, in steps that take LiteRT less time."""
    plan = tflite_layout.without_unused_padding(plan)
    plan = tflite_layout.with_transposed_operands(plan, everywhere=False)
    return tflite_layout.over_pairs_of_pixels(plan)


def _for_micro(plan: QuantizedPlan) -> QuantizedPlan:
    """Returns the plan, of the same values, in steps that take TFLite Micro less memory.

    It keeps a transposed copy of every second operand that is not transposed already, for as long
    as the model lives.
    """
    plan = tflite_layout.without_unused_padding(plan)
    return tflite_layout.with_transposed_operands(plan, everywhere=True)


class _Writer(TfliteGraph):
    """Writes the steps of a plan as operators."""

    def write(self, metadata: Mapping[str, str | bytes]) -> bytes:
        """Returns the flatbuffer."""
        for step in self.plan.steps:
            self.config = self.quantized.config(step)
            consumed = "quantized" if self.config.inputs == "static" else "float"
            inputs = [self._converted(name, consumed) for name in step.inputs]
            produced = "quantized" if self.config.quantized_output else "float"
            self.tensors[step.output, produced] = self._operators(step, *inputs)
        image, logits = (self.plan.INPUT, self.image), (self.plan.output, self._logits())
        return self.graph.serialize(image, logits, metadata)

    def _logits(self) -> int:
        """Returns the output of the graph: float, or integers of the image's type."""
        name = self.plan.output
        if self.io == "float32" or not self.quantized.is_integer_only(8):
            return self._converted(name, "float")
        logits = self.tensors[name, "quantized"]
        if self.io == "int8":
            return logits
        params = self.quantized.qparams[name]
        shifted = Quantization(params.scale, params.zero_point + 128)
        shape = (1, *self._shape(name))
        converted = self.graph.tensor(f"{name}/uint8", shape, "UINT8", quantization=shifted)
        return self.graph.operator("QUANTIZE", [logits], converted, "QuantizeOptions")

    def _operators(self, step: Step, *inputs: int) -> int:
        """Adds the operators of a step; returns the tensor that they produce."""
        return self.add(step, *inputs)

    def _pad_map(self, name: str, x: int, source: str, pads: steps.Pads, value: float) -> int:
        """Pads a map that no convolution reads: XNNPACK makes its padding part of that."""
        params = self._input_params(source)
        # XNNPACK leaves 16 bits to the reference kernels.
        pad = self._pad if params is not None and params.bits == 16 else self._pad_rows
        return pad(name, x, source, pads, value)

    @singledispatchmethod
    def add(self, step: Step, *inputs: int) -> int:
        """Adds the operators of a step; returns the tensor that they produce."""
        raise TypeError(f"TFLite has no operator for {step.kind}")

    @add.register
    def _(self, step: steps.Scale, x: int) -> int:
        return self._elementwise("MUL", step, x, self._constant(f"{step.output}/scale", step.scale))

    @add.register
    def _(self, step: steps.Conv, x: int) -> int:
        schema = self.graph.schema
        if step.pads != steps.NO_PADS:
            x = self._pad(f"{step.output}/padding", x, step.inputs[0], step.pads, 0.0)
        kernel = self._constant(f"{step.output}/kernel", step.kernel.transpose(3, 0, 1, 2), True)
        return self.graph.operator(
            "CONV_2D",
            [x, kernel, self._bias(step)],
            self._output(step),
            "Conv2DOptions",
            padding=schema.Padding.VALID,
            strideH=step.strides[0],
            strideW=step.strides[1],
            fusedActivationFunction=self._fused_activation(step),
        )

    def _fused_activation(self, step: steps.Conv | steps.Dense) -> int:
        """Returns the activation of an operator's result, in the schema's numbers."""
        kinds = self.graph.schema.ActivationFunctionType
        return int((kinds.RELU6 if step.ceiling == 6 else kinds.RELU) if step.relu else kinds.NONE)

    @add.register
    def _(self, step: steps.ZeroPad, x: int) -> int:
        return self._pad_map(step.output, x, step.inputs[0], step.pads, 0.0)

    @add.register
    def _(self, step: steps.MaxPool, x: int) -> int:
        source = step.inputs[0]
        same = is_same_padding(step, self._shape(source))
        if not same and step.pads != steps.NO_PADS:
            non_negative = self.plan.is_non_negative(source)
            lowest = 0.0 if non_negative else float(np.finfo(np.float32).min)
            x = self._pad_map(f"{step.output}/padding", x, source, step.pads, lowest)
        return self._pool("MAX_POOL_2D", step, x, same)

    @add.register
    def _(self, step: steps.AveragePool, x: int) -> int:
        # Only SAME has the same meaning in both: the padding does not count.
        return self._pool("AVERAGE_POOL_2D", step, x, step.pads != steps.NO_PADS)

    def _pool(self, kind: str, step: steps.MaxPool | steps.AveragePool, x: int, same: bool) -> int:
        padding = self.graph.schema.Padding
        return self.graph.operator(
            kind,
            [x],
            self._output(step),
            "Pool2DOptions",
            padding=padding.SAME if same else padding.VALID,
            filterHeight=step.size[0],
            filterWidth=step.size[1],
            strideH=step.strides[0],
            strideW=step.strides[1],
        )

    @add.register
    def _(self, step: steps.GlobalPool, x: int) -> int:
        axes = self._indices(f"{step.output}/axes", range(1, len(self._shape(step.inputs[0]))))
        return self.graph.operator(
            "MEAN", [x, axes], self._output(step), "ReducerOptions", keepDims=False
        )

    @add.register
    def _(self, step: steps.Gather, x: int) -> int:
        order = self._indices(f"{step.output}/order", step.order)
        return self.graph.operator(
            "GATHER", [x, order], self._output(step), "GatherOptions", axis=-1
        )

    @add.register
    def _(self, step: steps.Resize, x: int) -> int:
        size = self._indices(f"{step.output}/size", step.size)
        return self.graph.operator(
            "RESIZE_BILINEAR",
            [x, size],
            self._output(step),
            "ResizeBilinearOptions",
            version=3,  # the first with half-pixel centres
            halfPixelCenters=True,
        )

    @add.register
    def _(self, step: steps.Reshape, x: int) -> int:
        return self._reshape(step.output, x, step.to, self._output(step))

    @add.register
    def _(self, step: steps.Transpose, x: int) -> int:
        order = self._indices(f"{step.output}/order", [0, *(axis + 1 for axis in step.order)])
        return self.graph.operator("TRANSPOSE", [x, order], self._output(step), "TransposeOptions")

    @add.register
    def _(self, step: steps.Slice, x: int) -> int:
        return self._cropped(step, x, [0] * (len(self._shape(step.output)) - 1) + [step.start])

    @add.register
    def _(self, step: steps.Crop, x: int) -> int:
        return self._cropped(step, x, step.starts)

    def _cropped(self, step: Step, x: int, starts: Sequence[int]) -> int:
        begin = self._indices(f"{step.output}/begin", [0, *starts])
        size = self._indices(f"{step.output}/size", [1, *self._shape(step.output)])
        return self.graph.operator("SLICE", [x, begin, size], self._output(step), "SliceOptions")

    @add.register
    def _(self, step: steps.Concat, *inputs: int) -> int:
        axis = len(self._shape(step.output))
        return self.graph.operator(
            "CONCATENATION", [*inputs], self._output(step), "ConcatenationOptions", axis=axis
        )

    @add.register
    def _(self, step: steps.Add, x: int, y: int) -> int:
        return self._elementwise("ADD", step, x, y)

    @add.register
    def _(self, step: steps.Subtract, x: int, y: int) -> int:
        return self._elementwise("SUB", step, x, y)

    @add.register
    def _(self, step: steps.Multiply, x: int, y: int) -> int:
        return self._elementwise("MUL", step, x, y)

    @add.register
    def _(self, step: steps.AddConstant, x: int) -> int:
        # LiteRT broadcasts any shape; accelerators require the rank of the activation.
        leading = (1,) * (len(self._shape(step.output)) + 1 - step.value.ndim)
        value = step.value.reshape(leading + step.value.shape)
        return self._elementwise("ADD", step, x, self._constant(f"{step.output}/value", value))

    @add.register
    def _(self, step: steps.Mean, x: int) -> int:
        return self._reduced(step, x, self._output(step))

    def _reduced(self, step: Step, x: int, output: int, kind: str = "MEAN") -> int:
        axis = self._indices("last_axis", [len(self._shape(step.output))])
        return self.graph.operator(kind, [x, axis], output, "ReducerOptions", keepDims=True)

    @add.register
    def _(self, step: steps.Maximum, x: int) -> int:
        return self._reduced(step, x, self._output(step), "REDUCE_MAX")

    @add.register
    def _(self, step: steps.MeanSquare, x: int) -> int:
        source = step.inputs[0]
        if self.config.inputs != "static":
            square = self._new(source, f"{step.output}/square")
            return self._reduced(
                step, self.graph.operator("MUL", [x, x], square, "MulOptions"), self._output(step)
            )
        return self._exact_mean_square(step, x)

    def _exact_mean_square(self, step: steps.MeanSquare, x: int) -> int:
        """Adds the mean square in integers.

        Squares of 8-bit integers need 16 bits; the product of each row with itself sums them before
        anything is rounded. The mean has the integers of the sum, and 1/n of its scale.
        """
        name, source = step.output, step.inputs[0]
        *leading, width = self._shape(source)
        source_params, params = self.quantized.qparams[source], self.quantized.qparams[name]
        sum_params = replace(params, scale=params.scale * width)
        rows = self._new(source, f"{name}/rows", source_params, (*leading, 1, width))
        self._reshape(f"{name}/rows", x, (*leading, 1, width), rows)
        sums = self._new(source, f"{name}/sums", sum_params, (*leading, 1, 1))
        self.graph.operator("BATCH_MATMUL", [rows, rows], sums, "BatchMatMulOptions", adjY=True)
        column = self._new(name, f"{name}/column", sum_params)
        self._reshape(f"{name}/column", sums, (*leading, 1), column)
        return self._rescaled(step, column, 1 / width)

    def _rescaled(self, step: Step, x: int, factor: float) -> int:
        """Adds a product whose output has the integers of ``x``, and ``factor`` times its scale."""
        params = self.quantized.qparams[step.output]
        unit = replace(params, scale=np.full(1, factor), zero_point=0)
        one = self._integers(f"{step.output}/factor", np.ones(1), unit)
        return self.graph.operator("MUL", [x, one], self._output(step), "MulOptions")

    @add.register
    def _(self, step: steps.Rsqrt, x: int) -> int:
        name, source = step.output, step.inputs[0]
        if self.config.inputs != "static":
            epsilon = self.graph.constant(f"{name}/epsilon", np.array(step.epsilon))
            shifted = self._new(source, f"{name}/shifted")
            x = self.graph.operator("ADD", [x, epsilon], shifted, "AddOptions")
        elif value := self.quantized.integer_epsilon(step):
            params = self.quantized.qparams[source]
            qmax = 2 ** (params.bits - 1) - 1
            epsilon_params = replace(params, scale=np.array([value / qmax]), zero_point=0)
            epsilon = self._integers(f"{name}/epsilon", np.array([qmax]), epsilon_params)
            shifted = self._new(source, f"{name}/shifted", params)
            x = self.graph.operator("ADD", [x, epsilon], shifted, "AddOptions", potScaleInt16=False)
        return self.graph.operator("RSQRT", [x], self._output(step))

    @add.register
    def _(self, step: steps.Dense, x: int) -> int:
        kernel = self._constant(f"{step.output}/kernel", step.kernel.T, True)
        return self.graph.operator(
            "FULLY_CONNECTED",
            [x, kernel, -1 if step.bias is None else self._bias(step)],
            self._output(step),
            "FullyConnectedOptions",
            version=5,  # the first that keeps the leading axes
            keepNumDims=True,
            fusedActivationFunction=self._fused_activation(step),
            asymmetricQuantizeInputs=self.config.inputs == "dynamic",
        )

    @add.register
    def _(self, step: steps.Gelu, x: int) -> int:
        return self.graph.operator(
            "GELU", [x], self._output(step), "GeluOptions", approximate=step.tanh
        )

    @add.register
    def _(self, step: steps.Activation, x: int) -> int:
        kind, options = _ACTIVATIONS[step.function]
        return self.graph.operator(kind, [x], self._output(step), options)

    @add.register
    def _(self, step: steps.Exp, x: int) -> int:
        return self.graph.operator("EXP", [x], self._output(step), "ExpOptions")

    @add.register
    def _(self, step: steps.Softmax, x: int) -> int:
        return self.graph.operator("SOFTMAX", [x], self._output(step), "SoftmaxOptions", beta=1.0)

    @add.register
    def _(self, step: steps.MatMul, a: int, b: int) -> int:
        return self.graph.operator(
            "BATCH_MATMUL",
            [a, b],
            self._output(step),
            "BatchMatMulOptions",
            adjY=step.transpose_b,
        )

    @add.register
    def _(self, step: steps.ConstantMatMul, x: int) -> int:
        # XNNPACK takes factors of equal rank.
        leading = (1,) * (len(self._shape(step.output)) - 1)
        stored = step.matrix.reshape(leading + step.matrix.shape)
        matrix = self._constant(f"{step.output}/matrix", stored)
        output = self._output(step)
        return self.graph.operator("BATCH_MATMUL", [matrix, x], output, "BatchMatMulOptions")


class _MicroWriter(_Writer):
    """Writes the steps of a plan in operators of TFLite Micro."""

    def _pad_map(self, name: str, x: int, source: str, pads: steps.Pads, value: float) -> int:
        return self._pad(name, x, source, pads, value)

    def _operators(self, step: Step, *inputs: int) -> int:
        if tflite_micro.is_table(step):
            return tflite_micro.add_table(self, step, *inputs)
        return super()._operators(step, *inputs)
