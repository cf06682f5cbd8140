"""Writes convolutions as ONNX nodes: float or integer, with static or dynamic ranges."""

import numpy as np

from cct_export.formats.onnx_dense import DenseGraph
from cct_export.graph import steps
from cct_export.graph.quantized import QuantParams
from cct_export.graph.windows import Pads, Shape, window_counts


class ConvGraph(DenseGraph):
    """A graph with the nodes of convolutions."""

    def convolution(self, step: steps.Conv, x: str) -> None:
        """Adds the nodes of a convolution.

        Args:
            step: the layer.
            x: its input.
        """
        if self.config.inputs == "dynamic" and self.config.weights is not None:
            self._dynamic_convolution(step, self.last(x), self.config.weights)
            self.relu(step)
            return
        inputs = [self.first(x), self.kernel(step, step.kernel.transpose(3, 2, 0, 1), 0)]
        if step.bias is not None:
            inputs.append(self.bias(step, step.bias))
        self.channels_first.add(step.output)
        attributes = {"strides": step.strides, "pads": pads_of(step.pads)}
        attributes["kernel_shape"] = step.kernel.shape[:2]
        self.node("Conv", inputs, self.sum_of(step), **attributes)
        self.relu(step)

    def _dynamic_convolution(self, step: steps.Conv, x: str, weights: QuantParams) -> None:
        """Adds a product of gathered windows, whose range is computed at run time.

        ONNX Runtime multiplies integers three times as fast in a matrix product as it convolves
        floats, gathering included; its ConvInteger is slower than both.
        """
        name, (rows, columns, channels) = step.output, self.plan.shapes[step.inputs[0]]
        shape = self.plan.shapes[name]
        flat = self.constant(f"{name}/pixels_shape", np.array([0, rows * columns, channels]))
        pixels = self.node("Reshape", [x, flat], f"{name}/pixels")
        integers, scale, zero_point = self.quantized_at_run_time(step, pixels)
        if any(amount for axis in step.pads for amount in axis):
            # Another pixel, which is 0.
            amounts = self.constant(f"{name}/amounts", np.array([0, 0, 0, 0, 1, 0]))
            integers = self.node("Pad", [integers, amounts, zero_point], f"{name}/padded")
        order = window_pixels((rows, columns), step.kernel.shape[:2], step.strides, step.pads)
        windows = integers
        if not np.array_equal(order, np.arange(rows * columns)[:, None]):  # not every pixel once
            chosen = self.typed_constant(f"{name}/order", order, "int32")
            windows = self.node("Gather", [integers, chosen], f"{name}/gathered", axis=1)
            by_window = np.array([0, len(order), order.shape[1] * channels])
            to = self.constant(f"{name}/windows_shape", by_window)
            windows = self.node("Reshape", [windows, to], f"{name}/windows")
        matrix = step.kernel.reshape(-1, step.kernel.shape[-1])
        self.scaled_product(
            step, windows, scale, zero_point, matrix, weights, output=f"{name}/rows"
        )
        back = self.constant(f"{name}/shape", np.array([0, *shape]))
        self.node("Reshape", [f"{name}/rows", back], self.sum_of(step))


def window_pixels(
    size: tuple[int, int], kernel: Shape, strides: tuple[int, int], pads: Pads
) -> np.ndarray:
    """Returns which pixels, in row-major order, the window of each output position holds.

    Args:
        size: rows and columns of the input.
        kernel: rows and columns of a window.
        strides: vertical and horizontal stride.
        pads: padding around the input.

    Returns:
        ``(positions, pixels of a window)``; the number of pixels of the input where it is padding.
    """
    counts = window_counts((*size, 1), kernel, strides, pads)
    axes = [
        np.arange(count)[:, None] * stride + np.arange(window) - before
        for count, window, stride, (before, _) in zip(counts, kernel, strides, pads, strict=True)
    ]
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
    pixels = np.where(inside, rows * size[1] + columns, size[0] * size[1])
    return pixels.reshape(counts[0] * counts[1], -1)


def pads_of(pads: Pads) -> list[int]:
    """Returns pads in ONNX's order: top, left, bottom, right."""
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]
