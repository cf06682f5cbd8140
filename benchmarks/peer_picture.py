"""The picture of the peers: latency against SQNR, a panel for each model."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from peer_record import PeerResults
from picture import BACKGROUND, DIGEST_KEY, DPI, OUR_COLOUR, STOCK_COLOUR, TEXT_COLOUR

PEER_COLOUR = "#2b6cb0"
# Inches. The names need the width that a phone has.
WIDTH, PANEL_HEIGHT = 7.0, 5.2
TEXT_PT = 10
MARKERS = {"float32": "o", "bf16": "D", "fp16": "D", "int8": "s"}
# A label goes above or below the last ones where it would cover them: in points.
LINE_PT = 11.0


@dataclass(frozen=True)
class Point:
    """One file in one engine.

    Attributes:
        name: of its row.
        precision: what its engine computes in.
        ms: median latency.
        sqnr_db: of its logits.
    """

    name: str
    precision: str
    ms: float
    sqnr_db: float

    @property
    def colour(self) -> str:
        """By who made the file."""
        if self.name.startswith("cct-export"):
            return OUR_COLOUR
        return STOCK_COLOUR if self.name.startswith("stock") else PEER_COLOUR


def points(results: PeerResults) -> list[Point]:
    """Returns a point for every row with figures."""
    return [
        Point(row.name, row.precision, row.median_ms, row.parity.sqnr_db)
        for row in results.measured
    ]


def digest(all_results: list[PeerResults]) -> str:
    """Returns a checksum of everything that the picture shows."""
    shown = [(results.model, points(results)) for results in all_results]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def draw(all_results: list[PeerResults], path: Path) -> None:
    """Draws a panel for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": TEXT_PT, "text.color": TEXT_COLOUR}):
        figure, panels = plt.subplots(
            len(all_results), 1, figsize=(WIDTH, PANEL_HEIGHT * len(all_results)),
            layout="constrained", facecolor=BACKGROUND, squeeze=False,
        )  # fmt: skip
        for results, axes in zip(all_results, panels[:, 0], strict=True):
            _panel(axes, results.model, points(results))
        _legend(figure)
        figure.savefig(path, dpi=DPI, metadata={DIGEST_KEY: digest(all_results)})
        plt.close(figure)


def _panel(axes: object, model: str, panel: list[Point]) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    axes.set_facecolor(BACKGROUND)
    axes.set_title(model, loc="left", weight="bold")
    axes.set_xscale("log")
    for point in panel:
        axes.plot(
            point.ms, point.sqnr_db, MARKERS[point.precision], color=point.colour, markersize=8
        )
    low, high = min(p.ms for p in panel), max(p.ms for p in panel)
    # Room for names at the right.
    axes.set_xlim(low / 1.15, high * (high / low) ** 0.45 * 1.3)
    axes.margins(y=0.08)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low / 1.15 <= tick])
    axes.set_xlim(low / 1.15, high * (high / low) ** 0.45 * 1.3)
    axes.set_xlabel("ms for one image (left is faster)")
    axes.set_ylabel("SQNR of the logits, dB (higher is closer to Keras)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for point, shift in _labelled(axes, panel):
        axes.annotate(
            point.name, (point.ms, point.sqnr_db), (9, shift), textcoords="offset points",
            va="center", fontsize=TEXT_PT - 2, color=point.colour,
            weight="bold" if point.colour == OUR_COLOUR else "normal",
        )  # fmt: skip


def _labelled(axes: object, panel: list[Point]) -> list[tuple[Point, float]]:
    """Returns how far to move each name up, so that none covers another."""
    axes.figure.canvas.draw()
    scale = 72 / axes.figure.dpi
    placed: list[tuple[float, float, float]] = []
    shifts = []
    for point in sorted(panel, key=lambda each: (each.sqnr_db, each.ms)):
        x, y = (scale * float(v) for v in axes.transData.transform((point.ms, point.sqnr_db)))
        width = 0.55 * (TEXT_PT - 2) * len(point.name) + 12
        up = 0.0
        while any(
            abs(y + up - other) < LINE_PT and x < end and begin < x + width
            for begin, end, other in placed
        ):
            up += 1
        placed.append((x, x + width, y + up))
        shifts.append((point, up))
    return shifts


def _legend(figure: object) -> None:
    from matplotlib.lines import Line2D

    def marker(shape: str, colour: str, label: str) -> object:
        return Line2D([], [], marker=shape, color=colour, linestyle="", label=label)

    handles = [
        marker("o", OUR_COLOUR, "cct-export"), marker("o", PEER_COLOUR, "other engines"),
        marker("o", STOCK_COLOUR, "stock converters"), marker("o", TEXT_COLOUR, "float32"),
        marker("D", TEXT_COLOUR, "16 bits"), marker("s", TEXT_COLOUR, "int8"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
