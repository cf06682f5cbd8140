"""What every table on a terminal needs."""

from rich.console import Console
from rich.markup import escape

WIDTH = 160


def console() -> Console:
    """Returns where tables are printed; as wide as a table may be where that is no terminal."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found


def printable(name: str) -> str:
    """Returns ``name`` without control characters: a file may come from anyone."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )


def text(name: str) -> str:
    """Returns ``name`` printable, and as itself where a table would read markup in it."""
    return escape(printable(name))
