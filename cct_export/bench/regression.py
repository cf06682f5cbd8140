"""Whether a measurement is worse than its baseline, or whether that cannot be told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from cct_export import machine
from cct_export.bench.statistics import Interval, ratio
from cct_export.bench.warnings import BUSY_CORES
from cct_export.bounds import Checked, exceeds
from cct_export.errors import InvalidRequest
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import GROWTH, POINTS, JSONObject
from cct_export.text import plural

# Fields of ``MachineInfo`` that must be equal for latencies to be comparable.
MACHINE_FIELDS = ("cpu", "isa", "architecture", "cores", "surroundings")


@dataclass(frozen=True)
class Limits(Checked):
    """How much worse is too much.

    Attributes:
        latency: relative, 0.05 for 5 %.
        accuracy: points of top-1, 0 to 100.
    """

    latency: Annotated[float, GROWTH] = 0.05
    accuracy: Annotated[float, POINTS] = 0.5


@dataclass(frozen=True)
class Verdict:
    """Two measurements of an artifact compared.

    Attributes:
        subject: the artifact and the engine.
        status: ``pass``, ``regression``, ``inconclusive``, ``parity`` or ``accuracy``.
        why: one line for people.
        ratio: latency now over that of the baseline, None where there is none.
    """

    subject: str
    status: str
    why: str
    ratio: Interval | None = None

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types."""
        return asdict(self) | {"ratio": self.ratio._asdict() if self.ratio else None}


def differences(before: MachineInfo, now: MachineInfo) -> list[str]:
    """Returns, as lines, what makes two machines incomparable."""
    return [
        f"{name}: {_listed(before, name)!r} then, {_listed(now, name)!r} now"
        for name in MACHINE_FIELDS
        if getattr(before, name) != getattr(now, name)
    ]


def _listed(info: MachineInfo, name: str) -> object:
    value = getattr(info, name)
    return list(value) if isinstance(value, tuple) else value


def check_machine(before: BenchResult, now: MachineInfo, any_machine: bool) -> None:
    """Refuses to compare with another machine unless ``any_machine``; ``InvalidRequest``."""
    lines = differences(before.machine, now)
    if lines and not any_machine:
        raise InvalidRequest(
            f"the baseline is of another machine ({'; '.join(lines)}): "
            "--any-machine compares all the same"
        )


def check_this_machine(before: Sequence[BenchResult], any_machine: bool) -> None:
    """Refuses, before anything is measured, a local baseline of another machine."""
    if {row.device for row in before} == {"local"}:
        this_machine = machine.describe()
        for row in before:
            check_machine(row, this_machine, any_machine)


def check_rows(
    before: Sequence[BenchResult], now: Sequence[BenchResult], names: tuple[str, str]
) -> None:
    """Refuses to compare two records whose rows were measured differently.

    Raises:
        InvalidRequest: another number of rows, or another setting in one of them.
    """
    if len(now) != len(before):
        raise InvalidRequest(f"{names[0]} has {plural(len(before), 'row')}, {names[1]} {len(now)}")
    for old, new in zip(before, now, strict=True):
        if _setting(old) != _setting(new):
            raise InvalidRequest(
                f"rows do not belong together: {_subject(old)} (p{old.headline}), "
                f"{_subject(new)} (p{new.headline})"
            )


def _subject(result: BenchResult) -> str:
    """Returns artifact and engine: the same for the same row of two records."""
    runtime = result.runtime
    name = str(result.artifact.path).replace("\\", "/").rpartition("/")[2]
    device = "" if result.device == "local" else f" on {result.device}"
    return (
        f"{name} on {runtime.name} {runtime.delegate}, "
        f"{plural(runtime.threads, 'thread')}, batch {result.batch}{device}"
    )


