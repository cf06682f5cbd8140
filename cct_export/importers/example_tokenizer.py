"""The layers of the example's tokenizer, of which a file says kinds and shapes but no settings.

Strides, paddings and pools follow from the number of tokens, where only one usual choice gives it.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import layers

from cct_export.importers.example_file import Kinds
from cct_export.untrusted import Malformed

_NO_EFFECT = ("dropout", "spatial_dropout2d", "gaussian_noise", "gaussian_dropout")
_POOLS = {"max_pooling2d": layers.MaxPooling2D, "average_pooling2d": layers.AveragePooling2D}
_KNOWN = ("conv2d", "batch_normalization", "activation", "re_lu", "zero_padding2d", *_POOLS)
_ADVICE = "name the file of its code with --import FILE.py"


@dataclass(frozen=True)
class Geometry:
    """Settings that all stages of a tokenizer share; the defaults are the example's.

    Attributes:
        stride: of the convolutions.
        conv_padding: of the convolutions, ``valid`` or ``same``.
        margin: zeros on each side of the pools' input, if there is such a layer.
        pool: size of the pools, if there are any.
        pool_stride: of the pools.
        pool_padding: of the pools, ``same`` or ``valid``.
    """

    stride: int = 1
    conv_padding: str = "valid"
    margin: int = 1
    pool: int = 3
    pool_stride: int = 2
    pool_padding: str = "same"

    def __str__(self) -> str:
        """Returns the settings in words."""
        return (
            f"stride {self.stride} and {self.conv_padding} padding of the convolutions, pools of "
            f"{self.pool} with stride {self.pool_stride} and {self.pool_padding} padding"
        )


EXAMPLE = Geometry()
_POOL_CHOICES = [(3, 2, "same"), (3, 2, "valid"), (2, 2, "valid"), (2, 2, "same")]


@dataclass(frozen=True)
class Stages:
    """What a file says of the layers of a tokenizer.

    Attributes:
        kinds: the layers.
        activation: as Keras takes it, of the convolutions, or of layers that are nothing else; None
            if not said.
        given: the settings that are said, by the names of ``Geometry``.
    """

    kinds: Kinds
    activation: Any
    given: Mapping[str, int | str]

    def check(self) -> None:
        """Raises ``Malformed`` for layers whose order or function nothing tells."""
        unknown = [kind for kind in self.kinds if kind not in (*_KNOWN, *_NO_EFFECT)]
        if unknown:
            raise Malformed(f"its tokenizer has a layer {unknown[0]}, and nothing says what it "
                            f"does: {_ADVICE}")  # fmt: skip
        if not self.kernels or any(kernel.ndim != 4 for kernel in self.kernels):
            raise Malformed("its tokenizer has no convolutions")
        for kind in set(_KNOWN) & set(self.kinds):
            if len(self.kinds[kind]) != len(self.kernels):
                raise Malformed(
                    f"its tokenizer has {len(self.kernels)} convolutions and "
                    f"{len(self.kinds[kind])} layers {kind}, and nothing says where: {_ADVICE}"
                )
        if "activation" in self.kinds and self.activation is None:
            raise Malformed(
                f"nothing says which function the layers activation of its tokenizer are: {_ADVICE}"
            )
        if len(set(_POOLS) & set(self.kinds)) == 2 or {"activation", "re_lu"} <= set(self.kinds):
            raise Malformed(f"nothing says in which order the layers of its tokenizer are: "
                            f"{_ADVICE}")  # fmt: skip

    @property
    def kernels(self) -> list[np.ndarray]:
        """The kernels of the convolutions, ``(height, width, inputs, outputs)``."""
        return [arrays[0] for arrays in self.kinds.get("conv2d", ()) if arrays]

    @property
    def is_like_the_examples(self) -> bool:
        """Whether each convolution is followed by padding and a max pool."""
        return "zero_padding2d" in self.kinds and "max_pooling2d" in self.kinds

    def choices(self) -> list[Geometry]:
        """Returns all usual settings that agree with what is said."""
        pools = _POOL_CHOICES
        if "zero_padding2d" in self.kinds:  # which goes with pools of 3
            pools = pools[:2]
        if not set(_POOLS) & set(self.kinds):
            pools = pools[:1]
        names = ("pool", "pool_stride", "pool_padding")
        choices = [
            Geometry(stride, padding, **dict(zip(names, pool, strict=True)))  # type: ignore[arg-type]
            for stride, padding, pool in itertools.product((1, 2), ("valid", "same"), pools)
        ]
        if not self.given:
            return choices
        # Settings that are said may have any value, the others are the usual ones.
        return list(
            dict.fromkeys(
                Geometry(**{**vars(choice), **self.given})  # type: ignore[arg-type]
                for choice in choices
            )
        )

    def grid(self, geometry: Geometry, height: int, width: int) -> tuple[int, int, object] | None:
        """Returns rows and columns of tokens, and what tells settings apart; None if too small."""
        sizes, effects = [height, width], []
        for kernel in self.kernels:
            for axis in (0, 1):
                size, pads = _window(
                    sizes[axis], kernel.shape[axis], geometry.stride, geometry.conv_padding
                )
                effects.append((geometry.stride, pads))
                if "zero_padding2d" in self.kinds:
                    size += 2 * geometry.margin
                if set(_POOLS) & set(self.kinds) and size > 0:
                    size, pads = _window(
                        size, geometry.pool, geometry.pool_stride, geometry.pool_padding
                    )
                    effects.append((geometry.pool, pads))
                if size < 1:
                    return None
                sizes[axis] = size
        return sizes[0], sizes[1], tuple(effects)

    def layers(self, geometry: Geometry) -> list[layers.Layer]:
        """Returns the layers with these settings, not built."""
        separate = "activation" in self.kinds or "re_lu" in self.kinds
        function = self.activation or "relu"
        made: list[layers.Layer] = []
        for arrays in self.kinds["conv2d"]:
            kernel = arrays[0]
            made.append(
                layers.Conv2D(
                    kernel.shape[3],
                    kernel.shape[:2],
                    geometry.stride,
                    geometry.conv_padding,
                    use_bias=len(arrays) > 1,
                    activation=None if separate else function,
                )
            )
            if "batch_normalization" in self.kinds:
                made.append(layers.BatchNormalization())
            if "activation" in self.kinds:
                made.append(layers.Activation(function))
            if "re_lu" in self.kinds:
                made.append(layers.ReLU())
            if "zero_padding2d" in self.kinds:
                made.append(layers.ZeroPadding2D(geometry.margin))
            made += [
                pool(geometry.pool, geometry.pool_stride, geometry.pool_padding)
                for kind, pool in _POOLS.items()
                if kind in self.kinds
            ]
        return made

    def assumptions(self, geometry: Geometry) -> list[str]:
        """Returns what of the layers no file says, a line each."""
        pooled = set(_POOLS) & set(self.kinds)
        settings = str(geometry) if pooled else str(geometry).partition(", pools")[0]
        notes = [f"assumed: {settings}"]
        if self.activation is None and "re_lu" not in self.kinds:
            notes.append("assumed: ReLU in the convolutions of the tokenizer")
        if "batch_normalization" in self.kinds:
            order = ", then its activation" if {"activation", "re_lu"} & set(self.kinds) else ""
            notes.append(
                f"assumed: batch normalization of epsilon 0.001 behind each convolution{order}"
            )
        return notes


def geometry_of(stages: Stages, image: tuple[int, int], tokens: int) -> Geometry:
    """Returns the settings with which an image gives that many tokens.

    Args:
        stages: the layers.
        image: height and width of what they get, in pixels.
        tokens: that they give.

    Raises:
        Malformed: no usual settings do, or several that differ.
    """
    fitting: dict[object, Geometry] = {}
    for geometry in stages.choices():
        if (grid := stages.grid(geometry, *image)) and math.prod(grid[:2]) == tokens:
            fitting.setdefault(grid[2], geometry)
    usual = replace(EXAMPLE, **stages.given)  # type: ignore[arg-type]
    if stages.is_like_the_examples and usual in fitting.values():
        return usual
    return only(fitting.values(), f"{tokens} tokens of {image[0]}×{image[1]} pixels")


def only(geometries: Iterable[Geometry], what: str) -> Geometry:
    """Returns the one choice of settings that gives something; raises ``Malformed``."""
    found = list(geometries)
    if not found:
        raise Malformed(f"no usual stride, padding and pool of its tokenizer gives {what}: "
                        f"{_ADVICE}")  # fmt: skip
    if len(found) > 1:
        raise Malformed(f"several settings of its tokenizer give {what}, such as {found[0]}, or "
                        f"{found[1]}: {_ADVICE}")  # fmt: skip
    return found[0]


def _window(size: int, window: int, stride: int, padding: str) -> tuple[int, int]:
    """Returns how often a window fits, and how many zeros are added for that."""
    if padding == "valid":
        return ((size - window) // stride + 1 if size >= window else 0), 0
    count = -(-size // stride)
    return count, max(0, (count - 1) * stride + window - size)
