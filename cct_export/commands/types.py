"""Types of options that click does not have."""

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cct_export import streams
from cct_export.bounds import Range, shown
from cct_export.errors import InvalidRequest
from cct_export.model import presets
from cct_export.specs import GROWTH, SUSTAINED_S, Resize

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
# ASCII only: Python reads the digits of every script, and words such as nan.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
# With one of these at its end a path names a folder.
_SEPARATORS = ("/", os.sep)


class OneOf(click.ParamType[Any]):
    """One of several words; the API refuses others, with a suggestion.

    Args:
        words: the words, which a shell completes.
        name: the metavar; by default the words.
    """

    def __init__(self, words: Iterable[str], name: str = "") -> None:
        self.words = tuple(words)
        self.name = name or f"[{'|'.join(self.words)}]"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Returns what stands for the value in the help."""
        return self.name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the words that begin like ``incomplete``."""
        beginning = incomplete.casefold()
        return [CompletionItem(word) for word in self.words if word.startswith(beginning)]


class PathOr(OneOf):
    """A path, or one of several words."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the words that begin like ``incomplete``, and files; files alone without words.

        A shell completes paths itself, but only where it gets no words.
        """
        words = super().shell_complete(ctx, param, incomplete)
        if not words:
            return [CompletionItem(incomplete, type="file")]
        names = sorted(path.name for path in Path().iterdir())
        # A shell could not type a name with control characters, and a line must not end in one.
        files = [
            name
            for name in names
            if name.startswith(incomplete) and name[0] != "." and name.isprintable()
        ]
        return words + [CompletionItem(name) for name in files]


class Record(PathOr):
    """A file for a record, or ``-`` for standard output."""

    def __init__(self) -> None:
        super().__init__((), "FILE|-")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path, or ``-``."""
        if value == "-" and "stdout" in streams.closed:
            self.fail("standard output is closed: name a file")
        if str(value).endswith(_SEPARATORS):
            self.fail(f"{str(value)!r} is a folder: name a file")
        return super().convert(value, param, ctx)


class Output(click.Path):
    """A file or folder to write. It need not be readable, such as the pipe of another user.

    Args:
        file: whether a folder is refused, which a name that ends with a slash means.
    """

    def __init__(self, *, file: bool = False) -> None:
        super().__init__(path_type=Path, readable=False)
        self._file = file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path."""
        if self._file and str(value).endswith(_SEPARATORS):
            self.fail(f"{str(value)!r} is a folder: name a file")
        return super().convert(value, param, ctx)


class Model(PathOr):
    """A model, an exported file, or the name of a model that ships.

    Args:
        name: the metavar.
    """

    def __init__(self, name: str = "MODEL") -> None:
        super().__init__(filter(presets.ships, presets.MODELS), name)


class Delegate(OneOf):
    """A delegate of the engine that a command measures."""

    def __init__(self) -> None:
        super().__init__((), "NAME")

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the delegates that begin like ``incomplete``."""
        from cct_export.runtimes import ENGINE_NAMES, ENGINES

        formats = [format for format in ENGINE_NAMES if format == ctx.info_name] or ENGINE_NAMES
        engines = [ENGINES[ENGINE_NAMES[format]] for format in formats]
        delegates = dict.fromkeys(name for engine in engines for name in engine.DELEGATES)
        return OneOf(delegates).shell_complete(ctx, param, incomplete)


def _read(text: str, whole: bool) -> Any:
    """Returns the number in ``text``, infinity for a larger one than a float holds; else None."""
    pattern, kind = (_WHOLE, int) if whole else (_REAL, float)
    try:
        return kind(text) if pattern.fullmatch(text) else None
    except ValueError:  # more digits than Python reads
        return math.inf


class Number(click.FloatRange):
    """A finite number, or a whole number.

    Args:
        range: the numbers that are possible.
    """

    def __init__(self, range: Range) -> None:
        super().__init__(range.minimum, range.maximum)
        self._range = range
        kind = "integer" if range.whole else "float"
        self.name = f"{kind} range" if self._describe_range() else kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number in ``value``."""
        number: float | None = _read(str(value), self._range.whole)
        if number is None:
            kind = "a valid integer" if self._range.whole else "a number such as 0.5"
            self.fail(f"{shown(value)} is not {kind}")
        if self._range.problem(number):
            self.fail(
                f"{shown(number)} is not in the range {self._describe_range() or 'of floats'}"
            )
        return number

    def _describe_range(self) -> str:
        return "" if self.min is self.max is None else super()._describe_range()


