"""The architecture of a CCT as a picture: what becomes of an image, step by step."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.files import replacing
from cct_export.model.sizes import parameter_count, parameters_by_part, stage_sides
from cct_export.specs import ModelSpec
from cct_export.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In inches: a row and the gap below it, the boxes' edges, the columns of text beside them.
_ROW, _GAP = 0.5, 0.34
_LEFT, _RIGHT, _SHAPE, _COUNT, _WIDTH = 1.1, 5.0, 6.55, 7.75, 7.95
# Far enough left of the boxes for the frame of a block, and for the way around a branch in it.
_FRAME, _AROUND = 0.5, 0.28
_FILLS = {"image": "#eeeeee", "tokens": "#dbe6f1", "block": "#f6dfe3", "head": "#dfecd8"}
_INK, _FAINT = "#222222", "#777777"


@dataclass(frozen=True)
class Step:
    """A box of the diagram.

    Attributes:
        title: what it does.
        detail: how, in fewer words than the title needs.
        shape: of what leaves it, for one image.
        parameters: numbers in its weights, all blocks apart.
        group: ``image``, ``tokens``, ``block`` or ``head``.
        residual: what enters is added to what leaves.
    """

    title: str
    detail: str
    shape: tuple[int, ...]
    parameters: int
    group: str
    residual: bool = False


def steps(spec: ModelSpec) -> list[Step]:
    """Returns the boxes from the image to the logits; those of a block are there once.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    size, numbers = spec.image_size, parameters_by_part(spec)
    scaled = "normalized by channel" if spec.mean or spec.std else "scaled to 0–1"
    found = [Step("Image", f"raw pixels, {scaled}", (size, size, spec.channels), 0, "image")]
    stages = zip(spec.filters, stage_sides(spec), strict=True)
    for stage, (channels, side) in enumerate(stages, 1):
        name = f"convolution {stage}"
        stride = f" by {spec.stride}" if spec.stride > 1 else ""
        window = f"{spec.kernel}×{spec.kernel}{stride}"
        detail = f"{window}, ReLU, max pool 3×3 by 2"
        found.append(
            Step(name.capitalize(), detail, (side, side, channels), numbers[name], "tokens")
        )
    tokens = (stage_sides(spec)[-1] ** 2, spec.width)
    added = f"{spec.positional} positions" if spec.positional != "none" else "no positions"
    found.append(Step("Tokens", added, tokens, numbers["positions"], "tokens"))
    found += _block(spec, tokens)
    return [
        *found,
        Step("Layer normalization", "", tokens, numbers["norm"], "head"),
        Step("Sequence pooling", "mean by attention", (spec.width,), numbers["pooling"], "head"),
        Step("Logits", "dense", (spec.classes,), numbers["logits"], "head"),
    ]


def _block(spec: ModelSpec, tokens: tuple[int, int]) -> list[Step]:
    """Returns the boxes of one transformer block."""
    if spec.layers == 0:
        return []
    numbers, norm = parameters_by_part(spec), 2 * spec.width
    heads = f"{spec.heads} head{'s' * (spec.heads > 1)} of {spec.head_dim}"
    widths = " → ".join(map(str, (spec.width, *spec.mlp_units)))
    gelu = "GELU (tanh)" if spec.block == "keras" and spec.gelu == "tanh" else "GELU"
    attention = Step(
        "Norm, self-attention", heads, tokens, numbers["attention"], "block", residual=True
    )
    if spec.block == "keras":
        return [
            attention,
            Step("Norm, MLP", f"{widths}, {gelu}", tokens, numbers["mlp"], "block", residual=True),
        ]
    # The paper's second norm is on the residual stream itself.
    return [
        attention,
        Step("Layer normalization", "", tokens, norm, "block"),
        Step("MLP", f"{widths}, {gelu}", tokens, numbers["mlp"] - norm, "block", residual=True),
    ]


