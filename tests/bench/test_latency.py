"""Timing with a clock that the test moves."""

import pytest

from cct_export.bench.latency import burst, warm_up, yardstick_ms

MS = 1_000_000


class Clock:
    """Nanoseconds that pass only when a session runs."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class Runs:
    """A session whose runs take what ``durations`` say, the last one for ever after."""

    def __init__(self, clock, *durations):
        self.clock, self.durations, self.count = clock, durations, 0

    def invoke(self, prepared):
        assert prepared == "pixels"
        self.clock.now += self.durations[min(self.count, len(self.durations) - 1)]
        self.count += 1


def timed(durations, runs, seconds):
    clock = Clock()
    session = Runs(clock, *durations)
    return burst(session, "pixels", runs, seconds, clock), session


def test_every_run_is_kept_as_it_was_and_in_order():
    durations = [3 * MS, 9 * MS, 1 * MS, 500 * MS, 2 * MS]
    times, _ = timed(durations, runs=5, seconds=0)
    assert list(times) == durations


def test_warm_up_runs_for_as_long_as_is_asked():
    clock = Clock()
    session = Runs(clock, 100 * MS)
    warm_up(session, "pixels", 0.5, clock)
    assert session.count == 5


def test_without_time_nothing_is_warmed_up():
    session = Runs(Clock(), MS)
    warm_up(session, "pixels", 0, session.clock)
    assert session.count == 0


def test_there_are_enough_runs_even_when_each_takes_long():
    times, _ = timed([2000 * MS], runs=50, seconds=1.0)
    assert len(times) == 50


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_there_is_enough_time_even_when_each_run_is_short(seconds):
    times, _ = timed([MS], runs=50, seconds=seconds)
    assert len(times) == seconds * 1000


def test_without_minimum_there_is_one_run():
    times, session = timed([MS], runs=1, seconds=0)
    assert len(times) == session.count == 1


def test_the_yardstick_is_the_best_of_its_runs():
    ticks = iter([0, 9, 10, 13, 20, 25] + [0, 50] * 100)
    assert yardstick_ms(clock=lambda: next(ticks)) == 3 / 1e6


class Counter:
    """A session that says when it ran; its clock ticks with every run."""

    def __init__(self, name, order):
        self.name, self.order = name, order

    def invoke(self, prepared):
        self.order.append((self.name, prepared))


def test_sessions_have_their_turn_in_every_round():
    from cct_export.bench.latency import time_in_turn

    order = []
    sessions = [Counter("a", order), Counter("b", order)]
    ticks = iter(range(10_000))
    times = time_in_turn(
        sessions, ["x", "y"], rounds=3, burst=2, warmup=1, clock=lambda: next(ticks)
    )
    assert order == ([("a", "x")] * 3 + [("b", "y")] * 3) * 3
    assert times == [(1,) * 6, (1,) * 6]
