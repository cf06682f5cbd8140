"""Pictures of a run: the learning curves, and the architecture as a diagram."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.files import replacing
from cct_export.model.sizes import parameter_count, parameters_by_part, stage_sides
from cct_export.specs import ModelSpec
from cct_export.text import printable
from cct_export.training.run import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Layout of the diagram in inches: height of a row and the gap below it, edges of the boxes, columns
# of text beside them.
_ROW, _GAP = 0.5, 0.34
_LEFT, _RIGHT, _SHAPE, _COUNT, _WIDTH = 1.1, 5.0, 6.55, 7.75, 7.95
# Left of the boxes: the frame of a block, and the residual connection in it.
_FRAME, _RESIDUAL = 0.5, 0.28
_FILLS = {"image": "#eeeeee", "tokens": "#dbe6f1", "block": "#f6dfe3", "head": "#dfecd8"}
_INK, _FAINT = "#222222", "#777777"


def plot_curves(metrics: list[EpochMetrics], path: Path) -> None:
    """Writes the learning curves to ``path`` (PNG).

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        curves(metrics).savefig(temporary, dpi=120, format="png")


def curves(metrics: list[EpochMetrics]) -> "Figure":
    """Returns the learning curves: loss and top-1 accuracy by epoch."""
    # Figure instead of pyplot: no global state, no display.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [epoch["epoch"] for epoch in metrics]
    # A line through the only epoch would not be seen.
    style = "-" if len(epochs) > 1 else "o"
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("Loss", "Top-1 accuracy"), strict=True
    ):
        for name, label, color in (
            (key, "training", "#4477aa"), (f"val_{key}", "validation", "#cc6677"),
        ):  # fmt: skip
            axes.plot(epochs, [epoch[name] for epoch in metrics], style, label=label, color=color)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


@dataclass(frozen=True)
class Box:
    """A box of the diagram: one step from image to logits.

    Attributes:
        title: name of the operation.
        detail: its sizes.
        shape: of the output, for one image.
        parameters: number of parameters, for one block.
        group: ``image``, ``tokens``, ``block`` or ``head``.
        residual: whether the input is added to the output.
    """

    title: str
    detail: str
    shape: tuple[int, ...]
    parameters: int
    group: str
    residual: bool = False


def boxes(spec: ModelSpec) -> list[Box]:
    """Returns the boxes from image to logits; those of a transformer block once.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    size, counts = spec.image_size, parameters_by_part(spec)
    scaling = "normalized by channel" if spec.mean or spec.std else "scaled to 0–1"
    stages = [Box("Image", f"raw pixels, {scaling}", (size, size, spec.channels), 0, "image")]
    for index, (channels, side) in enumerate(zip(spec.filters, stage_sides(spec), strict=True), 1):
        name = f"convolution {index}"
        stride = f" by {spec.stride}" if spec.stride > 1 else ""
        detail = f"{spec.kernel}×{spec.kernel}{stride}, ReLU, max pool 3×3 by 2"
        shape = (side, side, channels)
        stages.append(Box(name.capitalize(), detail, shape, counts[name], "tokens"))
    tokens = (stage_sides(spec)[-1] ** 2, spec.width)
    positions = f"{spec.positional} positions" if spec.positional != "none" else "no positions"
    return [
        *stages,
        Box("Tokens", positions, tokens, counts["positions"], "tokens"),
        *_block(spec, tokens),
        Box("Layer normalization", "", tokens, counts["norm"], "head"),
        Box("Sequence pooling", "mean by attention", (spec.width,), counts["pooling"], "head"),
        Box("Logits", "dense", (spec.classes,), counts["logits"], "head"),
    ]


def _block(spec: ModelSpec, tokens: tuple[int, int]) -> list[Box]:
    """Returns the boxes of one transformer block."""
    if spec.layers == 0:
        return []
    counts, norm = parameters_by_part(spec), 2 * spec.width
    heads = f"{spec.heads} head{'s' * (spec.heads > 1)} of {spec.head_dim}"
    widths = " → ".join(map(str, (spec.width, *spec.mlp_units)))
    activation = "ReLU" if spec.activation == "relu" else "GELU"
    if activation == "GELU" and spec.block == "keras" and spec.gelu == "tanh":
        activation = "GELU (tanh)"
    mlp = f"{widths}, {activation}"
    attention = Box(
        "Norm, self-attention", heads, tokens, counts["attention"], "block", residual=True
    )
    if spec.block == "keras":
        return [
            attention,
            Box("Norm, MLP", mlp, tokens, counts["mlp"], "block", residual=True),
        ]
    # The paper's second norm is on the residual stream itself.
    return [
        attention,
        Box("Layer normalization", "", tokens, norm, "block"),
        Box("MLP", mlp, tokens, counts["mlp"] - norm, "block", residual=True),
    ]


def draw_architecture(spec: ModelSpec, path: Path) -> None:
    """Writes the diagram of an architecture to ``path`` (PNG).

    Raises:
        InvalidModel: the image is too small for the tokenizer.
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = boxes(spec)
    height = len(rows) * (_ROW + _GAP) + 0.75
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    _draw_header(axes, spec)
    tops = [0.72 + index * (_ROW + _GAP) for index in range(len(rows))]
    block = [top for box, top in zip(rows, tops, strict=True) if box.group == "block"]
    if block:
        _draw_frame(axes, block[0], block[-1] + _ROW, spec.layers)
    for index, (box, top) in enumerate(zip(rows, tops, strict=True)):
        _draw_box(axes, box, top, repeated=spec.layers > 1)
        if index:
            _draw_arrow(axes, top)
        if box.residual:
            _draw_residual(axes, top)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", facecolor="white")


