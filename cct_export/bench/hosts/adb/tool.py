"""What the programs that measure on a phone have in common: reports, delegate options, errors."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cct_export.bench.hosts.adb.client import Ended, RemoteFolder
from cct_export.errors import CCTExportError, EngineFailed, InvalidRequest, NotAvailable
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Contract, ReportedLatency
from cct_export.specs import Delegation

START_LIMIT_S = 180.0
PRECISIONS = ("fp32", "fp16")
CPU_MASK = "cpu_mask"
# Beside a program that was not linked with them.
_LIBRARIES = ("libonnxruntime*.so", "libLiteRt*.so", "libc++_shared.so")
# Exit codes of a shell that cannot run a program.
_CANNOT_RUN = (126, 127)


@dataclass(frozen=True)
class Report:
    """What a tool reports of a run of the program.

    Attributes:
        times_ns: every timed run, in order; empty where it tells statistics only.
        reported_ms: those statistics; None where it tells every run.
        load_ms: time to open the session.
        first_inference_ms: time of the first run.
        peak_rss_bytes: largest resident memory, None where it does not tell.
        delegated_nodes: operators that the delegate runs, None where it does not tell.
        total_nodes: all of them, None where it does not tell.
    """

    times_ns: tuple[int, ...] = ()
    reported_ms: ReportedLatency | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    peak_rss_bytes: int | None = None
    delegated_nodes: int | None = None
    total_nodes: int | None = None


class Tool(Protocol):
    """One artifact in a program that measures on a phone.

    Attributes:
        contract: what is known of the file; empty if nothing.
        accelerator: the kind of processor that runs it.
        delegate: what computes, known after ``first``.
    """

    contract: Contract
    accelerator: str
    delegate: str

    def first(self) -> Report:
        """Runs once, and checks that the requested delegate runs the file."""
        ...

    def golden(self) -> GoldenCheck:
        """Compares with the golden images; parity is unknown where the tool shows no output."""
        ...

    def timed(self, runs: int, seconds: float, warmup_s: float) -> Report:
        """Times at least so many runs, for at least so many seconds, after a warm-up."""
        ...

    def memory(self) -> int | None:
        """Returns the peak memory in bytes of a process that does nothing else, None if unknown."""
        ...


@dataclass(frozen=True)
class DelegateOptions:
    """The options of a delegate.

    Attributes:
        cpu_mask: hexadecimal mask of the cores that may be used, empty for all.
        fp16: whether computing in fp16 is allowed.
        others: options that the tool passes on as they are.
    """

    cpu_mask: str = ""
    fp16: bool = False
    others: tuple[tuple[str, str], ...] = ()

    @property
    def prefix(self) -> list[str]:
        """What precedes the command."""
        return ["taskset", self.cpu_mask] if self.cpu_mask else []


def parse_options(
    delegation: Delegation, delegates: Collection[str], known: Collection[str] | None, tool: str
) -> DelegateOptions:
    """Returns the options of a delegate.

    Args:
        delegation: the requested delegate.
        delegates: names of the delegates that the tool has.
        known: options of this delegate besides ``cpu_mask``; None if the tool takes any.
        tool: named in the errors.

    Raises:
        InvalidRequest: an unknown option, or an invalid value.
        NotAvailable: there is no such delegate.
    """
    if delegation.name not in delegates:
        raise NotAvailable(
            f"{tool} has no delegate {delegation.name!r}: choose {', '.join(delegates)}"
        )
    options = dict(delegation.options)
    mask = options.pop(CPU_MASK, None)
    if mask is not None and not re.fullmatch(r"[0-9a-fA-F]{1,16}", mask):
        raise InvalidRequest(f"cpu_mask is a hexadecimal mask of cores such as f0, not {mask!r}")
    if known is None:
        return DelegateOptions(mask or "", others=tuple(options.items()))
    precision = options.pop("precision", PRECISIONS[0]) if "precision" in known else PRECISIONS[0]
    if options or precision not in PRECISIONS:
        choice = "cpu_mask=f0" + (" or precision=fp32 or fp16" if "precision" in known else "")
        received = ", ".join(f"{name}={value}" for name, value in delegation.options)
        raise InvalidRequest(
            f"{delegation.name} on a phone takes the options {choice}, not {received}"
        )
    return DelegateOptions(mask or "", precision == "fp16")


def copy_tool(folder: RemoteFolder, binary: Path) -> str:
    """Copies a program and the libraries beside it to the phone; returns its path there."""
    for pattern in _LIBRARIES:
        for library in sorted(binary.parent.glob(pattern)):
            folder.copy_library(library)
    return folder.copy_program(binary)


def failure(ended: Ended, subject: str, accelerated: bool, reason: str = "") -> CCTExportError:
    """Returns the error for a program that ended with another code than 0.

    Args:
        ended: how it ended.
        subject: what the error is about: the program and the artifact.
        accelerated: whether a delegate was requested that the phone may not have.
        reason: the line of its output that says why; the last one by default.
    """
    reason = reason or ended.last_line
    if ended.signal:
        return EngineFailed(f"{subject} crashed ({ended.signal}): {reason}")
    if ended.code in _CANNOT_RUN:
        return NotAvailable(
            f"{subject} cannot be run there: {reason}; it must be a program for Android and this "
            "processor (docs/android-bench.md says where there is one)"
        )
    kind = NotAvailable if accelerated else EngineFailed
    return kind(f"{subject} ended with {ended.code}: {reason}")
