"""What every chart has, and what all of them look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cct_export.report.words import printable

# Custom properties of page.css. The script of the page puts in what the colour scheme says.
SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
INK, MUTED, GRID, PAPER = "var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_LONGEST = 60


@dataclass(frozen=True)
class Chart:
    """A chart and its text.

    Attributes:
        title: above it.
        text: what it shows, for who does not see it.
        figure: ``data`` and ``layout`` for plotly.js, with colours as custom properties.
        height: pixels.
        header: of the table with the same figures; empty for none.
        body: rows of that table.
        note: what to know before believing the figures; empty for nothing.
    """

    title: str
    text: str
    figure: dict[str, Any]
    height: int
    header: tuple[str, ...] = ()
    body: tuple[tuple[str, ...], ...] = ()
    note: str = ""


def figure(traces: Sequence[dict[str, Any]], layout: dict[str, Any], height: int) -> dict[str, Any]:
    """Returns what plotly.js draws, checked against its schema.

    Args:
        traces: with ``type``; arrays as lists, because others become base64.
        layout: on top of what all charts share.
        height: pixels.

    Raises:
        ValueError: an attribute that plotly.js does not have.
    """
    from plotly import graph_objects

    drawn = graph_objects.Figure(list(traces), _layout(height))
    drawn.update_layout(layout)
    found: dict[str, Any] = drawn.to_plotly_json()
    # Ours says everything; the default one would say it again in each chart.
    found["layout"].pop("template", None)
    return found


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Returns an axis as all charts have it.

    Args:
        title: of the axis; empty for none.
        **more: what plotly.js calls the rest.
    """
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def _layout(height: int) -> dict[str, Any]:
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


def literal(text: str, longest: int = _LONGEST) -> str:
    """Returns ``text`` such that Plotly, which reads tags and entities, shows it as it is.

    Args:
        text: from anywhere.
        longest: characters above which the middle is left out.
    """
    line = printable(text)
    if len(line) > longest:
        head = (longest - 1) // 2
        line = f"{line[:head]}…{line[head + 1 - longest :]}"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
