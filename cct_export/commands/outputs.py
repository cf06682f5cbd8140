"""Files that a command writes beside what it prints: HTML, Markdown, CSV, plots."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cct_export.commands.options import check_output, combined, say_written
from cct_export.errors import InvalidRequest
from cct_export.files import write_text

if TYPE_CHECKING:
    from cct_export.records import BenchResult
    from cct_export.report.columns import Column, Item


@dataclass(frozen=True)
class TableFiles:
    """The files that a table goes into; None for none.

    Attributes:
        html: a page with charts.
        markdown: a GitHub Markdown table.
        csv: comma-separated values.
    """

    html: Path | None = None
    markdown: Path | None = None
    csv: Path | None = None

    def check(self, sources: Sequence[str]) -> None:
        """Refuses, before any work, files that cannot be written or would replace another.

        Args:
            sources: files that the command reads.
        """
        paths = [path for path in (self.html, self.markdown, self.csv) if path is not None]
        for path in paths:
            check_output(path)
            if str(path) in sources or paths.count(path) > 1:
                raise InvalidRequest(f"{path} is named twice: choose another file for the table")

    def write_results(self, results: "Sequence[BenchResult]") -> None:
        """Writes results of a benchmark; ratios are to the first."""
        from cct_export import machine
        from cct_export.report import rows
        from cct_export.report.page import page

        _write(self.html, lambda: page(machine.describe(), results))
        _write(self.markdown, lambda: rows.markdown(results))
        _write(self.csv, lambda: rows.csv(results))

    def write_table(
        self, columns: "Sequence[Column[Item]]", items: "Sequence[Item]", kind: type[Any]
    ) -> None:
        """Writes a row per item; as CSV with the fields of ``kind``, the items' dataclass."""
        from cct_export.report import table_files

        _write(self.markdown, lambda: table_files.markdown(columns, items))
        _write(self.csv, lambda: table_files.csv(kind, items))


def _write(path: Path | None, content: Callable[[], str]) -> None:
    if path is not None:
        write_text(path, content())
        say_written(path)


def _option(name: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{name}", type=click.Path(path_type=Path), metavar="FILE", help=f"Write {what}."
    )


_table = combined(_option("markdown", "a Markdown table"), _option("csv", "comma-separated values"))
_page = _option("html", "an HTML page with charts")


def table_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--markdown`` and ``--csv``; the command gets ``files``, a ``TableFiles``."""
    return _table(_collected(function))


def result_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--html``, ``--markdown`` and ``--csv``; the command gets ``files``."""
    return _page(_table(_collected(function)))


def _collected(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(
        markdown: Path | None, csv: Path | None, html: Path | None = None, **arguments: Any
    ) -> Any:
        return function(files=TableFiles(html, markdown, csv), **arguments)

    return command
