"""The picture of the peers: latency as bars, with the SQNR of each, a panel for each model."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from peer_record import PeerResults
from picture import BACKGROUND, DIGEST_KEY, DPI, OUR_COLOUR, STOCK_COLOUR, TEXT_COLOUR

PEER_COLOUR = "#2b6cb0"
# Inches.
WIDTH, BAR_HEIGHT, MARGIN = 7.0, 0.25, 1.0
TEXT_PT = 11
# Groups from top to bottom.
PRECISIONS = ("float32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Bar:
    """One file in one engine.

    Attributes:
        name: of its row.
        precision: what its engine computes in.
        ms: lowest latency, which other programs disturb least.
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


def bars(results: PeerResults) -> list[Bar]:
    """Returns a bar for every row with figures: by precision, the fastest first."""
    drawn = [
        Bar(row.name, row.precision, row.minimum_ms, row.parity.sqnr_db) for row in results.measured
    ]
    return sorted(drawn, key=lambda bar: (PRECISIONS.index(bar.precision), bar.ms))


def digest(all_results: list[PeerResults]) -> str:
    """Returns a checksum of everything that the picture shows."""
    shown = [(results.model, bars(results)) for results in all_results]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def draw(all_results: list[PeerResults], path: Path) -> None:
    """Draws a panel for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    heights = [MARGIN + BAR_HEIGHT * len(results.measured) for results in all_results]
    with plt.rc_context({"font.size": TEXT_PT, "text.color": TEXT_COLOUR}):
        figure, panels = plt.subplots(
            len(all_results), 1, figsize=(WIDTH, sum(heights)), height_ratios=heights,
            layout="constrained", facecolor=BACKGROUND, squeeze=False,
        )  # fmt: skip
        for results, axes in zip(all_results, panels[:, 0], strict=True):
            _panel(axes, results.model, bars(results))
        _legend(figure)
        figure.savefig(path, dpi=DPI, metadata={DIGEST_KEY: digest(all_results)})
        plt.close(figure)


def _panel(axes: object, model: str, panel: list[Bar]) -> None:
    longest = max((bar.ms for bar in panel), default=1)
    places, place, above = [], 0.0, ""
    for bar in panel:
        place += 1.0 if bar.precision == above or not above else 1.5  # space between groups
        places.append(place)
        above = bar.precision
    for y, bar in zip(places, panel, strict=True):
        weight = "bold" if bar.colour == OUR_COLOUR else "normal"
        axes.barh(y, bar.ms, height=0.8, color=bar.colour)
        text = f"{bar.ms:.2f} ms, {bar.sqnr_db:.0f} dB"
        axes.text(bar.ms + longest / 80, y, text, va="center", weight=weight)
    axes.set_yticks(places, [bar.name for bar in panel])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 1.45 * longest)
    axes.set_facecolor(BACKGROUND)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(model, loc="left", weight="bold", fontsize=TEXT_PT + 1)


def _legend(figure: object) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour) for colour in (OUR_COLOUR, PEER_COLOUR, STOCK_COLOUR)]
    figure.legend(
        handles, ["cct-export", "other engines", "stock converters"],
        title="Lowest latency of one image, SQNR of its logits", ncols=3, frameon=False,
        loc="outside upper center",
    )  # fmt: skip
