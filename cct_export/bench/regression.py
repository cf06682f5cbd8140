"""Whether a measurement is worse than an earlier one, or whether that cannot be told."""

from typing import Any, NamedTuple

from cct_export.bench.statistics import Interval, ratio
from cct_export.bench.warnings import BUSY_CORES
from cct_export.records import BenchResult, MachineInfo

# What must be equal for latencies to be comparable.
MACHINE = ("cpu", "isa", "architecture", "cores", "surroundings")


class Limits(NamedTuple):
    """How much worse is too much.

    Attributes:
        latency: relative, 0.05 for 5 %.
        accuracy: points of top-1, 0 to 100.
    """

    latency: float = 0.05
    accuracy: float = 0.5


class Verdict(NamedTuple):
    """What came of comparing two measurements of an artifact.

    Attributes:
        subject: the artifact and on what it ran.
        status: ``pass``, ``regression``, ``inconclusive``, ``parity`` or ``accuracy``.
        why: one line for people.
        ratio: latency now over latency then, None where there is none.
    """

    subject: str
    status: str
    why: str
    ratio: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return self._asdict() | {"ratio": self.ratio._asdict() if self.ratio else None}


def differences(then: MachineInfo, now: MachineInfo) -> list[str]:
    """Returns, as lines, what makes two machines incomparable."""
    return [
        f"{key}: {_plain(then, key)!r} then, {_plain(now, key)!r} now"
        for key in MACHINE
        if getattr(then, key) != getattr(now, key)
    ]


def _plain(machine: MachineInfo, key: str) -> object:
    value = getattr(machine, key)
    return list(value) if isinstance(value, tuple) else value


def subject(result: BenchResult) -> str:
    """Returns what was measured on what, the same for the same row of two records."""
    runtime = result.runtime
    name = str(result.artifact.path).replace("\\", "/").rpartition("/")[2]
    where = "" if result.device == "local" else f" on {result.device}"
    return (
        f"{name} on {runtime.name} {runtime.delegate}, "
        f"{runtime.threads} threads, batch {result.batch}{where}"
    )


def setting(result: BenchResult) -> tuple[object, ...]:
    """Returns what must be the same for two latencies to be comparable, but for the file."""
    runtime = result.runtime
    asked = runtime.requested
    options = tuple(sorted(runtime.options.items()))
    on = (runtime.name, asked, options, runtime.threads, result.batch, result.headline)
    return (*on, result.artifact.scheme, result.device)


def judge(then: BenchResult, now: BenchResult, limits: Limits) -> Verdict:
    """Judges a measurement by an earlier one.

    The bounds of the ratio hold the raw one, and the one for which the same fixed work took as
    long then as now: a machine that became slower as a whole is no regression, and none that
    became faster hides one. Only a ratio that is over the limit, or under it, with both bounds
    is a verdict.

    Args:
        then: with raw times.
        now: without any if its parity failed.
        limits: how much worse is too much.
    """
    what = subject(now)
    if now.parity is not None and not now.parity.passed:
        return Verdict(what, "parity", "; ".join(now.parity.failures))
    if not (now.timed and then.timed):
        reason = now.failure or "the baseline has no latency of it"
        return Verdict(what, "inconclusive", f"not measured: {reason}")
    apart = _other_images(then, now)
    if apart:
        return Verdict(what, "inconclusive", apart)
    lost = _points_lost(then, now)
    if lost is not None and lost > limits.accuracy:
        why = f"{lost:.2f} points of top-1 lost, {limits.accuracy:g} allowed"
        return Verdict(what, "accuracy", why)
    if not (now.times_ns and then.times_ns):
        why = "the tool on the device tells statistics only: no runs to say how sure they are"
        return Verdict(what, "inconclusive", why)
    return _judge_latency(what, then, now, 1 + limits.latency)


def _judge_latency(what: str, then: BenchResult, now: BenchResult, allowed: float) -> Verdict:
    found = _widened(ratio(now, then), _speed(then, now))
    said = f"{found.value:.3f} times the latency ({found.low:.3f} to {found.high:.3f})"
    noise = [name for name, one in (("then", then), ("now", now)) if _busy(one)]
    if noise:
        status, why = "inconclusive", f"{said}, but other programs were busy {' and '.join(noise)}"
    elif found.low > allowed:
        status, why = "regression", f"{said}, {allowed:g} allowed"
    elif found.high > allowed:
        status = "inconclusive"
        why = f"{said}: {allowed:g} lies between; measure longer, or on a quieter machine"
    else:
        status, why = "pass", said
    return Verdict(what, status, why, found)


def _other_images(then: BenchResult, now: BenchResult) -> str:
    """Returns why accuracies cannot be compared, empty if they can or if none was asked for."""
    if then.accuracy is None:
        return ""
    if now.accuracy is None:
        return f"its accuracy was not measured: {now.failure or 'there was no --accuracy'}"
    if then.accuracy.samples != now.accuracy.samples:
        return (
            f"accuracy is of {now.accuracy.samples} images of {now.accuracy.data}, that of the "
            f"baseline of {then.accuracy.samples} of {then.accuracy.data}"
        )
    return ""


def _points_lost(then: BenchResult, now: BenchResult) -> float | None:
    if then.accuracy is None or now.accuracy is None:
        return None
    return 100 * (then.accuracy.top1 - now.accuracy.top1)


def _busy(result: BenchResult) -> bool:
    others = result.conditions.other_cores
    return others is not None and others > BUSY_CORES


def _speed(then: BenchResult, now: BenchResult) -> float:
    """Returns how many times longer the same fixed work took now than then."""
    before, after = then.conditions.yardstick_ms, now.conditions.yardstick_ms
    return after / before if before and after else 1.0


def _widened(raw: Interval, speed: float) -> Interval:
    low, high = min(raw.low, raw.low / speed), max(raw.high, raw.high / speed)
    return Interval(raw.value, low, high)
