"""What all charts have in common: a title and a text, colours, and how long names are shown."""

from dataclasses import dataclass

from cct_export.report.columns import NONE
from cct_export.text import one_line

# Custom properties of page.css, which follow the colour scheme.
SERIES = tuple(f"var(--series-{index})" for index in range(1, 7))
MUTED = "var(--muted)"
_MAX_LENGTH = 60


@dataclass(frozen=True)
class Chart:
    """A chart, the same as text, and the table of its figures.

    Attributes:
        title: of the chart.
        text: what it shows, for readers who cannot see it.
        drawing: the chart as an SVG element.
        legend: names of series with their colours; empty where there is one series.
        header: of the table of figures; empty for no table.
        body: rows of that table.
        note: how to read the chart; may be empty.
    """

    title: str
    text: str
    drawing: str
    legend: tuple[tuple[str, str], ...] = ()
    header: tuple[str, ...] = ()
    body: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether a column of the table has numbers only, by index."""
        return [
            bool(self.body) and all(row[i] == NONE or row[i][:1].isdigit() for row in self.body)
            for i in range(len(self.header))
        ]


def series_colour(index: int) -> str:
    """Returns the colour of a series; the seventh has that of the first."""
    return SERIES[index % len(SERIES)]


def shortened(text: str, max_length: int = _MAX_LENGTH) -> str:
    """Returns ``text`` on one line, without its middle where it is too long.

    Args:
        text: from anywhere.
        max_length: characters above which the middle is left out.
    """
    line = one_line(text)
    if len(line) <= max_length:
        return line
    head = (max_length - 1) // 2
    return f"{line[:head]}…{line[head + 1 - max_length :]}"
