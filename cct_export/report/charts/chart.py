"""What all charts have in common: a title and a text, a look, and the escaping of names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cct_export.report.columns import NONE
from cct_export.specs import JSONObject
from cct_export.text import one_line

# Custom properties of page.css: page.js replaces them by the colours of the colour scheme.
SERIES = tuple(f"var(--series-{index})" for index in range(1, 7))
INK, MUTED, GRID, PAPER = "var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_MAX_LENGTH = 60


@dataclass(frozen=True)
class Chart:
    """A chart, the same as text, and the table of its figures.

    Attributes:
        title: of the chart.
        text: what it shows, for readers who cannot see it.
        figure: ``data`` and ``layout`` for plotly.js, with custom properties for colours.
        height: pixels.
        header: of the table of figures; empty for no table.
        body: rows of that table.
        note: how to read the chart; may be empty.
    """

    title: str
    text: str
    figure: JSONObject
    height: int
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


def figure(traces: Sequence[JSONObject], layout: JSONObject, height: int) -> JSONObject:
    """Returns a figure for plotly.js, validated by its schema.

    Args:
        traces: with ``type``; arrays as lists, since others become base64.
        layout: what differs from the layout of all charts.
        height: pixels.

    Raises:
        ValueError: an attribute that plotly.js does not have.
    """
    from plotly import graph_objects

    validated = graph_objects.Figure(list(traces), _layout(height))
    validated.update_layout(layout)
    fields: JSONObject = validated.to_plotly_json()
    # The layout is complete; the default template would repeat itself in every chart.
    fields["layout"].pop("template", None)
    return fields


def axis(title: str = "", **attributes: Any) -> JSONObject:
    """Returns an axis in the look of all charts.

    Args:
        title: of the axis; empty for none.
        **attributes: others of plotly.js.
    """
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        **attributes,
    }


def _layout(height: int) -> JSONObject:
    return {
        "template": "none",
        "autosize": True,
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8, "pad": 4},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12, "color": MUTED},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": GRID, "font": {"color": INK}},
        # A finger that scrolls the page must not zoom a chart.
        "dragmode": False,
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": axis(),
        "yaxis": axis(),
    }


def literal(text: str, max_length: int = _MAX_LENGTH) -> str:
    """Returns ``text`` escaped for Plotly, which reads tags and entities.

    Args:
        text: from anywhere.
        max_length: characters above which the middle is left out.
    """
    line = one_line(text)
    if len(line) > max_length:
        head = (max_length - 1) // 2
        line = f"{line[:head]}…{line[head + 1 - max_length :]}"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
