"""Timing several sessions in turn, with a clock that the test moves."""

from cct_export.runtimes.timing import time_in_turn


class LoggingSession:
    """A session that logs its runs."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def invoke(self, prepared):
        self.log.append((self.name, prepared))


def test_every_session_has_its_turn_in_every_round():
    log = []
    sessions = [LoggingSession("a", log), LoggingSession("b", log)]
    ticks = iter(range(10_000))
    times = time_in_turn(
        sessions, ["x", "y"], rounds=3, burst=2, warmup=1, clock=lambda: next(ticks)
    )
    assert log == ([("a", "x")] * 3 + [("b", "y")] * 3) * 3
    assert times == [(1,) * 6, (1,) * 6]
