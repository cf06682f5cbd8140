"""Numbers and their bounds: NaN meets no bound, and what is not finite is refused."""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, get_args, get_origin, get_type_hints

from cct_export.errors import InvalidRequest

# Characters of a refused value that a message quotes.
_SHOWN = 40
_BOUNDS = (
    ("minimum", operator.ge, "at least"),
    ("maximum", operator.le, "at most"),
    ("above", operator.gt, "above"),
    ("below", operator.lt, "below"),
)


def exceeds(value: float, limit: float) -> bool:
    """Returns whether ``value`` is above ``limit``; NaN is, and so is any value where that is NaN.

    Example:
        >>> exceeds(0.4, 0.5), exceeds(float("nan"), 0.5)
        (False, True)
    """
    return not value <= limit


def falls_short(value: float, least: float) -> bool:
    """Returns whether ``value`` is below ``least``; NaN is below every bound, see ``exceeds``."""
    return not value >= least


def is_finite(value: object) -> bool:
    """Returns whether ``value`` is a real number that a float can hold; bools are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer with hundreds of digits
        return False


def shown(value: object) -> str:
    """Returns a refused value as a message quotes it, however long it is."""
    if isinstance(value, Integral) and abs(int(value)).bit_length() > 4 * _SHOWN:
        return f"a number of {math.ceil(abs(int(value)).bit_length() * math.log10(2))} digits"
    text = str(value) if isinstance(value, Real) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


@dataclass(frozen=True)
class Range:
    """The numbers that a field or an option may have: finite ones between bounds.

    Attributes:
        minimum: smallest number; None for no such bound, as everything below.
        maximum: largest number.
        above: exclusive lower bound.
        below: exclusive upper bound.
        whole: whether only whole numbers are meant.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False

    def problem(self, value: object) -> str:
        """Returns why ``value`` is refused, such as ``must be at least 1, not 0``; else nothing."""
        kind = Integral if self.whole else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return f"must be a {'whole ' * self.whole}number, not {shown(value)}"
        number: float = value  # type: ignore[assignment]  # what Real promises
        finite = is_finite(number)
        if not finite and not isinstance(number, Integral):
            return f"must be a number, not {shown(value)}"
        for attribute, holds, words in _BOUNDS:
            bound = getattr(self, attribute)
            if bound is not None and not holds(number, bound):
                return f"must be {words} {bound}, not {shown(value)}"
        return "" if finite else f"must be a smaller number, not {shown(value)}"

    def check(self, name: str, value: object) -> None:
        """Refuses ``value`` of the field ``name``.

        Raises:
            InvalidRequest: it is no number of this range.

        Example:
            >>> Range(0, 1).check("top1", float("nan"))
            Traceback (most recent call last):
            cct_export.errors.InvalidRequest: top1 must be a number, not nan
        """
        if problem := self.problem(value):
            raise InvalidRequest(f"{name} {problem}")


class Checked:
    """A dataclass whose numbers are in the ``Range`` that annotates their field.

    Raises:
        InvalidRequest: the first number that is not, by name.
    """

    def __post_init__(self) -> None:
        for name, bounds, optional in _annotated(type(self)):
            value = getattr(self, name)
            if not (optional and value is None):
                bounds.check(name, value)


def _annotated(kind: type) -> tuple[tuple[str, Range, bool], ...]:
    """Returns name and range of every field that has one, and whether it may be None."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (name, bounds, NoneType in get_args(hint))
        for name, hint in hints.items()
        for bounds in _ranges(hint)
    )


def _ranges(hint: object) -> Iterator[Range]:
    if get_origin(hint) is Annotated:
        yield from (part for part in get_args(hint) if isinstance(part, Range))
    else:
        for part in get_args(hint):
            yield from _ranges(part)
