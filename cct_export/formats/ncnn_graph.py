"""The graph of an ncnn file: its layers as text, their weights as bytes, the order of axes.

ncnn has no batch axis and calls its axes w, h and c, the innermost first. A feature map has its
channels in c, as the layers for images want it. Any other tensor is in row-major order.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Shape, Step

MAGIC = 7767517
# Before weights: how they are stored.
_TAGS = {"float32": 0, "float16": 0x01306B47, "int8": 0x000D4B38}
# A file's line is read with names of up to 255 bytes.
_MAX_NAME = 200
# Orders of Permute by the axes of its output, the outermost first.
_ORDERS = {
    (0, 1): 0, (1, 0): 1,
    (0, 1, 2): 0, (0, 2, 1): 1, (1, 0, 2): 2, (1, 2, 0): 3, (2, 0, 1): 4, (2, 1, 0): 5,
}  # fmt: skip
Parameter = int | float | Sequence[int] | Sequence[float]


@dataclass(frozen=True)
class Weights:
    """An array of a layer.

    Attributes:
        values: in the order in which ncnn reads them.
        tagged: whether ncnn reads a tag before them, which tells how they are stored.
        type: ``float32``; or ``float16`` or ``int8``, which need the tag.
    """

    values: Array
    tagged: bool = True
    type: str = "float32"

    def stored(self) -> bytes:
        """Returns the bytes, which end at a multiple of four."""
        content = self.values.astype(np.dtype(self.type).newbyteorder("<")).tobytes()
        if not self.tagged:
            return content
        return _TAGS[self.type].to_bytes(4, "little") + content + bytes(-len(content) % 4)


@dataclass(frozen=True)
class Layer:
    """A line of the file.

    Attributes:
        kind: ncnn's name of the operation.
        inputs: names of the blobs that it reads.
        outputs: names of the blobs that it writes.
        parameters: by their number.
        weights: in the order in which ncnn reads them.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, Parameter]
    weights: tuple[Weights, ...] = ()


