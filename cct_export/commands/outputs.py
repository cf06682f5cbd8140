"""Files that a command writes beside what it prints: JSON, HTML, Markdown, CSV, plots."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cct_export.commands.types import Output
from cct_export.errors import InvalidRequest
from cct_export.files import check_writable, write_text

if TYPE_CHECKING:
    from cct_export.records import BenchResult
    from cct_export.report.columns import Column, Item

# Parameters of commands that name files to write.
_OUTPUTS = ("json_path", "html", "markdown", "csv", "plot")
# What a command would take for something else afterwards.
_RESERVED = (
    ".keras", ".tflite", ".onnx", ".ncnn.param", ".ncnn.bin", ".tflite.json", ".onnx.json",
    ".ncnn.param.json",
)  # fmt: skip


def check_outputs(parameters: Mapping[str, object]) -> None:
    """Refuses, before any work, files that cannot be written or would replace what is read.

    Args:
        parameters: of a command, as click names them; what is no output may name files to read,
            or folders of images.

    Raises:
        InvalidRequest: a file has the name of an artifact, is named twice, or is read too.
        OutputError: a file cannot be written.
    """
    paths = [
        Path(name) for each in _OUTPUTS for name in _names(parameters.get(each)) if name != "-"
    ]
    if not paths:
        return
    inputs = [
        _place(name)
        for parameter, value in parameters.items()
        if parameter not in (*_OUTPUTS, "output")
        for name in _names(value)
        if os.path.exists(name)  # noqa: PTH110, which is false for what can be no path
    ]
    outputs: set[Path] = set()
    for path in paths:
        _check_output(path, inputs)
        place = _place(path)
        if place in outputs:
            raise InvalidRequest(f"{path} is named twice: choose another file")
        if not place.is_char_device():  # such as /dev/null; a pipe ends with its first output
            outputs.add(place)
        folders = [_place(name) for name in _names(parameters.get("output"))]
        if place.name == "run.json" and (
            place.parent in folders or place.with_name("best.keras").exists()
        ):
            raise InvalidRequest(f"{path} is the record of a run: choose another file")


def _place(name: str | Path) -> Path:
    """Returns where a path leads to; ``Path.resolve`` fails where links lead in a circle."""
    return Path(os.path.realpath(name))


def _names(value: object) -> Iterator[str]:
    """Yields every text and path in the value of a parameter."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _names(item)


def _check_output(path: Path, inputs: Sequence[Path]) -> None:
    from cct_export.data.folder import SUFFIXES

    place = _place(path)
    if path.name.endswith(_RESERVED) or place.name.endswith(_RESERVED):
        raise InvalidRequest(f"{path} is the name of an artifact or its sidecar: choose another")
    check_writable(path)
    is_read = path.suffix.lower() in SUFFIXES and not set(place.parents).isdisjoint(inputs)
    if place.exists() and (place in inputs or is_read):
        raise InvalidRequest(f"{path} is named twice: the command reads it, choose another file")


class OutputFile(NamedTuple):
    """A file that a command writes beside its result, and the function that writes it."""

    path: Path
    write: Callable[[Path], None]


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

    def of_results(self, results: "Sequence[BenchResult]") -> list[OutputFile]:
        """Returns the files with results of a benchmark; ratios are to the first."""
        from cct_export import machine
        from cct_export.report import rows
        from cct_export.report.page import page

        return _named(
            (self.html, lambda: page(machine.describe(), results)),
            (self.markdown, lambda: rows.markdown(results)),
            (self.csv, lambda: rows.csv(results)),
        )

    def of_table(
        self, columns: "Sequence[Column[Item]]", items: "Sequence[Item]", kind: type[Any]
    ) -> list[OutputFile]:
        """Returns files with a row per item; the CSV has the fields of their dataclass ``kind``."""
        from cct_export.report import table_files

        return _named(
            (self.markdown, lambda: table_files.markdown(columns, items)),
            (self.csv, lambda: table_files.csv(kind, items)),
        )


def _named(*files: tuple[Path | None, Callable[[], str]]) -> list[OutputFile]:
    """Returns the files, each with what makes its text, that the user named."""
    return [_text_file(path, content) for path, content in files if path is not None]


def _text_file(path: Path, content: Callable[[], str]) -> OutputFile:
    return OutputFile(path, lambda path: write_text(path, content()))


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _option(name: str, what: str) -> Decorator:
    return click.option(f"--{name}", type=Output(file=True), metavar="FILE", help=f"Write {what}.")


_markdown = _option("markdown", "a Markdown table")
_csv = _option("csv", "comma-separated values")
_html = _option("html", "an HTML page with charts")


def table_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--markdown`` and ``--csv``; the command gets ``files``, a ``TableFiles``."""
    return _decorated(_collected(function), _csv, _markdown)


def result_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--html``, ``--markdown`` and ``--csv``; the command gets ``files``."""
    return _decorated(_collected(function), _csv, _markdown, _html)


def _decorated(function: Callable[..., Any], *decorators: Decorator) -> Callable[..., Any]:
    for decorator in decorators:
        function = decorator(function)
    return function


def _collected(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(
        markdown: Path | None, csv: Path | None, html: Path | None = None, **arguments: Any
    ) -> Any:
        return function(files=TableFiles(html, markdown, csv), **arguments)

    return command
