"""Writes a plan as the two files of an ncnn model: its layers as text, and their weights."""

import math
from collections.abc import Mapping, Sequence
from functools import singledispatchmethod

import numpy as np

from cct_export.errors import ConversionError
from cct_export.formats.ncnn_graph import Graph, Parameter, Weights
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import FOR_8_BITS, FOR_FLOAT32
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.graph.steps import Array, Step
from cct_export.specs import ExportSpec

# Layers of one activation, with their parameters.
_ACTIVATIONS: dict[str, tuple[str, dict[int, Parameter]]] = {
    "relu": ("ReLU", {}),
    "relu6": ("Clip", {0: 0.0, 1: 6.0}),
    "silu": ("Swish", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("TanH", {}),
    "hard-silu": ("HardSwish", {0: 1 / 6, 1: 0.5}),
    "hard-sigmoid": ("HardSigmoid", {0: 1 / 6, 1: 0.5}),
}
_ADD, _SUBTRACT, _MULTIPLY = 0, 1, 2  # of BinaryOp
_SQUARE, _SQRT, _EXP, _RECIPROCAL = 4, 5, 7, 15  # of UnaryOp
_MEAN, _MAX = 3, 4  # of Reduction
_MAX_RANK = 3
_NO_MORE_PADS = 1  # of Pooling: those that are given, where ncnn else completes windows
_BILINEAR = 2  # of Interp
_DYNAMIC = 2  # of Gemm: both factors become int8, by their largest absolute values
_FIXED = 1  # without which ncnn takes axes of layers for those of an old version


def skipped_folds(spec: ExportSpec) -> Sequence[str]:
    """Returns the folds that do not make files better.

    LayerNorm is one layer, and three products are faster than one of which parts are copied. In
    integers they are not, and the plan is one whose calibration is recorded.
    """
    skipped = (*FOR_8_BITS, *FOR_FLOAT32, "centred-residual")
    return skipped if spec.scheme == "int8" else (*skipped, "fuse-qkv")


def legalize(plan: Plan, spec: ExportSpec) -> Plan:
    """Returns the plan in steps that ncnn has layers for.

    Raises:
        ConversionError: there is none for some of them.
    """
    plan = expand(plan)
    refused = [step.output for step in plan.steps if not _has_layer(plan, step)]
    if refused:
        raise ConversionError(
            f"ncnn has no layer for {', '.join(refused)}: export the model as tflite or onnx"
        )
    replacements = {
        step.output: [_as_product(step, plan.shapes[step.inputs[0]][-1])]
        for step in plan.steps
        if isinstance(step, steps.Gather)
    }
    return plan.replace(replacements)


def _has_layer(plan: Plan, step: Step) -> bool:
    """Returns whether ncnn has a layer for a step: of three axes at most, beside the batch."""
    shapes = [plan.shapes[name] for name in (*step.inputs, step.output)]
    if isinstance(step, steps.Resize) and 1 in shapes[0][:2]:
        return False  # ncnn interpolates between two rows and two columns
    return max(map(len, shapes)) <= _MAX_RANK


def _as_product(step: steps.Gather, channels: int) -> Step:
    """Returns a dense layer of ones and zeros, which reorders channels."""
    return steps.Dense(step.output, step.inputs, np.eye(channels)[:, list(step.order)])


def emit(
    plan: Plan | QuantizedPlan, spec: ExportSpec, metadata: Mapping[str, str | bytes] = {}
) -> bytes:
    """Writes the layers of a plan.

    Args:
        plan: folded or not, quantized or not.
        spec: what file to make.
        metadata: names and texts to store in the file. ncnn reads as many layers as the file says
            that it has, so what follows them is for others.

    Returns:
        The text: ``image`` float32 ``(channels, height, width)``, 0–255, to the logits.

    Raises:
        ConversionError: ncnn has no layer for some steps.
    """
    lines = [f"# {name} {text!s}\n" for name, text in metadata.items()]
    return "".join([_written(plan, spec).text(), *lines]).encode()


def weights(plan: Plan | QuantizedPlan, spec: ExportSpec) -> bytes:
    """Returns the weights of the layers that ``emit`` writes, which ncnn has in another file."""
    return _written(plan, spec).weights()


def _written(plan: Plan | QuantizedPlan, spec: ExportSpec) -> "_Writer":
    quantized = QuantizedPlan(legalize(plan, spec)) if isinstance(plan, Plan) else plan
    return _Writer(quantized)


class _Writer(Graph):
    """Adds the layers of a plan."""

    def __init__(self, quantized: QuantizedPlan) -> None:
        super().__init__(quantized.plan)
        self._quantized = quantized
        height, width, channels = self.plan.image_shape
        self.layer("Input", [], self.plan.INPUT, {0: width, 1: height, 2: channels})
        for step in self.plan.steps:
            self.add(step, *step.inputs)

    @singledispatchmethod
    def add(self, step: Step, *inputs: str) -> None:
        """Adds the layers of a step."""
        raise TypeError(f"ncnn has no layer for {step.kind}")

    @add.register
    def _(self, step: steps.Scale, x: str) -> None:
        self._with_constant(step, _MULTIPLY, step.scale, "scale")

    @add.register
    def _(self, step: steps.AddConstant, x: str) -> None:
        self._with_constant(step, _ADD, step.value, "value")

    def _with_constant(self, step: Step, operation: int, value: Array, name: str) -> None:
        inputs = self.elementwise(step)
        if value.size == 1:
            scalar = {0: operation, 1: 1, 2: float(value.item())}
            self.layer("BinaryOp", inputs, step.output, scalar)
            return
        half = self._quantized.config(step).float16_weights
        constant = self.constant(f"{step.output}/{name}", self.beside(step, value), half=half)
        self.layer("BinaryOp", [*inputs, constant], step.output, {0: operation})

    @add.register
    def _(self, step: steps.Conv, x: str) -> None:
        rows, columns, _, outputs = step.kernel.shape
        (top, bottom), (left, right) = step.pads
        parameters: dict[int, Parameter] = {
            0: outputs, 1: columns, 11: rows, 3: step.strides[1], 13: step.strides[0],
            4: left, 15: right, 14: top, 16: bottom, 5: int(step.bias is not None),
            6: step.kernel.size, **_relu(step),
        }  # fmt: skip
        weights = self._weights(step, (3, 2, 0, 1))
        if self._quantized.config(step).inputs == "static":
            parameters[8] = 1  # int8, with the scales after the bias
            scale = 1 / self._quantized.qparams[x].scale
            weights += [self._scales(step), Weights(scale, tagged=False)]
        self.feature_map("Convolution", step, parameters, *weights)

    def _weights(
        self, step: steps.Conv | steps.Dense, order: Sequence[int], *, tagged: bool = False
    ) -> list[Weights]:
        """Returns a kernel in ncnn's order and the bias, if there is one, tagged or not."""
        config = self._quantized.config(step)
        kernel, type = step.kernel, "float16" if config.float16_weights else "float32"
        if config.weights is not None and config.inputs != "float":
            kernel, type = config.weights.quantize(kernel), "int8"
        weights = [Weights(kernel.transpose(order), type=type)]
        return weights if step.bias is None else [*weights, Weights(step.bias, tagged=tagged)]

    def _scales(self, step: Step) -> Weights:
        """Returns what ncnn multiplies the weights of each output with to get integers."""
        params = self._quantized.config(step).weights
        assert params is not None, "a step of integers has integer weights"
        return Weights(1 / params.scale, tagged=False)

    @add.register
    def _(self, step: steps.Dense, x: str) -> None:
        shape, channels = self.plan.shapes[x], step.kernel.shape[0]
        dynamic = self._quantized.config(step).inputs == "dynamic"
        if x in self.channels_first and not dynamic:
            conv = steps.Conv(
                step.output, step.inputs, step.kernel[None, None], step.bias,
                relu=step.relu, ceiling=step.ceiling,
            )  # fmt: skip
            self.add(conv, x)
            return
        product = self._integer_product if dynamic else self._product
        x = self.last(x)
        if len(shape) == 3 or (len(shape) == 1 and dynamic):
            rows = self.reshape(x, f"{step.output}/rows", (math.prod(shape[:-1]), channels))
            of_rows = product(step, rows, f"{step.output}/product")
            self.reshape(of_rows, step.output, self.plan.shapes[step.output])
        else:
            product(step, x, step.output)

    def _integer_product(self, step: steps.Dense, x: str, output: str) -> str:
        """Adds a product of int8; Gemm has scales for the rows of its first factor, the weights."""
        inputs, outputs = step.kernel.shape
        parameters: dict[int, Parameter] = {
            3: 1, 4: 1, 6: 1, 7: outputs, 9: inputs, 10: -1 if step.bias is None else 1, 14: 1,
            18: _DYNAMIC,
        }  # fmt: skip
        weights = [*self._weights(step, (1, 0), tagged=True), self._scales(step)]
        if not step.relu:
            return self.layer("Gemm", [x], output, parameters, *weights)
        linear = self.layer("Gemm", [x], f"{output}/linear", parameters, *weights)
        kind, limits = _ACTIVATIONS["relu"]
        if step.ceiling != math.inf:
            kind, limits = "Clip", {0: 0.0, 1: float(step.ceiling)}
        return self.layer(kind, [linear], output, limits)

    def _product(self, step: steps.Dense, x: str, output: str) -> str:
        inputs, outputs = step.kernel.shape
        parameters: dict[int, Parameter] = {
            0: outputs, 1: int(step.bias is not None), 2: inputs * outputs, **_relu(step)
        }  # fmt: skip
        weights = self._weights(step, (1, 0))
        return self.layer("InnerProduct", [x], output, parameters, *weights)

    @add.register
    def _(self, step: steps.ZeroPad, x: str) -> None:
        (top, bottom), (left, right) = step.pads
        self.feature_map("Padding", step, {0: top, 1: bottom, 2: left, 3: right})

    @add.register
    def _(self, step: steps.MaxPool, x: str) -> None:
        self._pool(step, 0)

    @add.register
    def _(self, step: steps.AveragePool, x: str) -> None:
        self._pool(step, 1)  # the padding does not count, by default

    def _pool(self, step: steps.MaxPool | steps.AveragePool, kind: int) -> None:
        (top, bottom), (left, right) = step.pads
        parameters: dict[int, Parameter] = {
            0: kind, 1: step.size[1], 11: step.size[0], 2: step.strides[1], 12: step.strides[0],
            3: left, 14: right, 13: top, 15: bottom, 5: _NO_MORE_PADS,
        }  # fmt: skip
        self.feature_map("Pooling", step, parameters)

    @add.register
    def _(self, step: steps.GlobalPool, x: str) -> None:
        if len(self.plan.shapes[x]) == 3:
            self.layer("Pooling", [self.first(x)], step.output, {0: 1, 4: 1})
        else:
            self._reduction(_MEAN, x, step.output, axis=0, keep=False)

    def _reduction(self, operation: int, x: str, output: str, *, axis: int, keep: bool) -> None:
        parameters: dict[int, Parameter] = {
            0: operation, 1: 0, 3: [axis], 4: int(keep), 5: _FIXED
        }  # fmt: skip
        self.layer("Reduction", [x], output, parameters)

    @add.register
    def _(self, step: steps.Mean, x: str) -> None:
        self._over_last_axis(_MEAN, self.last(x), step.output)

    @add.register
    def _(self, step: steps.MeanSquare, x: str) -> None:
        square = self.layer("UnaryOp", [self.last(x)], f"{step.output}/square", {0: _SQUARE})
        self._over_last_axis(_MEAN, square, step.output)

    @add.register
    def _(self, step: steps.Maximum, x: str) -> None:
        self._over_last_axis(_MAX, self.last(x), step.output)

    def _over_last_axis(self, operation: int, x: str, output: str) -> None:
        axis = len(self.plan.shapes[output]) - 1
        self._reduction(operation, x, output, axis=axis, keep=True)

    @add.register
    def _(self, step: steps.Resize, x: str) -> None:
        self.feature_map("Interp", step, {0: _BILINEAR, 3: step.size[0], 4: step.size[1]})

    @add.register
    def _(self, step: steps.Reshape, x: str) -> None:
        shape = self.plan.shapes[x]
        if x in self.channels_first and step.to == (shape[0] * shape[1], shape[2]):
            # Tokens of a feature map: a matrix is faster to transpose than a map.
            columns = self.reshape(x, f"{step.output}/columns", step.to[::-1])
            self.permute(columns, step.output, (1, 0))
        else:
            self.reshape(self.last(x), step.output, step.to)

    @add.register
    def _(self, step: steps.Transpose, x: str) -> None:
        self.permute(self.last(x), step.output, step.order)

    @add.register
    def _(self, step: steps.Slice, x: str) -> None:
        (x,) = self.elementwise(step)
        axis = 0 if step.output in self.channels_first else len(self.plan.shapes[step.output]) - 1
        self.layer("Crop", [x], step.output, {9: [step.start], 10: [step.stop], 11: [axis]})

    @add.register
    def _(self, step: steps.Crop, x: str) -> None:
        axes = range(len(step.starts))
        bounds = {9: list(step.starts), 10: list(step.stops), 11: list(axes)}
        self.layer("Crop", [self.last(x)], step.output, bounds)

    @add.register
    def _(self, step: steps.Concat, *inputs: str) -> None:
        blobs = self.elementwise(step)
        axis = 0 if step.output in self.channels_first else len(self.plan.shapes[step.output]) - 1
        self.layer("Concat", blobs, step.output, {0: axis})

    @add.register
    def _(self, step: steps.Add, x: str, y: str) -> None:
        self.layer("BinaryOp", self.elementwise(step), step.output, {0: _ADD})

    @add.register
    def _(self, step: steps.Subtract, x: str, y: str) -> None:
        self.layer("BinaryOp", self.elementwise(step), step.output, {0: _SUBTRACT})

    @add.register
    def _(self, step: steps.Multiply, x: str, y: str) -> None:
        self.layer("BinaryOp", self.elementwise(step), step.output, {0: _MULTIPLY})

    @add.register
    def _(self, step: steps.Rsqrt, x: str) -> None:
        name, inputs = step.output, self.elementwise(step)
        raised = {0: _ADD, 1: 1, 2: float(step.epsilon)}
        self.layer("BinaryOp", inputs, f"{name}/raised", raised)
        self.layer("UnaryOp", [f"{name}/raised"], f"{name}/root", {0: _SQRT})
        self.layer("UnaryOp", [f"{name}/root"], name, {0: _RECIPROCAL})

    @add.register
    def _(self, step: steps.Exp, x: str) -> None:
        self.layer("UnaryOp", self.elementwise(step), step.output, {0: _EXP})

    @add.register
    def _(self, step: steps.LayerNorm, x: str) -> None:
        width = self.plan.shapes[x][-1]
        weights = []
        if step.gamma is not None or step.beta is not None:
            gamma = np.ones(width) if step.gamma is None else step.gamma
            beta = np.zeros(width) if step.beta is None else step.beta
            weights = [Weights(gamma, tagged=False), Weights(beta, tagged=False)]
        parameters: dict[int, Parameter] = {0: width, 1: float(step.epsilon), 2: int(bool(weights))}
        self.layer("LayerNorm", [self.last(x)], step.output, parameters, *weights)

    @add.register
    def _(self, step: steps.Gelu, x: str) -> None:
        self.layer("GELU", self.elementwise(step), step.output, {0: int(step.tanh)})

    @add.register
    def _(self, step: steps.Activation, x: str) -> None:
        kind, parameters = _ACTIVATIONS[step.function]
        self.layer(kind, self.elementwise(step), step.output, parameters)

    @add.register
    def _(self, step: steps.Softmax, x: str) -> None:
        axis = len(self.plan.shapes[x]) - 1
        self.layer("Softmax", [self.last(x)], step.output, {0: axis, 1: _FIXED})

    @add.register
    def _(self, step: steps.MatMul, a: str, b: str) -> None:
        inputs, transposed = [self.last(a), self.last(b)], int(step.transpose_b)
        if self._quantized.config(step).inputs == "dynamic":
            self.layer("Gemm", inputs, step.output, {3: transposed, 18: _DYNAMIC})
        else:
            self.layer("MatMul", inputs, step.output, {0: transposed})

    @add.register
    def _(self, step: steps.ConstantMatMul, x: str) -> None:
        matrix = self.constant(f"{step.output}/matrix", step.matrix)
        self.layer("MatMul", [matrix, self.last(x)], step.output)


def _relu(step: steps.Conv | steps.Dense) -> dict[int, Parameter]:
    """Returns the parameters of the activation of a layer."""
    if not step.relu:
        return {}
    return {9: 1} if step.ceiling == math.inf else {9: 3, 10: [0.0, step.ceiling]}
