"""Places for names in a chart, where none covers another.

A chart has no fixed width. A name is as wide as its text on any screen, and moves with its marker,
so the distance of two names is a linear function of the width of the chart: if one is left of the
other in the narrowest and in the widest chart, it is in all between.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from cct_export.report.charts.svg import LINE_HEIGHT, text_width

# Pixels between a name and what is beside it, and from one try to the next.
_GAP, _STEP = 4.0, LINE_HEIGHT / 2
# A name farther off is read with another marker. Those of a crowd have no room anyway, and are not
# worth the time: all markers together get so many steps, but each the least.
_MAX_STEPS, _MIN_STEPS, _ALL_STEPS = 20, 4, 400
# How many steps away from the marker are as bad as covering a line, and as taking all places of
# another name; the latter is tried until all names have a place.
_COST_OF_LINE, _COSTS_OF_ROOM = 4.0, (0.0, 10.0, 40.0, 150.0)

Anchor = Literal["start", "middle", "end"]


class Marker(NamedTuple):
    """A point of a chart that gets a name.

    Attributes:
        x: share of the width of the chart, 0 to 1.
        y: pixels from the top of the chart.
        radius: pixels.
        names: what to write beside it; where the first has no room, the second, and so on.
    """

    x: float
    y: float
    radius: float
    names: Sequence[str]


class Room(NamedTuple):
    """Where names may be, in pixels.

    Attributes:
        top: of the plot, from the top of the chart.
        bottom: of the plot, from there too.
        widths: of the narrowest and the widest plot.
    """

    top: float
    bottom: float
    widths: tuple[float, float]


class Place(NamedTuple):
    """Where the name of a marker is.

    Attributes:
        name: text that has room there.
        dx: pixels from the middle of the marker to the anchor.
        y: of the middle of the text, pixels from the top of the chart.
        anchor: which end of the text is at ``dx``.
        leader: y of both ends of a line from the marker; None for a name beside the marker.
    """

    name: str
    dx: float
    y: float
    anchor: Anchor
    leader: tuple[float, float] | None = None


class Box(NamedTuple):
    """A box that moves with the width of the chart.

    Attributes:
        x: share of that width, 0 to 1.
        left: edge, pixels from ``x``.
        right: edge, pixels from ``x``.
        top: edge, pixels from the top of the chart.
        bottom: edge, pixels from the top of the chart.
    """

    x: float
    left: float
    right: float
    top: float
    bottom: float


class _Options(NamedTuple):
    """Places for names in the plot where they cover no marker.

    Attributes:
        places: of all names of all markers.
        owners: index of the marker of each.
        ranks: which of its names it is.
        costs: how far each is from the marker, in steps, and whether it covers a line.
        conflicts: whether two of them cover each other.
    """

    places: list[Place]
    owners: np.ndarray
    ranks: np.ndarray
    costs: np.ndarray
    conflicts: np.ndarray


def place_names(
    markers: Sequence[Marker], room: Room, lines: Sequence[Box] = ()
) -> list[Place | None]:
    """Returns a place for the name of each marker; None where there is no room at all.

    Names are in the plot, and cover neither each other nor a marker. What has the fewest places
    left comes next, and takes one that is near and leaves the others theirs.

    Args:
        markers: in any order.
        room: where names may be.
        lines: what a name covers only where there is no other place near its marker.
    """
    options = _options(markers, room, lines)
    attempts = []
    for cost_of_room in _COSTS_OF_ROOM:
        places = _places(markers, options, cost_of_room)
        attempts.append(places)
        if _unnamed(markers, places) == 0:
            break
    return min(attempts, key=lambda places: _unnamed(markers, places))


def _unnamed(markers: Sequence[Marker], places: Sequence[Place | None]) -> int:
    """Returns how many markers have not the first of their names."""
    return sum(
        place is None or place.name != marker.names[0]
        for marker, place in zip(markers, places, strict=True)
    )


def _places(
    markers: Sequence[Marker], options: _Options, cost_of_room: float
) -> list[Place | None]:
    """Returns a place for each marker: first names, then what is to be written in their place."""
    chosen: list[Place | None] = [None] * len(markers)
    free = np.ones(len(options.places), bool)
    for rank in range(max((len(marker.names) for marker in markers), default=0)):
        waiting = np.array([place is None for place in chosen])
        while (possible := free & (options.ranks == rank) & waiting[options.owners]).any():
            best = _next(options, possible, len(markers), cost_of_room)
            chosen[options.owners[best]] = options.places[best]
            waiting[options.owners[best]] = False
            free &= ~options.conflicts[best]
    return chosen


def _next(options: _Options, possible: np.ndarray, markers: int, cost_of_room: float) -> int:
    """Returns the index of the place to take next, among those that are ``possible``."""
    counts = np.bincount(options.owners[possible], minlength=markers)
    owner = int(np.argmin(np.where(counts, counts, np.inf)))
    own = np.flatnonzero(possible & (options.owners == owner))
    others = np.flatnonzero(possible & (options.owners != owner))
    weights = (1 / counts[options.owners[others]]).astype(np.float32)
    lost = options.conflicts[np.ix_(own, others)].astype(np.float32) @ weights
    return int(own[np.argmin(options.costs[own] + cost_of_room * lost)])


def _options(markers: Sequence[Marker], room: Room, lines: Sequence[Box]) -> _Options:
    """Returns the places that are in the plot and clear of all markers."""
    farthest = max(_MIN_STEPS, min(_MAX_STEPS, _ALL_STEPS // max(len(markers), 1)))
    candidates = [
        (owner, rank, distance, place)
        for owner, marker in enumerate(markers)
        for rank, name in enumerate(marker.names)
        for distance, place in _candidates(marker, name, _MIN_STEPS if rank else farthest)
    ]
    text = _edges([_text_box(markers[owner], place) for owner, _, _, place in candidates], room)
    leaders = _edges(
        [_leader_box(markers[owner], place) for owner, _, _, place in candidates], room
    )
    owners, ranks, costs = (np.array([c[i] for c in candidates], float) for i in range(3))
    costs += _COST_OF_LINE * ~_apart(text, _edges(lines, room)).all(axis=1)
    discs = _edges([_marker_box(marker) for marker in markers], room)
    clear = _apart(text, discs) & (
        _apart(leaders, discs) | (owners[:, None] == np.arange(len(markers)))
    )
    kept = np.flatnonzero(clear.all(axis=1) & _within(text, room))
    text, leaders = text[kept], leaders[kept]
    apart = _apart(text, text) & _apart(text, leaders) & _apart(leaders, leaders)
    return _Options(
        [candidates[index][3] for index in kept],
        owners[kept].astype(int),
        ranks[kept].astype(int),
        costs[kept],
        ~(apart & apart.T),
    )


def _candidates(marker: Marker, name: str, steps: int) -> Iterator[tuple[int, Place]]:
    """Yields places for a name, beside its marker and above and below, with their distance."""
    beside = marker.radius + _GAP
    yield 0, Place(name, beside, marker.y, "start")
    yield 0, Place(name, -beside, marker.y, "end")
    for step in range(steps):
        for side in (-1, 1):
            edge = marker.y + side * marker.radius
            y = edge + side * _STEP * (step + 1)
            # The line ends where the text begins.
            leader = (edge, y - side * _STEP) if step else None
            yield step + 1, Place(name, _GAP, y, "start", leader)
            yield step + 1, Place(name, -_GAP, y, "end", leader)
            yield step + 1, Place(name, 0.0, y, "middle", leader)


def _marker_box(marker: Marker) -> Box:
    radius = marker.radius
    return Box(marker.x, -radius, radius, marker.y - radius, marker.y + radius)


def _text_box(marker: Marker, place: Place) -> Box:
    width = text_width(place.name)
    left = place.dx - {"start": 0.0, "middle": width / 2, "end": width}[place.anchor]
    return Box(marker.x, left, left + width, place.y - _STEP, place.y + _STEP)


def _leader_box(marker: Marker, place: Place) -> Box:
    """Returns the box of the line to a name, that of the name where there is none."""
    if place.leader is None:
        return _text_box(marker, place)
    return Box(marker.x, -1.0, 1.0, min(place.leader), max(place.leader))


def _edges(boxes: Sequence[Box], room: Room) -> np.ndarray:
    """Returns a row per box: left and right in the narrowest and the widest plot, top, bottom."""
    return np.array(
        [
            (
                *(box.x * width + edge for edge in (box.left, box.right) for width in room.widths),
                box.top,
                box.bottom,
            )
            for box in boxes
        ]
    ).reshape(-1, 6)


def _apart(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns whether two boxes do not meet in any plot, by box (rows) and other (columns)."""
    left, wide_left, right, wide_right, top, bottom = boxes.T[:, :, None]
    other_left, other_wide_left, other_right, other_wide_right, other_top, other_bottom = others.T
    apart: np.ndarray = (right <= other_left) & (wide_right <= other_wide_left)
    apart |= (other_right <= left) & (other_wide_right <= wide_left)
    apart |= bottom <= other_top
    apart |= other_bottom <= top
    return apart


def _within(boxes: np.ndarray, room: Room) -> np.ndarray:
    """Returns whether a box is in the plot, whichever width that has."""
    left, wide_left, right, wide_right, top, bottom = boxes.T
    inside: np.ndarray = (left >= 0) & (wide_left >= 0) & (top >= room.top)
    inside &= (right <= room.widths[0]) & (wide_right <= room.widths[1]) & (bottom <= room.bottom)
    return inside
