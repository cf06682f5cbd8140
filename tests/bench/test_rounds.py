"""Measuring in turn, with workers that the test plays."""

from pathlib import Path

import pytest

from cct_export.bench import measurement, schedule
from cct_export.errors import ConnectionLost, EngineFailed, InvalidArtifact, NotAvailable
from cct_export.specs import BenchJob, BenchPasses, BenchSpec, Delegation, Timing

MS = 1_000_000
PARITY = {
    "reference": "m", "candidate": "f", "scheme": "int8", "images": "golden", "samples": 16,
    "max_abs": 0.1, "mean_abs": 0.1, "cosine": 1.0, "sqnr_db": 30.0, "top1_agreement": 1.0,
    "decided": 16, "finite": True, "constant": False, "failures": [],
}  # fmt: skip
CONDITIONS = {
    "temperature_c": None, "frequency_mhz": None, "load_1m": 0.0, "throttled": None,
    "governor": None,
}  # fmt: skip


class Played:
    """A host with workers whose runs take ``ms[path]``; a callable there may raise."""

    name = "played"

    def __init__(self, **ms):
        self.ms, self.log, self.started, self.closed = ms, [], 0, 0
        self.parity = {}
        self.other_cores = 0.0

    def describe(self):
        return {"cores": 4}

    def place(self, path):
        return f"/there/{path}"

    def start(self, subject):
        self.started += 1
        return self.Worker(self, subject)

    class Worker:
        def __init__(self, play, path):
            self.play, self.path = play, path

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.play.closed += 1

        def ask(self, question, tell=None, **arguments):
            self.play.log.append((self.path, question))
            return getattr(self, question)(**arguments)

        def open(self, path, spec):
            assert path == f"/there/{self.path}"
            runtime = {
                "name": "litert", "version": "1", "accelerator": "cpu", "delegate": "xnnpack",
                "options": {}, "allow_fallback": False, "threads": spec["threads"],
                "delegated_nodes": 3, "total_nodes": 3,
            }  # fmt: skip
            contract = {"format": "tflite", "scheme": "int8", "source": "m"}
            return {
                "load_ms": 1.0, "first_inference_ms": 2.0, "runtime": runtime, "contract": contract,
                "image_shape": [8, 8, 3],
            }  # fmt: skip

        def golden(self):
            return {"parity": self.play.parity.get(self.path), "changed": False}

        def processing(self):
            return {"preprocess_ms": 0.1, "postprocess_ms": 0.2}

        def warm_up(self, seconds):
            return {}

        def conditions(self):
            return CONDITIONS

        def burst(self, runs, seconds):
            ms = self.play.ms[self.path]
            time = int((ms() if callable(ms) else ms) * MS)
            count = max(runs, round(seconds * 1e9 / time))
            return {
                "times_ns": [time] * count,
                "other_cores": self.play.other_cores,
                "yardstick_ms": 0.003,
            }

        def memory(self):
            return {"peak_rss_bytes": 1000}


def measure(play, *paths, timing=None, passes=None, **spec):
    jobs = [BenchJob(Path(path), BenchSpec("litert", **spec)) for path in paths]
    plan = timing or Timing(min_runs=100, min_s=0.5)
    return schedule.measure(jobs, plan, passes or BenchPasses(), play, lambda said: None)


def test_every_artifact_has_its_turn_until_each_has_enough():
    play = Played(a=1, b=10)
    first, second = measure(play, "a", "b")
    bursts = [path for path, question in play.log if question == "burst"]
    assert bursts[:8] == ["a", "b"] * 4
    assert len(first.times_ns) >= 500
    assert len(second.times_ns) >= 100
    assert sum(second.times_ns) >= 0.5e9
    assert set(first.times_ns) == {MS}
    assert set(second.times_ns) == {10 * MS}


def test_before_a_turn_among_others_the_caches_are_filled_again():
    play = Played(a=1, b=1)
    measure(play, "a", "b")
    log = [
        question for path, question in play.log if path == "a" and question in ("warm_up", "burst")
    ]
    assert log[:5] == ["warm_up", "warm_up", "burst", "warm_up", "burst"]


def test_alone_nothing_comes_between_the_bursts():
    play = Played(a=1)
    measure(play, "a")
    log = [question for _, question in play.log if question in ("warm_up", "burst")]
    assert log.count("warm_up") == 1


def test_a_repeat_is_a_fresh_process_and_all_runs_are_kept():
    play = Played(a=1)
    (found,) = measure(play, "a", timing=Timing(min_runs=1000, min_s=1, repeats=5))
    assert len(found.bursts) == 5
    assert sum(map(sum, found.bursts)) == len(found.times_ns) >= 1000
    assert play.started == 6  # five times latency, once memory
    assert play.closed == play.started


