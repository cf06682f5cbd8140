"""Types of options that click does not have."""

import re
from typing import Any

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


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
