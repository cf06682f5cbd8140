"""What measures one artifact on a phone: a program there, and what is known of the file here."""

from pathlib import Path
from typing import Protocol

from cct_export.bench.hosts.adb.report import Report
from cct_export.bench.hosts.adb.workplace import Workplace
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Contract, Runtime
from cct_export.specs import BenchSpec

START_LIMIT_S = 180.0
# Libraries that lie beside a program which was not linked with them.
_LIBRARIES = ("libonnxruntime*.so", "libLiteRt*.so", "libc++_shared.so")


class Tool(Protocol):
    """One artifact on one engine on a phone.

    Attributes:
        contract: what is known of the file; empty if nothing.
        accelerator: the kind of processor that runs it.
        delegate: what computes, known after ``first``.
        unproven: why the parity is not known, empty if it is; known after ``golden``.
    """

    contract: Contract
    accelerator: str
    delegate: str
    unproven: str

    def first(self) -> Report:
        """Runs once and makes sure that what was asked for runs the file."""
        ...

    def golden(self) -> GoldenCheck:
        """Compares with the golden images; without parity where the tool shows no output."""
        ...

    def timed(self, runs: int, seconds: float, warmup_s: float) -> Report:
        """Runs that often and that long at least, after so many seconds that do not count."""
        ...

    def memory(self) -> int | None:
        """Returns the peak memory in bytes of a process that does nothing else, None if unknown."""
        ...


def placed(workplace: Workplace, binary: Path) -> str:
    """Copies a program and the libraries beside it to the phone; returns its path there."""
    for pattern in _LIBRARIES:
        for library in sorted(binary.parent.glob(pattern)):
            workplace.place_beside(library)
    there = workplace.place(binary)
    workplace.allow_running(there)
    return there


def runtime(tool: Tool, spec: BenchSpec, report: Report) -> Runtime:
    """Returns ``BenchResult.runtime``."""
    return Runtime.of(
        spec,
        accelerator=tool.accelerator,
        delegate=tool.delegate,
        nodes=(report.delegated_nodes, report.total_nodes),
    )
