"""What a tool on a phone says of a run, and what to make of one that failed."""

from dataclasses import dataclass

from cct_export.bench.hosts.adb.client import Ended
from cct_export.bench.hosts.adb.workplace import crash, last_line
from cct_export.errors import CCTExportError, EngineFailed, NotAvailable
from cct_export.records import ReportedLatency

_CANNOT_RUN = (126, 127)


@dataclass(frozen=True)
class Report:
    """What a tool says of a run.

    Attributes:
        times_ns: every timed run, in order; empty where it tells statistics only.
        reported_ms: those, see ``BenchResult``; None where it tells every run.
        load_ms: making the session.
        first_inference_ms: the first run after that.
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


def failure(ended: Ended, what: str, accelerated: bool, reason: str = "") -> CCTExportError:
    """Returns the error for a program that ended with another code than 0.

    Args:
        ended: how.
        what: the program, for people.
        accelerated: whether a delegate was asked for that may not be there.
        reason: what it said that matters; its last line by default.
    """
    said = reason or last_line(ended.text)
    if signal := crash(ended):
        return EngineFailed(f"{what} crashed ({signal}): {said}")
    if ended.code in _CANNOT_RUN:
        return NotAvailable(
            f"{what} cannot be run there: {said}; it must be a program for Android and this "
            "processor (docs/android-bench.md says where there is one)"
        )
    kind = NotAvailable if accelerated else EngineFailed
    return kind(f"{what} ended with {ended.code}: {said}")
