"""The drawing of named dots, with intervals and a line through some of them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple
from xml.etree.ElementTree import Element

from cct_export.report.charts.axes import Scale, height_of, horizontal, vertical
from cct_export.report.charts.placement import Box, Marker, Room, place_names
from cct_export.report.charts.svg import drawing, element, percent, tooltip

# Pixels from the top: the plot, and what is below it.
_TOP, _BOTTOM, _HEIGHT = 30, 370, 410
# The plot on pages of different widths; page.css shows the names of one of them.
_ROOMS = {
    "narrow": Room(_TOP, _BOTTOM, (225.0, 265.0)),
    "medium": Room(_TOP, _BOTTOM, (255.0, 590.0)),
    "wide": Room(_TOP, _BOTTOM, (570.0, 1280.0)),
}
_MAX_RADIUS, _MIN_RADIUS = 14.0, 4.0
# How many dots have markers of that size.
_FEW = 4
# Room beyond the outermost dots: the narrowest plot has the largest marker in it.
_PADDING = 0.12
# A line to the next dot is avoided as so many boxes.
_BOXES = 24


class Dot(NamedTuple):
    """A dot.

    Attributes:
        x: value on the horizontal axis, above 0.
        y: value on the vertical axis.
        interval: bounds of ``y``; None for no line through the dot.
        area: of the marker, 0 to 1.
        colour: of marker and interval.
        names: what to write beside it, the first that has room.
        text: of the tooltip.
    """

    x: float
    y: float
    interval: tuple[float, float] | None
    area: float
    colour: str
    names: Sequence[str]
    text: str


class _Drawn(NamedTuple):
    """A dot, its marker, and the box of its interval if it has one."""

    dot: Dot
    marker: Marker
    interval: Box | None


def scatter(dots: Sequence[Dot], joined: Sequence[int], *, x_title: str, y_title: str) -> str:
    """Returns the drawing.

    Args:
        dots: to draw; the horizontal axis is logarithmic if they are far apart.
        joined: indices of those that a line joins, in its order.
        x_title: of the horizontal axis, with the unit.
        y_title: of the vertical axis, with the unit.
    """
    xs = [dot.x for dot in dots]
    ys = [value for dot in dots for value in (dot.y, *(dot.interval or ()))]
    across = Scale.around(xs, padding=_PADDING, logarithmic=max(xs) > 8 * min(xs))
    up = Scale.around(ys, padding=_PADDING)
    # Many large markers would leave no room for names.
    largest = _MAX_RADIUS * min(1.0, sqrt(_FEW / len(dots)))
    drawn = [_drawn(dot, largest, across, up) for dot in dots]
    pairs = list(pairwise([drawn[index].marker for index in joined]))
    markers = [item.marker for item in drawn]
    lines = [item.interval for item in drawn if item.interval]
    lines += [box for a, b in pairs for box in _line_boxes(a, b)]
    return drawing(
        *vertical(up, y_title, top=_TOP, bottom=_BOTTOM),
        *horizontal(across, x_title, top=_TOP, bottom=_BOTTOM),
        *(
            element("line", class_="mark", x1=percent(a.x), y1=a.y, x2=percent(b.x), y2=b.y)
            for a, b in pairs
        ),
        # Small markers lie on top.
        *map(_dot, sorted(drawn, key=lambda item: -item.marker.radius)),
        *(
            element("g", *_names(markers, room, lines), class_=f"names {pages}")
            for pages, room in _ROOMS.items()
        ),
        height=_HEIGHT,
        layout="axes",
    )


def _drawn(dot: Dot, largest: float, across: Scale, up: Scale) -> _Drawn:
    """Returns a dot on its scales; ``largest`` is the radius for an area of 1, in pixels."""
    x = across.share(dot.x)
    y, *bounds = (
        height_of(up, value, top=_TOP, bottom=_BOTTOM) for value in (dot.y, *(dot.interval or ()))
    )
    radius = max(_MIN_RADIUS, largest * sqrt(dot.area))
    interval = Box(x, -1.0, 1.0, min(bounds), max(bounds)) if bounds else None
    return _Drawn(dot, Marker(x, y, radius, dot.names), interval)


def _line_boxes(a: Marker, b: Marker) -> Iterator[Box]:
    """Yields boxes along the line from one marker to another."""
    for index in range(_BOXES + 1):
        share = index / _BOXES
        y = a.y + share * (b.y - a.y)
        yield Box(a.x + share * (b.x - a.x), -2.0, 2.0, y - 2, y + 2)


def _dot(item: _Drawn) -> Element:
    dot, marker, interval = item
    x = percent(marker.x)
    parts = [tooltip(dot.text)]
    if interval:
        y1, y2 = interval.top, interval.bottom
        parts.append(element("line", x1=x, x2=x, y1=y1, y2=y2, stroke=dot.colour))
    parts.append(element("circle", cx=x, cy=marker.y, r=marker.radius))
    return element("g", *parts, class_="point", fill=dot.colour)


def _names(markers: Sequence[Marker], room: Room, lines: Sequence[Box]) -> Iterator[Element]:
    """Yields the names of markers, with lines to those that are away from them."""
    for marker, place in zip(markers, place_names(markers, room, lines), strict=True):
        if place is None:
            continue
        x = percent(marker.x)
        if place.leader is not None:
            y1, y2 = place.leader
            yield element("line", class_="leader", x1=x, x2=x, y1=y1, y2=y2)
        side = f"{place.anchor} label"
        yield element("text", x=x, dx=place.dx, y=place.y + 4, class_=side, text=place.name)
