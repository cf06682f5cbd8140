"""How latency changes under sustained load."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from cct_export.records import Sustained
from cct_export.report.charts.axes import Scale, height_of, horizontal, vertical
from cct_export.report.charts.chart import Chart, series_colour
from cct_export.report.charts.svg import drawing, element, percent, tooltip
from cct_export.report.columns import milliseconds, number

# Pixels above the first panel, of a panel, from one to the next, and below the last.
_TOP, _PANEL, _STEP, _BELOW = 24, 90, 130, 40
# Horizontal units of the lines, which are stretched to the width of the chart.
_UNITS = 1000
# More bands that show a tooltip would be too narrow for a pointer.
_MAX_BANDS = 40


class _Line(NamedTuple):
    """A quantity over time; None where it is not known."""

    panel: str
    name: str
    values: Sequence[float | None]


def sustained(name: str, measured: Sustained) -> Chart:
    """Returns latency over time, and below it temperature and frequency where they are known."""
    minutes = [measured.interval_s * (index + 1) / 60 for index in range(len(measured.p50_ms))]
    lines = [
        _Line("ms", "p50", measured.p50_ms),
        _Line("ms", "p90", measured.p90_ms),
        _Line("°C", "temperature", measured.temperature_c),
        _Line("MHz", "frequency", measured.frequency_mhz),
    ]
    lines = [line for line in lines if any(value is not None for value in line.values)]
    rows = list(zip(minutes, *(line.values for line in lines), strict=True))
    first, last = measured.p50_ms[0], measured.p50_ms[-1]
    return Chart(
        title=name,
        text=f"Latency of {name} over {minutes[-1]:.1f} minutes of sustained load: p50 from "
        f"{milliseconds(first)} ms in the first interval to {milliseconds(last)} ms in the last.",
        drawing=_drawing(minutes, lines),
        legend=tuple((line.name, series_colour(index)) for index, line in enumerate(lines)),
        header=("minute", *(line.name for line in lines)),
        body=tuple(
            (f"{minute:.1f}", *(number(value, ",.3f") for value in row)) for minute, *row in rows
        ),
        note=f"p50 changed by {last / first - 1:+.1%} from the first interval to the last.",
    )


def _drawing(minutes: Sequence[float], lines: Sequence[_Line]) -> str:
    """Returns panels one above the other that share their time axis."""
    across = Scale(0.0, minutes[-1])
    panels = list(dict.fromkeys(line.panel for line in lines))
    bottom = _TOP + _STEP * (len(panels) - 1) + _PANEL
    drawn: list[Element] = []
    for index, panel in enumerate(panels):
        top = _TOP + _STEP * index
        members = [(series, line) for series, line in enumerate(lines) if line.panel == panel]
        known = [value for _, line in members for value in line.values if value is not None]
        up = Scale.around(known, padding=0.1)
        drawn += vertical(up, panel, top=top, bottom=top + _PANEL)
        for series, line in members:
            heights = [
                None if value is None else height_of(up, value, top=top, bottom=top + _PANEL)
                for value in line.values
            ]
            points = [
                (_UNITS * across.share(minute), height)
                for minute, height in zip(minutes, heights, strict=True)
            ]
            drawn.append(_line(points, series_colour(series), bottom))
    drawn += horizontal(across, "minutes", top=_TOP, bottom=bottom, grid=False)
    drawn += _bands(minutes, lines, bottom)
    return drawing(*drawn, height=bottom + _BELOW, layout="axes")


def _line(points: Sequence[tuple[float, float | None]], colour: str, height: float) -> Element:
    """Returns a line through ``points``, with gaps where there is no y."""
    commands, command = [], "M"
    for x, y in points:
        if y is None:
            command = "M"
            continue
        # A point between two gaps is a dot.
        commands.append(f"{command}{x:.1f} {y:.1f}" + ("h0" if command == "M" else ""))
        command = "L"
    path = element("path", class_="line", stroke=colour, d="".join(commands))
    return element(
        "svg", path, viewBox=f"0 0 {_UNITS} {height}", preserveAspectRatio="none", height=height
    )


def _bands(minutes: Sequence[float], lines: Sequence[_Line], bottom: float) -> Iterator[Element]:
    """Yields invisible bands whose tooltips are the values of the interval that they begin with."""
    intervals = len(minutes)
    step = -(-intervals // _MAX_BANDS)
    for index in range(0, intervals, step):
        values = ", ".join(
            f"{line.name} {number(line.values[index], ',.3f')} {line.panel}" for line in lines
        )
        yield element(
            "rect",
            tooltip(f"{minutes[index]:.1f} minutes: {values}"),
            class_="band",
            x=percent(index / intervals),
            width=percent(min(step, intervals - index) / intervals),
            y=_TOP,
            height=bottom - _TOP,
        )
