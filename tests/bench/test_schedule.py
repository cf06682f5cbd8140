"""What is measured when, and what becomes of failures; the workers are fakes."""

from dataclasses import replace
from pathlib import Path

import pytest

from cct_export.bench import measurement, schedule
from cct_export.bench.protocol import Burst, Opened, PeakMemory, Processing
from cct_export.errors import (
    ConnectionLost,
    EngineFailed,
    InvalidArtifact,
    InvalidData,
    NotAvailable,
)
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Conditions, Contract, MachineInfo, ParityReport, Runtime
from cct_export.specs import BenchJob, BenchPasses, BenchPlan, BenchSpec, Delegation, Timing

MS = 1_000_000
PARITY = ParityReport(
    "m", "f", "int8", "golden", 16, 0.1, 0.1, 1.0, 30.0, 1.0, 16, True, False, ()
)  # fmt: skip
WRONG = replace(PARITY, failures=("SQNR 3.0 dB is below 28.0",))


class FakeHost:
    """A host with workers whose runs take ``ms[path]``; a callable there may raise."""

    name = "fake"

    def __init__(self, **ms):
        self.ms, self.log, self.started, self.closed = ms, [], 0, 0
        self.parity = {}
        self.other_cores = 0.0

    def describe(self):
        return MachineInfo(cores=4)

    def copy_artifact(self, path):
        return f"/remote/{path}"

    def copy_test_images(self, data, shape):
        return f"/remote/{data}"

    def start(self, subject):
        self.started += 1
        return FakeWorker(self, subject)


class FakeWorker:
    """A channel and the worker behind it."""

    def __init__(self, host, path):
        self.host, self.path = host, path

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.host.closed += 1

    def ask(self, method, kind, progress=None, limit_s=None, **arguments):
        self.host.log.append((self.path, method))
        answer = getattr(self, method)(**arguments)
        assert isinstance(answer, kind)
        return answer

    def tell(self, method, **arguments):
        self.ask(method, type(None), **arguments)

    def open(self, path, spec):
        assert path == f"/remote/{self.path}"
        runtime = Runtime.of(spec, version="1", delegate="xnnpack", nodes=(3, 3))
        contract = Contract(format="tflite", scheme="int8", source="m")
        return Opened(runtime, contract, 1.0, 2.0, (8, 8, 3))

    def golden(self):
        return GoldenCheck(self.host.parity.get(self.path))

    def processing(self):
        return Processing(0.1, 0.2)

    def warm_up(self, seconds):
        pass

    def conditions(self):
        return Conditions(load_1m=0.0)

    def burst(self, runs, seconds):
        ms = self.host.ms[self.path]
        time_ns = int((ms() if callable(ms) else ms) * MS)
        count = max(runs, round(seconds * 1e9 / time_ns))
        return Burst((time_ns,) * count, self.host.other_cores, 0.003)

    def memory(self):
        return PeakMemory(1000)


def measure(host, *paths, timing=None, passes=None, **spec):
    jobs = [BenchJob(Path(path), BenchSpec("litert", **spec)) for path in paths]
    plan = BenchPlan(timing or Timing(min_runs=100, min_s=0.5), passes or BenchPasses())
    return schedule.measure(jobs, plan, host, lambda message: None)


def raising(error):
    def fail(*arguments, **named):
        raise error

    return fail


def test_artifacts_take_turns_until_each_has_enough_runs():
    host = FakeHost(a=1, b=10)
    first, second = measure(host, "a", "b")
    bursts = [path for path, method in host.log if method == "burst"]
    assert bursts[:8] == ["a", "b"] * 4
    assert len(first.times_ns) >= 500
    assert len(second.times_ns) >= 100
    assert sum(second.times_ns) >= 0.5e9
    assert set(first.times_ns) == {MS}
    assert set(second.times_ns) == {10 * MS}


def test_before_a_turn_among_others_the_caches_are_filled_again():
    host = FakeHost(a=1, b=1)
    measure(host, "a", "b")
    log = [method for path, method in host.log if path == "a" and method in ("warm_up", "burst")]
    assert log[:5] == ["warm_up", "warm_up", "burst", "warm_up", "burst"]


def test_alone_nothing_comes_between_the_bursts():
    host = FakeHost(a=1)
    measure(host, "a")
    assert [method for _, method in host.log].count("warm_up") == 1


def test_a_repeat_is_a_fresh_process_and_all_runs_are_kept():
    host = FakeHost(a=1)
    (result,) = measure(host, "a", timing=Timing(min_runs=1000, min_s=1, repeats=5))
    assert len(result.bursts) == 5
    assert sum(map(sum, result.bursts)) == len(result.times_ns) >= 1000
    assert host.started == 6  # five times latency, once memory
    assert host.closed == host.started


def test_without_a_minimum_there_is_one_run():
    (result,) = measure(FakeHost(a=1), "a", timing=Timing(min_runs=0, min_s=0))
    assert result.times_ns == (MS,)
    assert result.bursts == ((1,),)


def test_a_crash_of_one_engine_does_not_stop_the_others():
    host = FakeHost(a=1, b=raising(EngineFailed("/remote/b: the engine crashed (SIGSEGV)")))
    first, second = measure(host, "a", "b")
    assert first.times_ns
    assert not first.failure
    assert second.failure == "b: the engine crashed (SIGSEGV)"
    assert second.failure_kind == "EngineFailed"
    assert second.times_ns == ()


