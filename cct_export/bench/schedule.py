"""Measuring artifacts against each other: in turn, each in a process of its own."""

import contextlib
import math
from collections.abc import Iterator, Sequence

from cct_export.bench import non_interleaved
from cct_export.bench.answers import Burst, Opened, Processing
from cct_export.bench.hosts.channel import Channel
from cct_export.bench.hosts.host import Host, Say
from cct_export.bench.measurement import Tally
from cct_export.errors import CCTExportError, ConnectionLost
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import BenchResult, Conditions
from cct_export.specs import BenchJob, BenchPasses, Timing

BURST_S = 0.05
# Before a turn the others have had the caches: some runs that do not count.
TURN_WARM_UP_S = 0.002


def measure(
    jobs: Sequence[BenchJob], timing: Timing, passes: BenchPasses, host: Host, say: Say
) -> list[BenchResult]:
    """Measures jobs: latency round robin, then what else is asked for, one after the other.

    Args:
        jobs: what to measure.
        timing: how often and how long.
        passes: what else to measure.
        host: where the workers run.
        say: called with what is done now.

    Returns:
        See ``Device.measure``.

    Raises:
        CCTExportError: the host cannot be used.
    """
    machine = host.describe()
    tallies = [Tally(job.path, job.spec, timing, host.name) for job in jobs]
    for tally in tallies:
        with _failure_kept(tally):
            tally.placed(host.place)
    for repeat in range(timing.repeats):
        of = f", repeat {repeat + 1} of {timing.repeats}" if timing.repeats > 1 else ""
        say(f"timing {len(tallies)} in turn{of}")
        with contextlib.ExitStack() as stack:
            _Repeat(timing, host, stack).run([tally for tally in tallies if tally.alive])
    references = non_interleaved.References(say)
    for tally in tallies:
        if tally.alive:
            with _failure_kept(tally):
                non_interleaved.measure(tally, passes, host, references, say)
    return [tally.result(machine) for tally in tallies]


@contextlib.contextmanager
def _failure_kept(tally: Tally) -> Iterator[None]:
    """Keeps an error with what it is about, and lets the others go on."""
    try:
        yield
    except CCTExportError as error:
        tally.fail(error)


class _Repeat:
    """Times all in turn, once.

    Args:
        timing: how often and how long.
        host: where the workers run.
        stack: closes the workers.
    """

    def __init__(self, timing: Timing, host: Host, stack: contextlib.ExitStack) -> None:
        self._timing, self._host, self._stack = timing, host, stack
        self._share = (
            math.ceil(timing.min_runs / timing.repeats),
            timing.min_s / timing.repeats,
        )

    def run(self, tallies: Sequence[Tally]) -> None:
        """Times the artifacts of ``tallies``, each until it has enough."""
        running: dict[int, Channel] = {}
        for index, tally in enumerate(tallies):
            with _failure_kept(tally):
                channel = tally.persist(lambda tally=tally: self._begin(tally))  # type: ignore[misc]
                if channel is not None:
                    running[index] = channel
        while running:
            for index, tally in enumerate(tallies):
                if index not in running:
                    continue
                with _failure_kept(tally):
                    running[index] = self._turn(tally, running[index], alone=len(running) == 1)
                if not tally.timing:
                    del running[index]

    def _begin(self, tally: Tally) -> Channel | None:
        """Returns a worker that has warmed up, None if there is no sense in timing."""
        channel = self._open(tally)
        if tally.first_repeat:
            tally.golden(channel.ask("golden", GoldenCheck))
            if not tally.alive:
                return None
            tally.processing(channel.ask("processing", Processing))
        channel.tell("warm_up", seconds=self._timing.warmup_s)
        tally.begin(channel.ask("conditions", Conditions))
        return channel

    def _open(self, tally: Tally) -> Channel:
        channel = self._stack.enter_context(self._host.start(str(tally.path)))
        tally.opened(channel.ask("open", Opened, path=tally.there, spec=tally.asked))
        return channel

    def _turn(self, tally: Tally, channel: Channel, alone: bool) -> Channel:
        """Times a burst, and ends the repeat if that was enough.

        Returns:
            The worker; another where the connection to the first was lost.
        """
        try:
            self._burst(tally, channel, alone)
        except ConnectionLost as error:
            tally.lost(error)
            return tally.persist(lambda: self._resume(tally))
        return channel

    def _resume(self, tally: Tally) -> Channel:
        channel = self._open(tally)
        channel.tell("warm_up", seconds=self._timing.warmup_s)
        return channel

    def _burst(self, tally: Tally, channel: Channel, alone: bool) -> None:
        if not alone:
            channel.tell("warm_up", seconds=TURN_WARM_UP_S)
        runs, seconds = tally.missing(*self._share)
        if seconds:
            tally.add(channel.ask("burst", Burst, runs=1, seconds=min(seconds, BURST_S)))
        else:
            fitting = min(runs, tally.fitting(BURST_S))
            tally.add(channel.ask("burst", Burst, runs=fitting, seconds=0.0))
        if tally.missing(*self._share) == (0, 0.0):
            tally.end(channel.ask("conditions", Conditions))
