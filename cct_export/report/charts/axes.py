"""Axes of charts: scales, where their ticks are, and how both are drawn."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree.ElementTree import Element

from cct_export.report.charts.svg import element, percent

_MAX_TICKS = 6
# What the values of ticks begin with, the finest first.
_DECADE = ((1, 2, 5), (1, 3), (1,))


@dataclass(frozen=True)
class Scale:
    """Values along an axis.

    Attributes:
        low: value where the axis begins; above 0 on a logarithmic scale.
        high: value where it ends, above ``low``.
        logarithmic: whether equal distances are equal ratios.
        whole: whether the values are counts, with no ticks between them.
    """

    low: float
    high: float
    logarithmic: bool = False
    whole: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float], *, padding: float, logarithmic: bool = False
    ) -> "Scale":
        """Returns a scale with room beyond the least and the greatest of ``values``.

        Args:
            values: at least one; above 0 for a logarithmic scale.
            padding: room on either side, a share of the distance between the two.
            logarithmic: whether equal distances are equal ratios.
        """
        ordered = sorted(values)
        low, high = ordered[0], ordered[-1]
        if logarithmic:
            factor = (high / low) ** padding if high > low else 2.0
            return cls(low / factor, high * factor, True)
        margin = padding * (high - low) if high > low else 0.1 * abs(high) or 1.0
        return cls(low - margin, high + margin)

    def share(self, value: float) -> float:
        """Returns where ``value`` is on the axis: 0 at ``low``, 1 at ``high``."""
        if self.logarithmic:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns round values on the axis with their text, ``_MAX_TICKS`` at most."""
        return self._logarithmic_ticks() if self.logarithmic else self._linear_ticks()

    def _linear_ticks(self) -> list[tuple[float, str]]:
        smallest = (self.high - self.low) / (_MAX_TICKS - 1)
        if self.whole:
            smallest = max(smallest, 1.0)
        power = 10.0 ** floor(log10(smallest))
        step = next(first * power for first in (1, 2, 5, 10, 20) if first * power >= smallest)
        decimals = max(0, -floor(log10(step) + 1e-9))
        indices = range(ceil(self.low / step), floor(self.high / step) + 1)
        return [(index * step, _tick_text(index * step, decimals)) for index in indices]

    def _logarithmic_ticks(self) -> list[tuple[float, str]]:
        exponents = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        ticks: list[float] = []
        for firsts in _DECADE:
            values = (first * 10.0**exponent for exponent in exponents for first in firsts)
            ticks = [value for value in values if self.low <= value <= self.high]
            if len(ticks) <= _MAX_TICKS:
                break
        ticks = ticks[:: ceil(len(ticks) / _MAX_TICKS) or 1]
        return [(tick, _tick_text(tick, max(0, -floor(log10(tick))))) for tick in ticks]


def _tick_text(value: float, decimals: int) -> str:
    # Rounding leaves no negative zero.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def horizontal(
    scale: Scale, title: str, *, top: float, bottom: float, grid: bool = True
) -> list[Element]:
    """Returns the axis below a plot.

    Args:
        scale: along it.
        title: with the unit.
        top: of the plot, pixels.
        bottom: of the plot, pixels.
        grid: whether to draw a line at each tick.
    """
    drawn = [element("line", class_="axis", x2="100%", y1=bottom, y2=bottom)]
    for value, text in scale.ticks():
        x = percent(scale.share(value))
        if grid:
            drawn.append(element("line", class_="grid", x1=x, x2=x, y1=top, y2=bottom))
        drawn.append(element("text", x=x, y=bottom + 16, class_="middle", text=text))
    drawn.append(element("text", x="100%", y=bottom + 34, class_="end", text=title))
    return drawn


def vertical(
    scale: Scale, title: str, *, top: float, bottom: float, gap: float = 10
) -> list[Element]:
    """Returns the axis left of a plot, with a line at each tick and the title above.

    Args:
        scale: along it.
        title: with the unit.
        top: of the plot, pixels.
        bottom: of the plot, pixels.
        gap: between the title and the plot, pixels.
    """
    drawn = [element("text", x=-48, y=top - gap, text=title)]
    for value, text in scale.ticks():
        y = height_of(scale, value, top=top, bottom=bottom)
        drawn.append(element("line", class_="grid", x2="100%", y1=y, y2=y))
        drawn.append(element("text", x=-8, y=y + 4, class_="end", text=text))
    return drawn


def height_of(scale: Scale, value: float, *, top: float, bottom: float) -> float:
    """Returns the y coordinate of ``value`` in pixels, between ``top`` and ``bottom``."""
    return bottom - scale.share(value) * (bottom - top)