def _setting(result: BenchResult) -> tuple[object, ...]:
    """Returns what must be equal, besides the machine, for two latencies to be comparable."""
    runtime = result.runtime
    options = tuple(sorted(runtime.options.items()))
    return (
        runtime.name, runtime.requested, options, runtime.threads, result.batch, result.headline,
        result.artifact.scheme, result.device,
    )  # fmt: skip


def judge(before: BenchResult, now: BenchResult, limits: Limits) -> Verdict:
    """Judges a measurement by its baseline.

    The bounds of the ratio hold both the raw one and that in units of the yardstick, the same fixed
    work in both: a machine that became slower as a whole is no regression, and one that became
    faster hides none. Only a ratio that is over the limit, or under it, with both bounds is a
    verdict.

    Args:
        before: the baseline, with raw times.
        now: without any if its parity failed.
        limits: how much worse is too much.
    """
    subject = _subject(now)
    if now.parity is not None and not now.parity.passed:
        return Verdict(subject, "parity", "; ".join(now.parity.failures))
    if not (now.timed and before.timed):
        reason = now.failure or "the baseline has no latency of it"
        return Verdict(subject, "inconclusive", f"not measured: {reason}")
    if mismatch := _accuracy_mismatch(before, now):
        return Verdict(subject, "inconclusive", mismatch)
    lost = _points_lost(before, now)
    if lost is not None and exceeds(lost, limits.accuracy):
        why = f"{lost:.2f} points of top-1 lost, {limits.accuracy:g} allowed"
        return Verdict(subject, "accuracy", why)
    if not (now.times_ns and before.times_ns):
        why = "the tool on the device tells statistics only: without runs there are no bounds"
        return Verdict(subject, "inconclusive", why)
    return _judge_latency(subject, before, now, 1 + limits.latency)


def _judge_latency(subject: str, before: BenchResult, now: BenchResult, allowed: float) -> Verdict:
    bounds = _widened(ratio(now, before), _slow_down(before, now))
    why = f"{bounds.value:.3f} times the latency ({bounds.low:.3f} to {bounds.high:.3f})"
    busy = [name for name, result in (("then", before), ("now", now)) if _busy(result)]
    if busy:
        status, why = "inconclusive", f"{why}, but other programs were busy {' and '.join(busy)}"
    elif bounds.low > allowed:
        status, why = "regression", f"{why}, {allowed:g} allowed"
    elif exceeds(bounds.high, allowed):
        status = "inconclusive"
        why = f"{why}: {allowed:g} lies between; measure longer, or on a quieter machine"
    else:
        status = "pass"
    return Verdict(subject, status, why, bounds)


def _accuracy_mismatch(before: BenchResult, now: BenchResult) -> str:
    """Returns why accuracies cannot be compared, empty if they can or the baseline has none."""
    if before.accuracy is None:
        return ""
    if now.accuracy is None:
        return f"its accuracy was not measured: {now.failure or 'there was no --accuracy'}"
    if before.accuracy.samples != now.accuracy.samples:
        return (
            f"accuracy is of {now.accuracy.samples} images of {now.accuracy.data}, that of the "
            f"baseline of {before.accuracy.samples} of {before.accuracy.data}"
        )
    return ""


def _points_lost(before: BenchResult, now: BenchResult) -> float | None:
    if before.accuracy is None or now.accuracy is None:
        return None
    return 100 * (before.accuracy.top1 - now.accuracy.top1)


def _busy(result: BenchResult) -> bool:
    others = result.conditions.other_cores
    return others is not None and exceeds(others, BUSY_CORES)


def _slow_down(before: BenchResult, now: BenchResult) -> float:
    """Returns how many times as long the same fixed work takes now."""
    old, new = before.conditions.yardstick_ms, now.conditions.yardstick_ms
    return new / old if old and new else 1.0


def _widened(raw: Interval, slow_down: float) -> Interval:
    return Interval(
        raw.value, min(raw.low, raw.low / slow_down), max(raw.high, raw.high / slow_down)
    )
