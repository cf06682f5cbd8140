"""The picture of the README: latency as bars, stock beside ours, with the accuracy of each."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from record import Results

# Format, our scheme, and how the pair is labelled.
PAIRS = (
    ("tflite", "none", "TFLite float32"),
    ("tflite", "int8", "TFLite int8"),
    ("onnx", "none", "ONNX float32"),
    ("onnx", "int8", "ONNX int8"),
)
STOCK_COLOUR, OUR_COLOUR, TEXT_COLOUR, BACKGROUND = "#9aa0a6", "#c2334d", "#202124", "#f6f7f8"
# Inches: on a phone, 360 pixels wide, a letter of 13 points is as high as 11 pixels.
SIZE = (6.0, 7.8)
DPI = 200
TEXT_PT = 13
# Where a PNG file keeps the figures that it shows.
DIGEST_KEY = "Comment"


@dataclass(frozen=True)
class Bar:
    """One file.

    Attributes:
        model: its model.
        label: format and precision.
        converter: ``stock`` or ``cct-export``.
        ms: median latency.
        top1: accuracy in percent.
    """

    model: str
    label: str
    converter: str
    ms: float
    top1: float

    @property
    def text(self) -> str:
        """The figures of the bar."""
        return f"{self.ms:.2f} ms, {self.top1:.1f} %"


def bars(all_results: list[Results]) -> list[Bar]:
    """Returns the bars from top to bottom: stock, then ours, of each pair that is complete."""
    drawn = []
    for results in all_results:
        for format, scheme, label in PAIRS:
            ours = results.file(f"cct-export {format} {scheme}")
            stock = ours and results.file(ours.baseline)
            if ours is None or stock is None:
                continue
            for converter, file in (("stock", stock), ("cct-export", ours)):
                ms, top1 = file.median_ms(results.threads), 100 * file.accuracy.top1
                drawn.append(Bar(results.model, label, converter, ms, top1))
    return drawn


def digest(all_results: list[Results]) -> str:
    """Returns a checksum of everything that the picture shows."""
    return hashlib.sha256(repr(bars(all_results)).encode()).hexdigest()


def draw(all_results: list[Results], path: Path) -> None:
    """Draws a panel for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": TEXT_PT, "text.color": TEXT_COLOUR}):
        figure, panels = plt.subplots(
            len(all_results), 1, figsize=SIZE, layout="constrained", facecolor=BACKGROUND,
            squeeze=False,
        )  # fmt: skip
        every = bars(all_results)
        longest = max((bar.ms for bar in every), default=1)
        for results, axes in zip(all_results, panels[:, 0], strict=True):
            _panel(axes, [bar for bar in every if bar.model == results.model], longest)
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
        _legend(figure)
        figure.savefig(path, dpi=DPI, metadata={DIGEST_KEY: digest(all_results)})
        plt.close(figure)


def _legend(figure: object) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=STOCK_COLOUR), Patch(color=OUR_COLOUR)]
    labels = ["stock converter", "cct-export"]
    figure.legend(
        handles, labels, title="Latency of one image, top-1 accuracy", title_fontsize=TEXT_PT + 1,
        loc="outside upper center", ncols=2, frameon=False,
    )  # fmt: skip


def _panel(axes: object, panel: list[Bar], longest: float) -> None:
    labels = list(dict.fromkeys(bar.label for bar in panel))
    for bar in panel:
        ours = bar.converter == "cct-export"
        y = labels.index(bar.label) + (0.2 if ours else -0.2)
        colour = OUR_COLOUR if ours else STOCK_COLOUR
        axes.barh(y, bar.ms, height=0.38, color=colour)
        weight = "bold" if ours else "normal"
        axes.text(bar.ms + longest / 60, y, bar.text, va="center", weight=weight)
    axes.set_yticks(range(len(labels)), [label.replace(" ", "\n") for label in labels])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * longest)
    axes.set_facecolor(BACKGROUND)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(panel[0].model if panel else "", loc="left", weight="bold", fontsize=TEXT_PT + 1)
