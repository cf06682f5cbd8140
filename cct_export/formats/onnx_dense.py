"""Writes dense layers, and the ReLU of a step, as ONNX nodes."""

import math

import numpy as np

from cct_export.formats.onnx_graph import MICROSOFT, OnnxGraph
from cct_export.formats.onnx_layout import PackedAttention
from cct_export.graph import steps
from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array, Step


class DenseGraph(OnnxGraph):
    """A graph with the nodes of dense layers: float or integer, with static or dynamic ranges."""

    def dense(self, step: steps.Dense, x: str) -> None:
        """Adds the nodes of a dense layer.

        Args:
            step: the layer.
            x: its input, channels last.
        """
        if self.integers_only:
            self._integer_dense(step, x)
            return
        self._dense(step, x)
        self.relu(step)

    def _integer_dense(self, step: steps.Dense, x: str) -> None:
        """Adds a Gemm of all tokens: the one dense operator that adds an int32 bias itself.

        The QNN provider makes it a FullyConnected with a scale for each channel
        (``builder/opbuilder/gemm_op_builder``).
        """
        name, shape = step.output, self.plan.shapes[step.output]
        rows = f"{name}/rows" if len(shape) > 1 else name
        if rows != name:
            by_rows = self.constant(f"{name}/rows_shape", np.array([-1, step.kernel.shape[0]]))
            x = self.node("Reshape", [x, by_rows], f"{name}/input_rows")
            x = self.between(step.inputs[0], x)
        inputs = [x, self.kernel(step, step.kernel, 1)]
        if step.bias is not None:
            inputs.append(self.bias(step, step.bias))
        self.node("Gemm", inputs, self.sum_of(step, rows))
        self.relu(step, rows)
        if rows != name:
            to = self.constant(f"{name}/shape", np.array([-1, *shape]))
            self.node("Reshape", [self.between(name, rows), to], name)

    def _dense(self, step: steps.Dense, x: str) -> None:
        if self.config.inputs == "dynamic" and self.config.weights is not None:
            self._dynamic_dense(step, x, self.config.weights)
            return
        if self.config.inputs == "static" and self.config.weights is not None and not self.pure:
            self._static_dense(step, x, self.config.weights)
            return
        kernel = self.kernel(step, step.kernel, 1)
        rank = len(self.plan.shapes[step.output])
        if rank == 1 and step.bias is not None and self.config.inputs == "float":
            bias = self.constant(f"{step.output}/bias", step.bias)
            self.node("Gemm", [x, kernel, bias], self.sum_of(step))
        else:
            self._biased(step, "MatMul", [x, kernel])

    def _static_dense(self, step: steps.Dense, x: str, weights: QuantParams) -> None:
        """Adds ONNX Runtime's own operator of what it else fuses, but for the bias."""
        self.node(
            "MatMulIntegerToFloat",
            self.packed(step, x, weights),
            self.sum_of(step),
            domain=MICROSOFT,
        )

    def attention(self, step: PackedAttention, x: str) -> None:
        """Adds the nodes of attention with integer projections."""
        weights = self.config.weights
        assert weights is not None
        integers, kernel, scale, kernel_scale, zero_point, _, bias = self.packed(step, x, weights)
        inputs = [integers, kernel, bias, scale, kernel_scale, "", zero_point]
        attributes = {"num_heads": step.heads, "scale": 1.0, "domain": MICROSOFT}
        self.node("QAttention", inputs, step.output, **attributes)

    def packed(self, step: steps.Dense, x: str, weights: QuantParams) -> list[str]:
        """Returns the inputs of a MatMulIntegerToFloat: integers, their scales, and the bias."""
        name, (integers, scale, zero_point) = step.output, self.integers(x)
        kernel = self.typed_constant(f"{name}/kernel", weights.quantize(step.kernel), "int8")
        scales = np.broadcast_to(weights.scale, step.kernel.shape[1])
        kernel_scale = self.constant(f"{name}/kernel_scale", scales)
        inputs = [integers, kernel, scale, kernel_scale, zero_point]
        if step.bias is not None:
            inputs += ["", self.constant(f"{name}/bias", step.bias)]
        return inputs

    def _dynamic_dense(self, step: steps.Dense, x: str, weights: QuantParams) -> None:
        """Adds an integer product whose input range is computed at run time."""
        self.scaled_product(step, *self.quantized_at_run_time(step, x), step.kernel, weights)

    def quantized_at_run_time(self, step: Step, x: str) -> tuple[str, str, str]:
        """Quantizes a tensor by its own range; returns integers, scale and zero point."""
        name = step.output
        parts = (f"{name}/input", f"{name}/input_scale", f"{name}/input_zero_point")
        node = self.onnx.helper.make_node("DynamicQuantizeLinear", [x], parts, f"{name}/quantize")
        self.nodes.append(node)
        return parts

    def scaled_product(
        self,
        step: steps.Conv | steps.Dense,
        x: str,
        scale: str,
        zero_point: str,
        matrix: Array,
        weights: QuantParams,
        output: str = "",
    ) -> None:
        """Adds a product of integers as reals, and the bias of its step.

        Args:
            step: the layer.
            x: rows of integers.
            scale: of these.
            zero_point: of these.
            matrix: the kernel, ``(inputs, outputs)``.
            weights: its parameters.
            output: what to call the result; empty for what the step computes before its ReLU.
        """
        name = step.output
        kernel = self.typed_constant(f"{name}/kernel", weights.quantize(matrix), "int8")
        sums = self.node("MatMulInteger", [x, kernel, zero_point], f"{name}/integer_sums")
        reals = self.to_float(sums, f"{name}/reals")
        scales = self.constant(f"{name}/kernel_scale", weights.scale)
        unit = self.node("Mul", [scale, scales], f"{name}/scale")
        self._biased(step, "Mul", [reals, unit], output)

    def _biased(
        self, step: steps.Conv | steps.Dense, kind: str, inputs: list[str], output: str = ""
    ) -> None:
        """Adds the product of a layer, and its bias if it has one."""
        output = output or self.sum_of(step)
        if step.bias is None:
            self.node(kind, inputs, output)
            return
        product = self.node(kind, inputs, f"{step.output}/product")
        weights, values = self.config.weights, step.bias
        # ONNX Runtime makes a Gemm of a MatMul and an Add where all shapes are known, and then
        # dequantizes its weights at every inference. It leaves a Sum alone.
        sum_kind = "Sum" if self.config.inputs == "static" and self.batch == 1 else "Add"
        if weights is not None and weights.scale.ndim == 2:
            # ONNX Runtime fuses a product with a bias of rank 1 before it does with its weights.
            values = values.reshape(1, 1, -1)
        bias = self.constant(f"{step.output}/bias", values)
        self.node(sum_kind, [product, bias], output)

    def sum_of(self, step: steps.Conv | steps.Dense, output: str = "") -> str:
        """Returns the tensor that a step computes before its ReLU, if it has one."""
        return f"{output or step.output}/sum" if step.relu else output or step.output

    def relu(self, step: steps.Conv | steps.Dense, output: str = "") -> None:
        """Adds the ReLU of a step, if it has one."""
        if not step.relu:
            return
        x, params = self.sum_of(step, output), self.quantized.qparams.get(step.output)
        # Engines compute both as one where integers hold no other values than ReLU's; elsewhere
        # each has a pair of its own.
        if params is not None and (params.min_value < 0 or params.max_value > step.ceiling):
            x = self.between(step.output, x)
        self.clipped([x], output or step.output, step.ceiling)

    def clipped(self, inputs: list[str], output: str, ceiling: float) -> None:
        """Adds ReLU, or what limits values to 0 … ``ceiling``."""
        if ceiling == math.inf:
            self.node("Relu", inputs, output)
        else:
            limits = {"floor": 0.0, "ceiling": ceiling}
            names = [
                self.typed_constant(f"{output}/{key}", np.array(value), "float32", scalar=True)
                for key, value in limits.items()
            ]
            self.node("Clip", [*inputs, *names], output)
