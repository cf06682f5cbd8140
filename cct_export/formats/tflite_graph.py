"""Builds the TFLite graph of a plan: its tensors, their quantization, constants, padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cct_export.formats.flatbuffer import FlatGraph, Quantization
from cct_export.graph import steps
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Shape, Step

# Type and zero point of raw pixels: int8 is the pixel minus 128.
_PIXELS = {"int8": ("INT8", -128), "uint8": ("UINT8", 0)}


class TfliteGraph:
    """The tensors and constants of a plan.

    A tensor is stored as its producer gives it, quantized or float, and converted once for all
    consumers that need the other.

    Args:
        quantized: the plan.
        io: type of the image, ``float32``, ``uint8`` or ``int8``.
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

    def _converted(self, name: str, storage: str) -> int:
        """Returns a tensor as ``quantized`` or ``float``, converted if no consumer did so yet."""
        if (name, storage) in self.tensors:
            return self.tensors[name, storage]
        stored = next(index for (other, _), index in self.tensors.items() if other == name)
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

    def _pad(self, name: str, x: int, source: str, pads: steps.Pads, value: float) -> int:
        """Pads tensor ``x``, which the plan calls ``source``, with a value."""
        rows, columns, channels = self._shape(source)
        shape = (rows + sum(pads[0]), columns + sum(pads[1]), channels)
        return self._padded(name, x, source, shape, [*pads, (0, 0)], value)

    def _pad_rows(self, name: str, x: int, source: str, pads: steps.Pads, value: float) -> int:
        """Pads a map as one of ``(rows, columns · channels)``, of which XNNPACK copies whole rows.

        It copies a map of ``(rows, columns, channels)`` pixel by pixel.
        """
        rows, columns, channels = self._shape(source)
        params = self._input_params(source)
        flat = self._new(source, f"{name}/rows", params, (rows, columns * channels))
        x = self._reshape(f"{name}/rows", x, (rows, columns * channels), flat)
        height, width = rows + sum(pads[0]), columns + sum(pads[1])
        left, right = pads[1]
        amounts = [pads[0], (left * channels, right * channels)]
        label = f"{name}/padded_rows"
        padded = self._padded(label, x, source, (height, width * channels), amounts, value)
        to = (height, width, channels)
        return self._reshape(name, padded, to, self._new(source, name, params, to))

    def _padded(
        self,
        name: str,
        x: int,
        source: str,
        shape: Shape,
        pads: Sequence[tuple[int, int]],
        value: float,
    ) -> int:
        """Pads every axis of tensor ``x``, which is quantized as ``source``, to a shape."""
        params = self._input_params(source)
        padded = self._new(source, name, params, shape)
        amounts = self._indices(f"{name}/amounts", [(0, 0), *pads])
        if value == 0:
            return self.graph.operator("PAD", [x, amounts], padded, "PadOptions")
        if params is None:
            filler = self.graph.constant(f"{name}/value", np.array([value]))
        else:
            filler = self._integers(f"{name}/value", np.array([params.qmin]), params)
        return self.graph.operator("PADV2", [x, amounts, filler], padded, "PadV2Options")

    def _input_params(self, name: str) -> QuantParams | None:
        """Returns the parameters of an input of the current step; None for float."""
        return self.quantized.qparams[name] if self.config.inputs == "static" else None

    def _indices(self, name: str, values: Any) -> int:
        return self.graph.constant(name, np.array(values), "INT32")

    def _reshape(self, name: str, x: int, to: Shape, output: int) -> int:
        shape = (1, *to)
        new = self._indices(f"{name}/shape", shape)
        return self.graph.operator(
            "RESHAPE", [x, new], output, "ReshapeOptions", newShape=np.array(shape, np.int32)
        )


def _is_pixels(quantized: QuantizedPlan, name: str) -> bool:
    """Returns whether the integers of a tensor are int8 pixels."""
    params = quantized.qparams[name]
    return params.bits == 8 and float(params.scale) == 1 and params.zero_point == -128