def test_a_file_that_fails_golden_parity_is_not_timed():
    host = FakeHost(a=1, b=1)
    host.parity["b"] = WRONG
    first, second = measure(host, "a", "b")
    assert first.times_ns
    assert second.times_ns == ()
    assert not second.parity.passed
    assert second.parity.candidate == "b"
    assert ("b", "burst") not in host.log
    assert ("b", "memory") not in host.log


def test_parity_is_checked_once_before_anything_is_timed():
    host = FakeHost(a=1)
    host.parity["a"] = PARITY
    (result,) = measure(host, "a", timing=Timing(min_runs=10, min_s=0, repeats=2))
    methods = [method for _, method in host.log]
    assert methods.index("golden") < methods.index("burst")
    assert methods.count("golden") == 1
    assert result.parity.passed


def test_labelled_images_are_checked_before_anything_is_timed(monkeypatch):
    refusal = InvalidData("/remote/photos has label 77, the model 10 logits")
    monkeypatch.setattr(FakeWorker, "check_data", raising(refusal), raising=False)
    host = FakeHost(a=1, b=1)
    results = measure(host, "a", "b", passes=BenchPasses(accuracy_data="photos"))
    assert [result.failure_kind for result in results] == ["InvalidData"] * 2
    assert "burst" not in [method for _, method in host.log]


def test_an_unavailable_delegate_is_reported_with_the_request(monkeypatch):
    monkeypatch.setattr(FakeWorker, "open", raising(NotAvailable("no GPU")))
    (result,) = measure(FakeHost(a=1), "a", delegation=Delegation("gpu"))
    assert (result.failure, result.failure_kind) == ("no GPU", "NotAvailable")
    assert result.runtime.delegate == "gpu"


def test_a_failure_after_the_times_does_not_undo_them(monkeypatch):
    monkeypatch.setattr(FakeWorker, "memory", raising(InvalidArtifact("gone")))
    (result,) = measure(FakeHost(a=1), "a")
    assert result.failure == "gone"
    assert result.times_ns


def test_a_failure_between_the_repeats_leaves_no_latency():
    calls = iter([1] * 60)

    def crash():
        try:
            return next(calls)
        except StopIteration:
            raise EngineFailed("a: the engine crashed") from None

    timing = Timing(min_runs=10, min_s=20, repeats=5)
    (result,) = measure(FakeHost(a=crash), "a", timing=timing)
    assert result.times_ns == ()
    assert result.bursts == ()
    assert "crashed" in result.failure


def test_conditions_are_those_before_and_the_worst_after(monkeypatch):
    heat = iter([40, 90, 50, 45])
    monkeypatch.setattr(
        FakeWorker, "conditions", lambda self: Conditions(temperature_c=next(heat), throttled=())
    )
    (result,) = measure(FakeHost(a=1), "a", timing=Timing(min_runs=2, min_s=0, repeats=2))
    assert result.conditions.before.temperature_c == 40
    assert result.conditions.after.temperature_c == 90


def test_a_sustained_run_is_a_curve(monkeypatch):
    clock = iter([0, 0, 1, 2, 3])
    monkeypatch.setattr(schedule.time, "monotonic", lambda: next(clock))
    slower = iter([1, 1, 1, 2, 4])
    host = FakeHost(a=lambda: next(slower))
    timing = Timing(min_runs=10, min_s=0)
    (result,) = measure(host, "a", timing=timing, passes=BenchPasses(sustained_s=3))
    assert result.sustained.p50_ms == (1, 2, 4)
    assert result.sustained.interval_s == 1


@pytest.mark.parametrize(("others", "warned"), [(0.0, False), (0.1, False), (0.9, True)])
def test_busy_other_programs_are_warned_of(others, warned):
    host = FakeHost(a=1)
    host.other_cores = others
    (result,) = measure(host, "a")
    assert any("other programs kept" in warning for warning in result.warnings) == warned


@pytest.fixture
def impatient(monkeypatch):
    """Reconnects twice, at once."""
    monkeypatch.setattr(measurement, "RECONNECT_AFTER_S", (0, 0))


def test_after_a_lost_connection_the_measurement_goes_on(impatient):
    breaks = iter([False, True, False, True] + [False] * 100)

    def run():
        if next(breaks):
            raise ConnectionLost("gone")
        return 1

    (result,) = measure(FakeHost(a=run), "a", timing=Timing(min_runs=10, min_s=0.2))
    assert result.conditions.reconnections == 2
    assert len(result.times_ns) >= 200
    assert not result.failure


def test_a_connection_that_is_lost_behind_the_last_burst_adds_no_empty_burst(
    impatient, monkeypatch
):
    states = iter([Conditions(), ConnectionLost("gone"), Conditions()])

    def conditions(self):
        state = next(states)
        if isinstance(state, ConnectionLost):
            raise state
        return state

    monkeypatch.setattr(FakeWorker, "conditions", conditions)
    (result,) = measure(FakeHost(a=1), "a", timing=Timing(min_runs=1, min_s=0))
    assert result.bursts == ((1,),)
    assert result.conditions.reconnections == 1


def test_a_connection_that_is_lost_too_often_is_given_up(impatient):
    (result,) = measure(FakeHost(a=raising(ConnectionLost("gone"))), "a")
    assert (result.failure, result.failure_kind) == ("gone", "ConnectionLost")
    assert result.times_ns == ()