class Fractions(click.ParamType[Any]):
    """Numbers or fractions such as 1/255, separated by commas.

    Args:
        range: the numbers that are possible.
        single: whether it is one number.
    """

    def __init__(self, range: Range, *, single: bool = False) -> None:
        self._range, self._single = range, single
        self.name = "NUMBER" if single else "NUMBER[,NUMBER...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Returns the numbers in ``value``."""
        if isinstance(value, tuple):
            return value
        numbers = [_read_fraction(part.strip()) for part in str(value).split(",")]
        if None in numbers or (self._single and len(numbers) > 1):
            wanted = "a number such as 1/255" if self._single else "numbers such as 0.5 or 104,117"
            self.fail(f"{shown(value)} is not {wanted}")
        for number in numbers:
            if problem := self._range.problem(number):
                self.fail(f"it {problem}" if self._single else f"each of them {problem}")
        return tuple(float(number) for number in numbers if number is not None)


def _read_fraction(text: str) -> float | None:
    """Returns the number in ``text``, infinity for a fraction by zero; None if it is none."""
    above, slash, below = text.partition("/")
    numerator = _read(above, whole=False)
    denominator = _read(below, whole=False) if slash else 1.0
    if numerator is None or denominator is None:
        return None
    return numerator / denominator if denominator else math.inf


class CountList(click.ParamType[Any]):
    """Positive integers, separated by commas.

    Args:
        range: the integers that are possible.
    """

    name = "N[,N...]"

    def __init__(self, range: Range) -> None:
        self._range = range

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Returns the integers in ``value``."""
        if isinstance(value, tuple):
            return value
        numbers = [_read(part.strip(), whole=True) for part in str(value).split(",")]
        if any(number is None or number < 1 for number in numbers):
            self.fail(f"{shown(value)} is not a list of positive integers such as 1 or 1,2,4")
        for number in numbers:
            if problem := self._range.problem(number):
                self.fail(f"each of them {problem}")
        return tuple(numbers)


class NameList(click.ParamType[Any]):
    """Names, separated by commas; the API checks them.

    Args:
        names: those that a shell completes.
    """

    name = "NAME[,NAME...]"

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = tuple(names)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns ``incomplete`` with each name that its last one may become, and is not in it."""
        before, comma, last = incomplete.rpartition(",")
        names = [name for name in self._names if name not in before.split(",")]
        items = OneOf(names).shell_complete(ctx, param, last)
        return [CompletionItem(f"{before}{comma}{item.value}") for item in items]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Returns the names in ``value``."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        if not all(names):
            self.fail(f"{value!r} is not a list of names such as none,int8")
        return names


class Resizing(click.ParamType[Any]):
    """How images are resized, as ``Resize.parse`` takes it."""

    name = "WAY[,...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Resize:
        """Returns the resizing that ``value`` names."""
        if isinstance(value, Resize):
            return value
        try:
            return Resize.parse(str(value))
        except InvalidRequest as error:
            self.fail(str(error))


class Duration(click.ParamType[Any]):
    """Seconds, or a number with the unit s, m or h."""

    name = "DURATION"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the seconds in ``value``."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", str(value))
        if not match or not float(match[1]):
            self.fail(f"{shown(value)} is not a duration such as 90, 90s, 10m or 1h")
        seconds = float(match[1]) * _SECONDS[match[2]]
        if problem := SUSTAINED_S.problem(seconds):
            self.fail(f"the seconds {problem}")
        return seconds


class Percentage(click.ParamType[Any]):
    """A proportion, as 5% or 0.05."""

    name = "PERCENT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the proportion in ``value``, 0.05 for 5%."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", str(value))
        if not match:
            self.fail(f"{shown(value)} is not a percentage such as 5% or 0.05")
        proportion = float(match[1]) / (100 if match[2] else 1)
        if problem := GROWTH.problem(proportion):
            self.fail(f"the proportion {problem}")
        if not match[2] and proportion > 1:
            self.fail(f"{value!r} is above 1: write {value}% for {proportion / 100:g}")
        return proportion


class Setting(click.ParamType[Any]):
    """A name and its value."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Returns name and value."""
        if isinstance(value, tuple):
            return value
        name, sign, content = str(value).partition("=")
        if not (name and sign):
            self.fail(f"{value!r} is not NAME=VALUE")
        return name, content
