"""Types of options that click does not have."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cct_export.model import presets

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


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


class Model(PathOr):
    """A model, an exported file, or the name of a model that ships.

    Args:
        name: the metavar.
    """

    def __init__(self, name: str = "MODEL") -> None:
        super().__init__(filter(presets.ships, presets.PRESETS), name)


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


class CountList(click.ParamType[Any]):
    """Positive integers, separated by commas."""

    name = "N[,N...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Returns the integers in ``value``."""
        if isinstance(value, tuple):
            return value
        try:
            counts = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            counts = ()
        if not counts or min(counts) < 1:
            self.fail(f"{value!r} is not a list of positive integers such as 1 or 1,2,4")
        return counts


class NameList(click.ParamType[Any]):
    """Names, separated by commas; the API checks them."""

    name = "NAME[,NAME...]"

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


class Duration(click.ParamType[Any]):
    """Seconds, or a number with the unit s, m or h."""

    name = "DURATION"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the seconds in ``value``."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a duration such as 90, 90s, 10m or 1h")
        return float(match[1]) * _SECONDS[match[2]]


class Percentage(click.ParamType[Any]):
    """A proportion, as 5% or 0.05."""

    name = "PERCENT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the proportion in ``value``, 0.05 for 5%."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(value))
        if not match:
            self.fail(f"{value!r} is not a percentage such as 5% or 0.05")
        proportion = float(match[1]) / (100 if match[2] else 1)
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
