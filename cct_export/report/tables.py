"""Tables for terminals of any width: no number is cut, and every line names its row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from cct_export.report import terminal
from cct_export.report.columns import NONE, Column, Item
from cct_export.text import printable

# A text is broken into lines of at least so many cells where the table would be too wide.
MIN_TEXT_WIDTH = 16
_GAP = 2


@dataclass(frozen=True)
class _Column:
    """A column with the text of its cells."""

    title: str
    cells: Sequence[str]
    numeric: bool
    elided: bool

    @property
    def width(self) -> int:
        """Cells of the longest text."""
        return max(map(cell_len, (self.title, *self.cells)))

    def at_most(self, limit: int) -> int:
        """Returns the width where texts are broken at ``limit``; titles and numbers never are."""
        return self.width if self.numeric else min(self.width, max(limit, cell_len(self.title)))


def print_table(columns: Sequence[Column[Item]], items: Iterable[Item], title: str = "") -> None:
    """Prints a row per item on standard output.

    Where the terminal is too narrow, texts are broken into lines. Where that is not enough, what
    is the same in all rows becomes a line above the table, and the other columns are split into
    tables one below the other, each with the first column. In a file or a pipe each row is one
    line. A column without any value is left out.

    Args:
        columns: the first names the row.
        items: of the rows.
        title: of the table; empty for none.
    """
    stdout = terminal.stdout()
    key, *others = _filled(columns, list(items))
    shown = [key, *(column for column in others if set(column.cells) - {NONE, ""})]
    if not stdout.is_terminal:
        stdout.width = _total([column.width for column in shown])
    if title:
        terminal.say(title)
    if not _fits(shown, stdout.width) and len(key.cells) > 1:
        same = [column for column in shown[1:] if len(set(column.cells)) == 1]
        if same:
            facts = (f"{column.title} {column.cells[0]}" for column in same)
            terminal.say(f"all rows: {', '.join(facts)}")
        shown = [column for column in shown if column not in same]
    for number, block in enumerate(_blocks(shown, stdout.width)):
        if number:
            stdout.print()
        _print_block(stdout, block)


def _filled(columns: Sequence[Column[Item]], items: Sequence[Item]) -> list[_Column]:
    return [
        _Column(
            printable(column.title),
            [printable(column.cell(item)) for item in items],
            numeric=column.value is not None,
            elided=column.elided,
        )
        for column in columns
    ]


def _blocks(columns: Sequence[_Column], available: int) -> list[list[_Column]]:
    """Returns the columns in blocks that fit; each begins with the first column."""
    if _fits(columns, available):
        return [list(columns)]
    key, *others = columns
    key_width = key.at_most(available // 2)
    blocks, widths = [[key]], [key_width]
    for column in others:
        width = column.at_most(available - key_width - _GAP)
        if len(widths) > 1 and _total([*widths, width]) > available:
            blocks.append([key])
            widths = [key_width]
        blocks[-1].append(column)
        widths.append(width)
    return blocks


def _fits(columns: Sequence[_Column], available: int) -> bool:
    """Returns whether the columns fit beside each other where long texts are broken."""
    return _total(_least(columns, available)) <= available


def _least(columns: Sequence[_Column], available: int) -> list[int]:
    """Returns the least widths of columns; the names of the rows get a third of the terminal."""
    key, *others = columns
    name_width = key.at_most(max(MIN_TEXT_WIDTH, available // 3))
    return [name_width, *(column.at_most(MIN_TEXT_WIDTH) for column in others)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitted(columns: Sequence[_Column], available: int) -> list[int]:
    """Returns the widths of columns that fit together; the widest texts become narrower.

    Where a terminal has hardly room for a number, texts and their titles are broken anywhere.
    """
    widths = [column.width for column in columns]
    broken = [column.width if column.numeric else 1 for column in columns]
    for least in (_least(columns, available), broken):
        while _total(widths) > available:
            shrinkable = [i for i, width in enumerate(widths) if width > least[i]]
            if not shrinkable:
                break
            widths[max(shrinkable, key=lambda i: widths[i])] -= 1
    return widths


def _print_block(console: Console, columns: Sequence[_Column]) -> None:
    table = Table(box=None, pad_edge=False)
    for column, width in zip(columns, _fitted(columns, console.width), strict=True):
        table.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric or column.elided,
            overflow="ellipsis" if column.elided else "fold",
            width=width,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        terminal.write(console, line.rstrip())
