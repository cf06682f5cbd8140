"""Measuring artifacts against each other: in turn, each in a process of its own."""

import contextlib
import math
from collections.abc import Iterator, Sequence

from cct_export.devices import apart
from cct_export.devices.channel import Channel, Say, Start
from cct_export.devices.tally import Tally
from cct_export.errors import CCTExportError
from cct_export.results import BenchResult
from cct_export.specs import BenchJob, BenchPasses, Timing

BURST_S = 0.05
# Before a turn the others have had the caches: some runs that do not count.
TURN_WARM_UP_S = 0.002


def _silent(message: str) -> None:
    """Default progress: none."""


def measure(
    jobs: Sequence[BenchJob],
    timing: Timing,
    passes: BenchPasses,
    start: Start,
    device: str = "local",
    say: Say = _silent,
) -> list[BenchResult]:
    """Measures jobs: latency round robin, then what else is asked for, one after the other.

    Args:
        jobs: what to measure.
        timing: how often and how long.
        passes: what else to measure.
        start: starts a worker where the measurement runs.
        device: name of that place.
        say: called with what is done now.

    Returns:
        A result for each job; one that could not be measured says why, one whose golden parity
        failed has no latency.
    """
    tallies = [Tally(job.path, job.spec, timing, device) for job in jobs]
    for repeat in range(timing.repeats):
        of = f", repeat {repeat + 1} of {timing.repeats}" if timing.repeats > 1 else ""
        say(f"timing {len(tallies)} in turn{of}")
        _repeat([tally for tally in tallies if tally.alive], timing, start)
    references = apart.References(start, say)
    for tally in tallies:
        if tally.alive:
            with _failure_kept(tally):
                apart.measure(tally, passes, start, references, say)
    return [tally.result() for tally in tallies]


@contextlib.contextmanager
def _failure_kept(tally: Tally) -> Iterator[None]:
    """Keeps an error with what it is about, and lets the others go on."""
    try:
        yield
    except CCTExportError as error:
        tally.fail(error)


def _repeat(tallies: Sequence[Tally], timing: Timing, start: Start) -> None:
    """Times all in turn, once."""
    with contextlib.ExitStack() as stack:
        running: dict[int, tuple[Tally, Channel]] = {}
        for index, tally in enumerate(tallies):
            channel = stack.enter_context(start(str(tally.path)))
            with _failure_kept(tally):
                _open(tally, channel)
                if tally.alive:
                    channel.ask("warm_up", seconds=timing.warmup_s)
                    tally.begin(channel.ask("conditions"))
                    running[index] = tally, channel
        share = math.ceil(timing.min_runs / timing.repeats), timing.min_s / timing.repeats
        while running:
            for index, (tally, channel) in list(running.items()):
                with _failure_kept(tally):
                    _turn(tally, channel, share, alone=len(running) == 1)
                if not tally.timing:
                    del running[index]


def _open(tally: Tally, channel: Channel) -> None:
    tally.opened(channel.ask("open", path=str(tally.path), spec=tally.asked))
    if tally.first_repeat:
        tally.golden(channel.ask("golden"))
        if tally.alive:
            tally.processing(channel.ask("processing"))


def _turn(tally: Tally, channel: Channel, share: tuple[int, float], alone: bool) -> None:
    """Times a burst, and ends the repeat if that was enough."""
    if not alone:
        channel.ask("warm_up", seconds=TURN_WARM_UP_S)
    runs, seconds = tally.missing(*share)
    if seconds:
        tally.add(channel.ask("burst", runs=1, seconds=min(seconds, BURST_S)))
    else:
        tally.add(channel.ask("burst", runs=min(runs, tally.fitting(BURST_S)), seconds=0.0))
    if tally.missing(*share) == (0, 0.0):
        tally.end(channel.ask("conditions"))
