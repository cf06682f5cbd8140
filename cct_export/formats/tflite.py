"""Writes a plan as a TFLite flatbuffer: builtin operators only, batch 1.

Every activation keeps its batch axis, up to the pooled vector: LiteRT's GPU accelerator adds
constants to tensors of rank 2 wrongly.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

import numpy as np

from cct_export.formats.flatbuffer import FlatGraph, Quantization
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Shape, Step, same_pads
from cct_export.specs import ExportSpec

# Every fold makes files of this format faster.
SKIPPED_FOLDS: tuple[str, ...] = ()
# Type and zero point of raw pixels: int8 is the pixel minus 128.
_PIXELS = {"int8": ("INT8", -128), "uint8": ("UINT8", 0)}


def legalize(plan: Plan, spec: ExportSpec) -> Plan:
    """Returns the plan in steps that TFLite has as operators."""
    return expand(plan, layer_norm=False)


def emit(
    plan: Plan | QuantizedPlan, spec: ExportSpec, metadata: Mapping[str, str | bytes] = {}
) -> bytes:
    """Writes a plan.

    Args:
        plan: folded or not, quantized or not.
        spec: ``io`` is used; TFLite files take one image.
        metadata: names and texts to store in the file.

    Returns:
        The flatbuffer: ``image`` of type ``spec.io`` ``(1, H, W, C)``, 0–255, to ``logits``
        ``(1, classes)``, as the signature ``serving_default``. Logits are float32, unless the image
        and all steps are 8-bit integers.
    """
    if isinstance(plan, Plan):
        plan = QuantizedPlan(legalize(plan, spec))
    return _Writer(plan, spec.io).write(metadata)


class _Writer:
    """Writes the steps of a plan as operators.

    A tensor is stored as its producer gives it, quantized or float, and converted once for all
    consumers that need the other.
    """

    def __init__(self, quantized: QuantizedPlan, io: str) -> None:
        self.quantized = quantized
        self.plan = quantized.plan
        self.io = io
        self.graph = FlatGraph()
        # By name and storage: "float", "quantized", or "pixels" of the image's own type.
        self.tensors: dict[tuple[str, str], int] = {}
        self.config = OpQuantConfig()
        shape = (1, *self.plan.image_shape)
        if io == "float32":
            self.image = self.graph.tensor(self.plan.INPUT, shape)
            self.tensors[self.plan.INPUT, "float"] = self.image
        else:
            type, zero_point = _PIXELS[io]
            pixels = Quantization(np.ones(1), zero_point)
            self.image = self.graph.tensor(self.plan.INPUT, shape, type, quantization=pixels)
            self.tensors[self.plan.INPUT, "pixels"] = self.image

    def write(self, metadata: Mapping[str, str | bytes]) -> bytes:
        """Returns the flatbuffer."""
        for step in self.plan.steps:
            self.config = self.quantized.config(step)
            consumed = "quantized" if self.config.inputs == "static" else "float"
            inputs = [self._converted(name, consumed) for name in step.inputs]
            produced = "quantized" if self.config.quantized_output else "float"
            self.tensors[step.output, produced] = self.add(step, *inputs)
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

    def _converted(self, name: str, storage: str) -> int:
        """Returns a tensor as ``quantized`` or ``float``, converted if no consumer did so yet."""
        if (name, storage) in self.tensors:
            return self.tensors[name, storage]
        (stored,) = (index for (other, _), index in self.tensors.items() if other == name)
        if storage == "float":
            converted = self.graph.tensor(f"{name}/float", (1, *self._shape(name)))
            self.graph.operator("DEQUANTIZE", [stored], converted, "DequantizeOptions", version=2)
        elif name == self.plan.INPUT and self.io == "int8" and _is_pixels(self.quantized, name):
            converted = stored
        else:
            converted = self._new(name, f"{name}/integers", self.quantized.qparams[name])
            self.graph.operator("QUANTIZE", [stored], converted, "QuantizeOptions")
        self.tensors[name, storage] = converted
        return converted

    @singledispatchmethod
    def add(self, step: Step, *inputs: int) -> int:
        """Adds the operators of a step; returns the tensor that they produce."""
        raise TypeError(f"TFLite has no operator for {step.kind}")

    def _shape(self, name: str) -> Shape:
        return self.plan.shapes[name]

    def _new(
        self,
        name: str,
        label: str = "",
        params: QuantParams | None = None,
        shape: Shape | None = None,
    ) -> int:
        """Adds an activation.

        Args:
            name: of a tensor of the plan, whose shape it has by default.
            label: its own name, if another.
            params: its quantization parameters; None for float.
            shape: without the batch axis.
        """
        batched = (1, *(self._shape(name) if shape is None else shape))
        if params is None:
            return self.graph.tensor(label or name, batched)
        type, quantization = f"INT{params.bits}", Quantization(params.scale, params.zero_point)
        return self.graph.tensor(label or name, batched, type, quantization=quantization)

    def _output(self, step: Step) -> int:
        """Adds the output of the current step."""
        quantized = self.config.quantized_output
        return self._new(
            step.output, params=self.quantized.qparams[step.output] if quantized else None
        )

    def _integers(self, name: str, integers: np.ndarray, params: QuantParams) -> int:
        """Adds a constant of integers."""
        quantization = Quantization(params.scale, params.zero_point)
        return self.graph.constant(name, integers, f"INT{params.bits}", quantization)

    def _constant(self, name: str, array: Array, channels_first: bool = False) -> int:
        """Adds a constant of the current step, stored as its config says.

        Args:
            name: for people.
            array: its values.
            channels_first: whether the scales of a quantized constant belong to the first axis.
        """
        params = self.config.weights
        if params is not None:
            channels_last = np.moveaxis(array, 0, -1) if channels_first else array
            integers = params.quantize(channels_last)
            stored = np.moveaxis(integers, -1, 0) if channels_first else integers
            return self._integers(name, stored, params)
        if self.config.float16_weights:
            half = self.graph.constant(f"{name}/half", array, "FLOAT16")
            floats = self.graph.tensor(name, array.shape)
            return self.graph.operator("DEQUANTIZE", [half], floats, "DequantizeOptions", version=3)
        return self.graph.constant(name, array)

    def _bias(self, step: steps.Conv | steps.Dense) -> int:
        """Adds the bias: float, or integers in units of the products that it is added to."""
        name = f"{step.output}/bias"
        bias = np.zeros(step.kernel.shape[-1]) if step.bias is None else step.bias
        weights = self.config.weights
        if self.config.inputs != "static" or weights is None:
            return self.graph.constant(name, bias)
        source = self.quantized.qparams[step.inputs[0]]
        scale = source.scale * weights.scale
        type = "INT32" if source.bits == 8 else "INT64"
        return self.graph.constant(name, np.rint(bias / scale), type, Quantization(scale))

    def _elementwise(self, kind: str, step: Step, x: int, y: int) -> int:
        fields = {} if kind == "MUL" else {"potScaleInt16": False}
        options = f"{kind.capitalize()}Options"
        return self.graph.operator(kind, [x, y], self._output(step), options, **fields)

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
            fusedActivationFunction=schema.ActivationFunctionType.RELU if step.relu else 0,
        )

    @add.register
    def _(self, step: steps.ZeroPad, x: int) -> int:
        return self._pad(step.output, x, step.inputs[0], step.pads, 0.0)

    def _pad(self, name: str, x: int, source: str, pads: steps.Pads, value: float) -> int:
        """Pads tensor ``x``, which the plan calls ``source``, with a value."""
        rows, columns, channels = self._shape(source)
        shape = (rows + sum(pads[0]), columns + sum(pads[1]), channels)
        static = self.config.inputs == "static"
        params = self.quantized.qparams[source] if static else None
        padded = self._new(source, name, params, shape)
        amounts = self._indices(f"{name}/amounts", [(0, 0), *pads, (0, 0)])
        if value == 0:
            return self.graph.operator("PAD", [x, amounts], padded, "PadOptions")
        if params is None:
            filler = self.graph.constant(f"{name}/value", np.array([value]))
        else:
            filler = self._integers(f"{name}/value", np.array([params.qmin]), params)
        return self.graph.operator("PADV2", [x, amounts, filler], padded, "PadV2Options")

    def _indices(self, name: str, values: Any) -> int:
        return self.graph.constant(name, np.array(values), "INT32")

    @add.register
    def _(self, step: steps.MaxPool, x: int) -> int:
        padding = self.graph.schema.Padding
        source = step.inputs[0]
        shape = self._shape(source)
        same = tuple(map(same_pads, shape[:2], step.size, step.strides))
        kind = padding.SAME if step.pads == same else padding.VALID
        if kind == padding.VALID and step.pads != steps.NO_PADS:
            producer = self.plan.producer(source)
            non_negative = isinstance(producer, steps.Conv) and producer.relu
            lowest = 0.0 if non_negative else float(np.finfo(np.float32).min)
            x = self._pad(f"{step.output}/padding", x, source, step.pads, lowest)
        return self.graph.operator(
            "MAX_POOL_2D",
            [x],
            self._output(step),
            "Pool2DOptions",
            padding=kind,
            filterHeight=step.size[0],
            filterWidth=step.size[1],
            strideH=step.strides[0],
            strideW=step.strides[1],
        )

    @add.register
    def _(self, step: steps.Reshape, x: int) -> int:
        return self._reshape(step.output, x, step.to, self._output(step))

    def _reshape(self, name: str, x: int, to: Shape, output: int) -> int:
        shape = (1, *to)
        new = self._indices(f"{name}/shape", shape)
        return self.graph.operator(
            "RESHAPE", [x, new], output, "ReshapeOptions", newShape=np.array(shape, np.int32)
        )

    @add.register
    def _(self, step: steps.Transpose, x: int) -> int:
        order = self._indices(f"{step.output}/order", [0, *(axis + 1 for axis in step.order)])
        return self.graph.operator("TRANSPOSE", [x, order], self._output(step), "TransposeOptions")

    @add.register
    def _(self, step: steps.Slice, x: int) -> int:
        shape = self._shape(step.output)
        begin = self._indices(f"{step.output}/begin", [0] * len(shape) + [step.start])
        size = self._indices(f"{step.output}/size", [1, *shape])
        return self.graph.operator("SLICE", [x, begin, size], self._output(step), "SliceOptions")

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
        return self._mean(step, x, self._output(step))

    def _mean(self, step: Step, x: int, output: int) -> int:
        axis = self._indices("last_axis", [len(self._shape(step.output))])
        return self.graph.operator("MEAN", [x, axis], output, "ReducerOptions", keepDims=True)

    @add.register
    def _(self, step: steps.MeanSquare, x: int) -> int:
        source = step.inputs[0]
        if self.config.inputs != "static":
            square = self._new(source, f"{step.output}/square")
            return self._mean(
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
        inverse = replace(params, scale=np.ones(1) / width, zero_point=0)
        factor = self._integers(f"{name}/inverse_width", np.ones(1), inverse)
        return self.graph.operator("MUL", [column, factor], self._output(step), "MulOptions")

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
            asymmetricQuantizeInputs=self.config.inputs == "dynamic",
        )

    @add.register
    def _(self, step: steps.Gelu, x: int) -> int:
        return self.graph.operator(
            "GELU", [x], self._output(step), "GeluOptions", approximate=step.tanh
        )

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


def _is_pixels(quantized: QuantizedPlan, name: str) -> bool:
    """Returns whether the integers of a tensor are int8 pixels."""
    params = quantized.qparams[name]
    return params.bits == 8 and float(params.scale) == 1 and params.zero_point == -128