def test_a_crash_of_one_engine_is_told_and_the_others_go_on():
    def crash():
        raise EngineFailed("b: the engine crashed (SIGSEGV)")

    play = Played(a=1, b=crash)
    first, second = measure(play, "a", "b")
    assert first.times_ns
    assert not first.failure
    assert second.failure == "b: the engine crashed (SIGSEGV)"
    assert second.failure_kind == "EngineFailed"
    assert second.times_ns == ()


def test_a_file_that_is_wrong_on_the_engine_has_no_latency():
    play = Played(a=1, b=1)
    play.parity["b"] = PARITY | {"failures": ["SQNR 3.0 dB is below 28.0"]}
    first, second = measure(play, "a", "b")
    assert first.times_ns
    assert second.times_ns == ()
    assert not second.parity.passed
    assert ("b", "burst") not in play.log
    assert ("b", "memory") not in play.log


def test_parity_is_known_before_anything_is_timed():
    play = Played(a=1)
    play.parity["a"] = PARITY
    (found,) = measure(play, "a", timing=Timing(min_runs=10, min_s=0, repeats=2))
    questions = [question for _, question in play.log]
    assert questions.index("golden") < questions.index("burst")
    assert questions.count("golden") == 1
    assert found.parity.passed


def test_a_delegate_that_is_not_there_is_told_with_what_was_asked_for(monkeypatch):
    def refuse(self, path, spec):
        raise NotAvailable("no GPU")

    monkeypatch.setattr(Played.Worker, "open", refuse)
    (found,) = measure(Played(a=1), "a", delegation=Delegation("gpu"))
    assert (found.failure, found.failure_kind) == ("no GPU", "NotAvailable")
    assert found.runtime["delegate"] == "gpu"


def test_a_failure_after_the_times_is_told_too(monkeypatch):
    def refuse(self):
        raise InvalidArtifact("gone")

    monkeypatch.setattr(Played.Worker, "memory", refuse)
    (found,) = measure(Played(a=1), "a")
    assert found.failure == "gone"
    assert found.times_ns  # what was measured before is not lost


def test_a_failure_between_the_repeats_leaves_no_latency():
    calls = iter([1] * 60)

    def crash():
        try:
            return next(calls)
        except StopIteration:
            raise EngineFailed("a: the engine crashed") from None

    plan = Timing(min_runs=10, min_s=20, repeats=5)
    (found,) = measure(Played(a=crash), "a", timing=plan)
    assert found.times_ns == ()
    assert "crashed" in found.failure


def test_the_worst_of_all_conditions_is_told(monkeypatch):
    heat = iter([40, 90, 50, 45])

    def conditions(self):
        return CONDITIONS | {"temperature_c": next(heat), "throttled": []}

    monkeypatch.setattr(Played.Worker, "conditions", conditions)
    (found,) = measure(Played(a=1), "a", timing=Timing(min_runs=2, min_s=0, repeats=2))
    assert found.conditions["before"]["temperature_c"] == 40
    assert found.conditions["after"]["temperature_c"] == 90


def test_a_long_run_is_a_curve(monkeypatch):
    clock = iter([0, 0, 1, 2, 3])
    from cct_export.bench import non_interleaved

    monkeypatch.setattr(non_interleaved.time, "monotonic", lambda: next(clock))
    slower = iter([1, 1, 1, 2, 4])
    play = Played(a=lambda: next(slower))
    passes = BenchPasses(sustained_s=3)
    (found,) = measure(play, "a", timing=Timing(min_runs=10, min_s=0), passes=passes)
    assert found.sustained.p50_ms == (1, 2, 4)
    assert found.sustained.interval_s == 1


@pytest.mark.parametrize(("others", "told"), [(0.0, False), (0.1, False), (0.9, True)])
def test_a_busy_neighbour_is_warned_of(others, told):
    play = Played(a=1)
    play.other_cores = others
    (found,) = measure(play, "a")
    assert any("other programs kept" in warning for warning in found.warnings) == told


def test_a_lost_connection_is_taken_up_where_it_broke(monkeypatch):
    monkeypatch.setattr(measurement, "RECONNECT_AFTER_S", (0, 0))
    breaks = iter([False, True, False, True] + [False] * 100)

    def run():
        if next(breaks):
            raise ConnectionLost("gone")
        return 1

    plan = Timing(min_runs=10, min_s=0.2)
    (found,) = measure(Played(a=run), "a", timing=plan)
    assert found.conditions["reconnections"] == 2
    assert len(found.times_ns) >= 200
    assert not found.failure


def test_a_connection_that_breaks_too_often_is_given_up(monkeypatch):
    monkeypatch.setattr(measurement, "RECONNECT_AFTER_S", (0, 0))

    def run():
        raise ConnectionLost("gone")

    (found,) = measure(Played(a=run), "a")
    assert (found.failure, found.failure_kind) == ("gone", "ConnectionLost")
    assert found.times_ns == ()
