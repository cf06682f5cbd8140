"""What a MODEL was trained with and its file does not say: preprocessing, resizing, labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cct_export.bounds import Checked, Range
from cct_export.errors import InvalidRequest
from cct_export.names import choose

CHANNEL_ORDERS = ("rgb", "bgr")
RESIZE_FILTERS = ("antialiased", "bilinear")
RESIZE_FITS = ("squash", "crop")
# Factors and means of pixels, 0-255.
SCALE = Range(above=0, maximum=10**6)
MEAN = Range(-(10**6), 10**6)
STD = Range(above=0, maximum=10**6)


@dataclass(frozen=True)
class Normalization(Checked):
    """What was done to pixels before a model saw them, where none of its layers does it.

    ``(pixel · scale − mean) / std``, channel by channel, in the order of ``channels``.

    Attributes:
        scale: factor of the pixels, 0–255.
        mean: a number for all channels or one for each, in the order of ``channels``; empty for 0.
        std: as ``mean``; empty for 1.
        channels: one of ``CHANNEL_ORDERS``.
    """

    scale: Annotated[float, SCALE] = 1.0
    mean: tuple[Annotated[float, MEAN], ...] = ()
    std: tuple[Annotated[float, STD], ...] = ()
    channels: str = "rgb"

    def __post_init__(self) -> None:
        SCALE.check("scale", self.scale)
        for name, bounds in (("mean", MEAN), ("std", STD)):
            for value in getattr(self, name):
                bounds.check(f"each of {name}", value)
        choose(self.channels, CHANNEL_ORDERS, what="order of channels")

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        unscaled = self.scale == 1 and not any(self.mean) and set(self.std) <= {1}
        return unscaled and self.channels == "rgb"

    @property
    def rescaling(self) -> tuple[float | list[float], float | list[float]]:
        """Factor and offset of pixels that do the same, for all channels or for each."""
        size = max(len(self.mean), len(self.std), 1)
        mean, std = (
            values * size if len(values) == 1 else values
            for values in (self.mean or (0.0,), self.std or (1.0,))
        )
        scales = [self.scale / deviation for deviation in std]
        offsets = [0.0 - each / deviation for each, deviation in zip(mean, std, strict=True)]
        return (scales[0], offsets[0]) if size == 1 else (scales, offsets)

    def __str__(self) -> str:
        """Returns the options that say the same, such as ``--channels bgr --mean 104,117,124``."""
        scales = (f"{self.scale:.10g}", f"1/{1 / self.scale:.10g}")
        words = [] if self.scale == 1 else [f"--scale {min(scales, key=len)}"]
        words += ["--channels bgr"] if self.channels == "bgr" else []
        for name in ("mean", "std"):
            if values := getattr(self, name):
                words.append(f"--{name} {','.join(f'{value:.10g}' for value in values)}")
        return " ".join(words) or "--scale 1"

    def check_channels(self, channels: int) -> None:
        """Refuses numbers for other channels than the images have; raises ``InvalidRequest``."""
        for name in ("mean", "std"):
            given = len(getattr(self, name))
            if given not in (0, 1, channels):
                raise InvalidRequest(
                    f"--{name} has {given} numbers, and the images have {channels} channels: give "
                    f"1 or {channels}"
                )
        if self.channels == "bgr" and channels != 3:
            raise InvalidRequest("--channels bgr is for colour images, and the model takes grey")


@dataclass(frozen=True)
class Resize:
    """How images of another size are resized.

    Attributes:
        filter: ``antialiased``, bilinear over as many pixels as become one; or ``bilinear``,
            between the four nearest pixels, as ``tf.image.resize`` does by default.
        fit: ``squash`` to the size of the input, or ``crop`` the centre of its aspect ratio first.
    """

    filter: str = "antialiased"
    fit: str = "squash"

    @classmethod
    def parse(cls, words: str | Sequence[str]) -> "Resize":
        """Returns the resizing that words name, such as ``bilinear,crop``, in any order.

        Raises:
            InvalidRequest: an unknown word, or two of one kind.
        """
        fields: dict[str, str] = {}
        for word in words.split(",") if isinstance(words, str) else words:
            name = choose(word.strip(), (*RESIZE_FILTERS, *RESIZE_FITS), what="way to resize")
            kind = "filter" if name in RESIZE_FILTERS else "fit"
            if fields.setdefault(kind, name) != name:
                raise InvalidRequest(f"--resize names both {fields[kind]} and {name}: name one")
        return cls(**fields)

    @property
    def description(self) -> str:
        """What it does, in words."""
        antialiasing = "with" if self.filter == "antialiased" else "without"
        crops = self.fit == "crop"
        fit = "the centre cropped to the aspect ratio" if crops else "not keeping the aspect ratio"
        return f"bilinear, {antialiasing} antialiasing, {fit}"

    def __str__(self) -> str:
        """Returns the words that ``parse`` takes."""
        return f"{self.filter},{self.fit}"


def check_labels(labels: Sequence[str]) -> None:
    """Refuses names of classes that cannot be shown; raises ``InvalidRequest``."""
    for label in labels:
        if not label.isprintable() or not label.strip():
            raise InvalidRequest(f"label {label!r} cannot be shown: give each class a plain name")


@dataclass(frozen=True)
class ModelOptions:
    """How to load a MODEL.

    Attributes:
        normalization: what was done to pixels outside the model; None if the user said nothing.
        resize: of images of another size; None if the user said nothing.
        labels: class names in the order of the outputs; empty if not given.
        softmax: whether to append a softmax to a model that ends in logits.
        modules: Python files to run first, which define the layers of the model.
    """

    normalization: Normalization | None = None
    resize: Resize | None = None
    labels: tuple[str, ...] = ()
    softmax: bool = False
    modules: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_labels(self.labels)


DEFAULT_RESIZE = Resize()
NO_OPTIONS = ModelOptions()