def _draw_header(axes: "Axes", spec: ModelSpec) -> None:
    """Draws the name, the number of parameters, and the titles of the columns."""
    name = printable(spec.name)
    name = name if len(name) <= 26 else f"{name[:25]}…"
    # A $ in the name does not start a formula.
    axes.text(_LEFT, 0.36, name, fontsize=12, weight="bold", color=_INK, parse_math=False)
    total = f"{parameter_count(spec):,} parameters"
    axes.text(_RIGHT, 0.36, total, fontsize=9, ha="right", color=_FAINT)
    for x, text in ((_SHAPE, "output"), (_COUNT, "parameters")):
        axes.text(x, 0.36, text, fontsize=8, ha="right", color=_FAINT)


def _draw_box(axes: "Axes", box: Box, top: float, repeated: bool) -> None:
    """Draws a box with its shape and parameters beside it."""
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (_LEFT, top), _RIGHT - _LEFT, _ROW, boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=_FILLS[box.group], edgecolor=_INK, linewidth=0.8,
        )
    )  # fmt: skip
    count = f"{box.parameters:,}" if box.parameters else "–"
    if repeated and box.group == "block":
        count += " each"
    shape = " × ".join(map(str, box.shape))
    for x, text, size, align in (
        (_LEFT + 0.14, box.title, 10, "left"),
        (_RIGHT - 0.14, box.detail, 8.5, "right"),
        (_SHAPE, shape, 9, "right"),
        (_COUNT, count, 9, "right"),
    ):
        axes.text(x, top + _ROW / 2, text, fontsize=size, va="center", ha=align, color=_INK)


def _draw_arrow(axes: "Axes", top: float) -> None:
    """Draws an arrow down to the box at ``top``."""
    middle = (_LEFT + _RIGHT) / 2
    style = {"arrowstyle": "-|>", "color": _INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (middle, top), (middle, top - _GAP), arrowprops=style)


def _draw_residual(axes: "Axes", top: float) -> None:
    """Draws the residual connection from above a box to a plus below it."""
    from matplotlib.patches import Circle

    middle, left = (_LEFT + _RIGHT) / 2, _LEFT - _RESIDUAL
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


def _draw_frame(axes: "Axes", top: float, bottom: float, blocks: int) -> None:
    """Draws the dashed frame around the repeated block, with the number of repetitions."""
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