class Graph:
    """Layers for a plan, with the tensors of the plan in the order that each layer wants.

    Args:
        plan: in steps that ncnn has layers for.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.layers: list[Layer] = []
        # Feature maps whose layer writes the channels first, as the image input has them.
        self.channels_first = {plan.INPUT}
        self._copies: dict[str, str] = {}

    def layer(
        self,
        kind: str,
        inputs: Sequence[str],
        output: str,
        parameters: Mapping[int, Parameter] | None = None,
        *weights: Weights,
    ) -> str:
        """Adds a layer; returns its output."""
        self.layers.append(Layer(kind, tuple(inputs), (output,), parameters or {}, weights))
        return output

    def feature_map(
        self,
        kind: str,
        step: Step,
        parameters: Mapping[int, Parameter],
        *weights: Weights,
    ) -> None:
        """Adds the layer of a step that reads and writes feature maps, channels first."""
        x = self.first(step.inputs[0])
        self.layer(kind, [x], step.output, parameters, *weights)
        self.channels_first.add(step.output)

    def elementwise(self, step: Step) -> list[str]:
        """Returns the inputs of a step for any order in their own, which its output then has."""
        if any(name in self.channels_first for name in step.inputs) and all(
            len(self.plan.shapes[name]) == 3 for name in step.inputs
        ):
            self.channels_first.add(step.output)
            return list(map(self.first, step.inputs))
        return list(map(self.last, step.inputs))

    def constant(self, name: str, values: Array, *, half: bool = False) -> str:
        """Adds a constant of one to three axes in row-major order; returns its name."""
        sizes = dict(zip((0, 1, 2), reversed(values.shape), strict=False))
        tagged = {21: 0} if half else {}
        stored = Weights(values, tagged=half, type="float16" if half else "float32")
        return self.layer("MemoryData", [], name, {**sizes, **tagged}, stored)

    def beside(self, step: Step, value: Array) -> Array:
        """Returns a constant that broadcasts with the output of a step, with as many axes."""
        rank = len(self.plan.shapes[step.output])
        value = value.reshape((1,) * (rank - value.ndim) + value.shape)
        return value.transpose(2, 0, 1) if step.output in self.channels_first else value

    def first(self, x: str) -> str:
        """Returns a feature map with the channels first."""
        return x if x in self.channels_first else self._permuted(x, (2, 0, 1))

    def last(self, x: str) -> str:
        """Returns a tensor in row-major order."""
        return self._permuted(x, (1, 2, 0)) if x in self.channels_first else x

    def _permuted(self, x: str, order: tuple[int, ...]) -> str:
        if x not in self._copies:
            self._copies[x] = self.permute(x, f"{x}/permuted", order)
        return self._copies[x]

    def permute(self, x: str, output: str, order: tuple[int, ...]) -> str:
        """Adds a permutation; ``order`` has the axis of the input for each of the output."""
        return self.layer("Permute", [x], output, {0: _ORDERS[order]})

    def reshape(self, x: str, output: str, to: Shape) -> str:
        """Adds a reshape of a tensor in row-major order."""
        return self.layer("Reshape", [x], output, dict(zip((0, 1, 2), reversed(to), strict=False)))

    def text(self) -> str:
        """Returns the layers as ncnn reads them: a line each, after the counts."""
        layers = _with_splits(self.layers)
        names = _names([blob for layer in layers for blob in layer.outputs])
        blobs = sum(len(layer.outputs) for layer in layers)
        lines = [str(MAGIC), f"{len(layers)} {blobs}"]
        return "\n".join([*lines, *(_line(layer, names) for layer in layers)]) + "\n"

    def weights(self) -> bytes:
        """Returns the weights of all layers, in their order."""
        return b"".join(part.stored() for layer in self.layers for part in layer.weights)


def _with_splits(layers: Sequence[Layer]) -> list[Layer]:
    """Returns the layers with a Split after each whose output several inputs read.

    ncnn frees a blob, or computes in it, once it was read.
    """
    uses = Counter(name for layer in layers for name in layer.inputs)
    split: list[Layer] = []
    copies: dict[str, list[str]] = {}
    for layer in layers:
        inputs = tuple(copies[name].pop(0) if name in copies else name for name in layer.inputs)
        split.append(replace(layer, inputs=inputs))
        (output,) = layer.outputs
        if uses[output] > 1:
            copies[output] = [f"{output}/copy_{index}" for index in range(uses[output])]
            split.append(Layer("Split", (output,), tuple(copies[output]), {}))
    return split


def _names(blobs: Sequence[str]) -> dict[str, str]:
    """Returns the names of blobs as a line can have them; others get a number."""
    return {
        blob: f"blob_{index}" if re.search(r"\s", blob) or len(blob) > _MAX_NAME else blob
        for index, blob in enumerate(blobs)
    }


def _line(layer: Layer, names: Mapping[str, str]) -> str:
    """Returns the line of a layer, which is named after its first output."""
    inputs, outputs = ([names[blob] for blob in side] for side in (layer.inputs, layer.outputs))
    parameters = [_parameter(key, value) for key, value in layer.parameters.items()]
    counts = [str(len(inputs)), str(len(outputs))]
    fields = [f"{layer.kind:<18}", f"{outputs[0]:<32}", *counts, *inputs, *outputs, *parameters]
    return " ".join(fields)


def _parameter(key: int, value: Parameter) -> str:
    if isinstance(value, Sequence):
        return ",".join([f"{-23300 - key}={len(value)}", *map(_number, value)])
    return f"{key}={_number(value)}"


def _number(value: float) -> str:
    """Returns a number in at most 15 characters, which is all that ncnn reads of one."""
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        value = float(np.copysign(np.finfo(np.float32).max, value))
    return f"{value:.8e}"