def draw(spec: ModelSpec, path: Path) -> None:
    """Writes the diagram of an architecture to ``path`` (PNG).

    Args:
        spec: the architecture.
        path: the file.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
        OutputError: the file cannot be written.
    """
    # Figure instead of pyplot: no global state, no display.
    from matplotlib.figure import Figure

    boxes = steps(spec)
    height = len(boxes) * (_ROW + _GAP) + 0.75
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    _head(axes, spec)
    tops = [0.72 + index * (_ROW + _GAP) for index in range(len(boxes))]
    inside = [top for box, top in zip(boxes, tops, strict=True) if box.group == "block"]
    if inside:
        _frame(axes, inside[0], inside[-1] + _ROW, spec.layers)
    for index, (box, top) in enumerate(zip(boxes, tops, strict=True)):
        _box(axes, box, top, each=spec.layers > 1)
        if index:
            _arrow(axes, top)
        if box.residual:
            _around(axes, top)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", facecolor="white")


def _head(axes: "Axes", spec: ModelSpec) -> None:
    """Writes the name, the number of parameters, and the heads of the columns."""
    # A name may hold a $, which is no formula.
    name = axes.text(
        _LEFT, 0.36, _short(printable(spec.name)), fontsize=12, weight="bold", color=_INK
    )
    name.set_parse_math(False)
    total = f"{parameter_count(spec):,} parameters"
    axes.text(_RIGHT, 0.36, total, fontsize=9, ha="right", color=_FAINT)
    for x, text in ((_SHAPE, "output"), (_COUNT, "parameters")):
        axes.text(x, 0.36, text, fontsize=8, ha="right", color=_FAINT)


def _short(name: str) -> str:
    """Returns a name that leaves room for what stands beside it."""
    return name if len(name) <= 26 else f"{name[:25]}…"


def _box(axes: "Axes", box: Step, top: float, each: bool) -> None:
    """Draws a box and, beside it, its shape and parameters."""
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (_LEFT, top), _RIGHT - _LEFT, _ROW, boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=_FILLS[box.group], edgecolor=_INK, linewidth=0.8,
        )
    )  # fmt: skip
    middle = top + _ROW / 2
    axes.text(_LEFT + 0.14, middle, box.title, fontsize=10, va="center", color=_INK)
    axes.text(_RIGHT - 0.14, middle, box.detail, fontsize=8.5, va="center", ha="right", color=_INK)
    shape = " × ".join(map(str, box.shape))
    axes.text(_SHAPE, middle, shape, fontsize=9, va="center", ha="right", color=_INK)
    count = f"{box.parameters:,}" if box.parameters else "–"
    if each and box.group == "block":
        count += " each"
    axes.text(_COUNT, middle, count, fontsize=9, va="center", ha="right", color=_INK)


def _arrow(axes: "Axes", top: float) -> None:
    """Draws an arrow down to the box that begins at ``top``."""
    middle = (_LEFT + _RIGHT) / 2
    style = {"arrowstyle": "-|>", "color": _INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (middle, top), (middle, top - _GAP), arrowprops=style)


def _around(axes: "Axes", top: float) -> None:
    """Draws the residual way from above a box to a plus below it."""
    from matplotlib.patches import Circle

    middle, left = (_LEFT + _RIGHT) / 2, _LEFT - _AROUND
    above, below = top - _GAP * 0.34, top + _ROW + _GAP * 0.36
    radius = 0.06
    axes.plot(
        (middle, left, left, middle - radius), (above, above, below, below),
        color=_INK, linewidth=0.8, solid_joinstyle="round",
    )  # fmt: skip
    axes.add_patch(
        Circle((middle, below), radius, facecolor="white", edgecolor=_INK, linewidth=0.8, zorder=3)
    )
    axes.text(middle, below + 0.003, "+", fontsize=7, ha="center", va="center", zorder=4)


def _frame(axes: "Axes", top: float, bottom: float, blocks: int) -> None:
    """Draws the dashed line around what is repeated, and says how often it is."""
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (_LEFT - _FRAME, top - _GAP * 0.7), _RIGHT - _LEFT + _FRAME + 0.16,
            bottom - top + _GAP * 1.4, boxstyle="round,pad=0,rounding_size=0.1",
            facecolor="none", edgecolor=_FAINT, linewidth=0.9, linestyle=(0, (4, 3)),
        )
    )  # fmt: skip
    axes.text(
        _LEFT - _FRAME - 0.1, (top + bottom) / 2, f"{blocks} ×", fontsize=11, ha="right",
        va="center", color=_INK,
    )  # fmt: skip
