"""What a machine can run artifacts with, on a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from cct_export.records import Diagnosis, MachineInfo
from cct_export.records.encoding import to_json
from cct_export.report import terminal
from cct_export.report.terminal import text

_SIGNS = {True: "works", False: "no", None: "not tried"}


def show(machine: MachineInfo, found: Sequence[Diagnosis]) -> None:
    """Prints the machine, and a row per engine and delegate."""
    console = terminal.console()
    for key, value in to_json(machine).items():
        console.print(f"{key:<14}{text(_said(value))}")
    table = Table(box=None)
    for name in ("engine", "delegate", "", "what it is", "why not"):
        table.add_column(name, overflow="fold", no_wrap=name in ("engine", "delegate", ""))
    for one in found:
        engine = f"{one.engine} {one.version}".strip()
        cells = (engine, one.delegate, _SIGNS[one.works], one.about, one.why)
        table.add_row(*map(text, cells))
    console.print()
    console.print(table)


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "not shown" if value is None else str(value)
