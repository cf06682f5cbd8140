"""The tensors of a plan in an ONNX graph: in which order, and on which grid."""

from typing import Any

import numpy as np

from cct_export.formats.nodes import NodeList
from cct_export.graph import steps
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Step
from cct_export.specs import ExportSpec


class TensorList(NodeList):
    """The nodes of a plan, whose tensors are read as each step wants them.

    Convolutions and pools want channels first, all else channels last. A tensor is transposed when
    the first step reads it that wants the other order. Integers are written as ONNX's pairs of
    QuantizeLinear and DequantizeLinear, which engines turn into integer arithmetic.

    Args:
        quantized: the plan.
        spec: ``io``, ``dynamic_batch`` and ``target`` are used.
        opset: of the operators.
    """

    def __init__(self, quantized: QuantizedPlan, spec: ExportSpec, opset: int) -> None:
        super().__init__(opset)
        self.quantized = quantized
        self.plan = quantized.plan
        self.io = spec.io
        self.batch: int | str = "batch" if spec.dynamic_batch else 1
        self.unsigned = spec.target == "x86"
        self.channels_first: set[str] = set()
        self.made: set[str] = set()
        self.config = OpQuantConfig()

    def weights(self, step: steps.Conv | steps.Dense, kernel: Array, axis: int) -> str:
        """Adds the kernel of the current step, stored as its config says.

        Args:
            step: whose kernel it is.
            kernel: in ONNX's order.
            axis: that of the output channels.
        """
        name, grid = f"{step.output}/kernel", self.config.constants
        if grid is None:
            return self.floats(name, kernel)
        return self.integers(name, np.moveaxis(kernel, axis, -1), grid, axis)

    def floats(self, name: str, array: Array) -> str:
        """Adds a constant of the current step; engines fold the Cast when they read the file."""
        if not self.config.half:
            return self.constant(name, array)
        half = self.stored(f"{name}/half", array, "float16")
        return self.node("Cast", [half], name, to=self.onnx.TensorProto.FLOAT)

    def integers(self, name: str, last: Array, grid: QuantParams, axis: int) -> str:
        """Adds a constant as integers with a scale per channel, the last axis of ``last``."""
        integers = np.moveaxis(grid.integers(last), -1, axis)
        stored = self.stored(f"{name}/integers", integers, f"int{grid.bits}")
        scale = np.broadcast_to(grid.scale, last.shape[-1:])
        if self.config.inputs == "static":
            scales = self.constant(f"{name}/scale", scale)
            return self.node("DequantizeLinear", [stored, scales], name, axis=axis)
        # Nothing multiplies these in integers. ONNX Runtime folds a Cast and a Mul when it reads
        # the file; a DequantizeLinear it would run every time.
        shape = [-1 if index == axis else 1 for index in range(last.ndim)]
        scales = self.constant(f"{name}/scale", scale.reshape(shape))
        reals = self.node("Cast", [stored], f"{name}/reals", to=self.onnx.TensorProto.FLOAT)
        return self.node("Mul", [reals, scales], name)

    def first(self, name: str) -> str:
        """Returns a map with the channels before rows and columns, as the current step reads it."""
        if name in self.channels_first:
            return self._read(name, name)
        return self._read(name, self._transposed(name, f"{name}/channels_first", [0, 3, 1, 2]))

    def last(self, name: str) -> str:
        """Returns a tensor with the channels last, as the current step reads it."""
        if name not in self.channels_first:
            return self._read(name, name)
        return self._read(name, self._transposed(name, f"{name}/channels_last", [0, 2, 3, 1]))

    def _transposed(self, name: str, output: str, order: list[int]) -> str:
        """Returns the tensor in another order, made once for all who read it."""
        if output not in self.made:
            self.made.add(self.node("Transpose", [name], output, perm=order))
        return output

    def _read(self, name: str, stored: str) -> str:
        """Returns a tensor as the current step reads it: on its grid or not.

        Args:
            name: of the tensor in the plan.
            stored: the tensor in the order that is wanted.
        """
        pixels = name == self.plan.INPUT and self.io == "uint8"
        if pixels and self.config.inputs != "static":
            if f"{stored}/float" not in self.made:
                to = self.onnx.TensorProto.FLOAT
                self.made.add(self.node("Cast", [stored], f"{stored}/float", to=to))
            return f"{stored}/float"
        maker = self.plan.producer(name)
        on_grid = maker is not None and self.quantized.config(maker).output
        if self.config.inputs != "static" and not on_grid:
            return stored
        output = f"{stored}/on_grid"
        if output not in self.made:
            self.made.add(output)
            self._pair(stored, output, self.quantized.qparams[name], as_is=pixels)
        return output

    def _pair(self, stored: str, output: str, grid: QuantParams, as_is: bool) -> None:
        """Adds the pair that puts a tensor on its grid; of pixels ``as_is`` the second half."""
        shift = 128 if self.unsigned or as_is else 0
        type = "uint8" if shift else "int8"
        scale = self.constant(f"{output}/scale", np.array(grid.scale))
        zero = self.stored(f"{output}/zero_point", np.array(grid.zero_point + shift), type)
        integers = stored
        if not as_is:
            integers = self.node("QuantizeLinear", [stored, scale, zero], f"{output}/integers")
        self.node("DequantizeLinear", [integers, scale, zero], output)

    def on_map(self, kind: str, step: Step, inputs: list[str], **attributes: Any) -> str:
        """Adds a node whose output has its channels first."""
        self.channels_first.add(step.output)
        return self.node(kind, inputs, step.output, **attributes)
