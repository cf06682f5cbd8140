"""``python -m fuzz``: feeds mutated files to the commands, and kills them, for some seconds."""

import argparse
import multiprocessing
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz import kills, minimize, regressions, seeds, table
from fuzz.cases import Case
from fuzz.kinds import KINDS
from fuzz.pool import Worker
from fuzz.worker import Result, Task

ROOT = Path(__file__).parents[2]
SEEDS = ROOT / "build/fuzz/seeds"
# Inputs of one kind in a row: a switch costs a library that has to be loaded.
TURN_S = 4.0
# Failures of a kind that are minimized, each of another cause; the rest is counted.
MAX_REPORTS = 8


class Run:
    """A run of some seconds over some kinds.

    Args:
        names: of the kinds.
        start: number of the first input of each kind.
    """

    def __init__(self, names: list[str], start: int) -> None:
        self.rows = {name: table.Row() for name in names}
        self._next = dict.fromkeys(names, start)
        self._spent = dict.fromkeys(names, 0.0)
        self._reported: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def work(self, end: float) -> None:
        """Feeds inputs to a worker until ``end``, most to the kind with the least time so far."""
        worker = Worker(SEEDS)
        try:
            worker.start()
            while time.monotonic() < end:
                with self._lock:
                    kind = min(self._spent, key=lambda name: self._spent[name])
                    # The other worker should take another kind.
                    self._spent[kind] += TURN_S
                started = time.monotonic()
                while time.monotonic() < min(end, started + TURN_S):
                    self._feed(worker, kind)
                with self._lock:
                    self._spent[kind] += time.monotonic() - started - TURN_S
        finally:
            worker.stop()

    def _feed(self, worker: Worker, kind: str) -> None:
        with self._lock:
            number = self._next[kind]
            self._next[kind] += 1
        result = worker.run(Task(kind, number))
        with self._lock:
            self.rows[kind].add(result)
            signature = (kind, _signature(result))
            known = sum(name == kind for name, _ in self._reported)
            report = (
                bool(result.failures) and signature not in self._reported and known < MAX_REPORTS
            )
            if report:
                self._reported.add(signature)
        if report:
            say(worker, kind, number, result)


def say(worker: Worker, kind: str, number: int, result: Result) -> None:
    """Prints a failure and the command that repeats it, and writes it minimized."""

    def fails(case: Case) -> bool:
        again = worker.run(Task(kind, number, case=case))
        return _reasons(again) == _reasons(result)

    tries = 4 if result.ended.why == "hang" else minimize.MAX_TRIES
    small = minimize.minimized(SEEDS, kind, number, fails, tries)
    path = regressions.write(small, SEEDS, "; ".join(result.failures), ROOT / "build/fuzz/failures")
    print(
        f"\n{kind} {number}: {'; '.join(result.failures)}\n"
        f"  command: {' '.join(small.words)}\n"
        f"  said: {(result.ended.err or result.ended.native).strip()[-300:]!r}\n"
        f"  again: PYTHONPATH=tests python -m fuzz --input {kind}:{number}\n"
        f"  minimized: {path.relative_to(ROOT)}",
        flush=True,
    )


def _signature(result: Result) -> str:
    """Returns what failures of one cause have in common: their words without names and numbers."""
    said = f"{result.failures} {result.ended.err[-300:]}"
    return re.sub(r"'[^']*'|\"[^\"]*\"|[\d.,:/]+", "", said)[:120]


def _reasons(result: Result) -> set[str]:
    return {failure.partition(":")[0] for failure in result.failures}


def main() -> int:
    """Runs the fuzzer; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (600)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="by default the time")
    parser.add_argument("--kinds", default="", help="some of: " + ", ".join(KINDS) + ", kills")
    parser.add_argument("--input", metavar="KIND:NUMBER", help="run one input again")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables into a page")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    maker = context.Process(target=seeds.make, args=(SEEDS,))
    maker.start()
    maker.join()
    if maker.exitcode:
        return 1
    if options.input:
        return _again(*options.input.split(":"))
    names = options.kinds.split(",") if options.kinds else [*KINDS, "kills"]
    return _fuzz([name for name in names if name == "kills" or KINDS[name].available()], options)


def _again(kind: str, number: str) -> int:
    worker = Worker(SEEDS)
    result = worker.run(Task(kind, int(number)))
    worker.stop()
    print(result.ended, *result.failures, sep="\n")
    return bool(result.failures)


def _fuzz(names: list[str], options: argparse.Namespace) -> int:
    print(f"seed {options.seed}: --seed {options.seed} repeats this run", flush=True)
    files = [name for name in names if name != "kills"]
    run = Run(files, options.seed * 1_000_000)
    end = time.monotonic() + options.seconds
    tally = kills.Tally()
    work: list[Callable[[int], None]] = [lambda index: run.work(end)] * bool(files)
    if "kills" in names:
        work.append(lambda index: kills.work(tally, SEEDS, [options.seed, index], end))
    workers = max(options.workers, len(work))
    with ThreadPoolExecutor(workers) as threads:
        # Half of the workers kill, the others feed.
        started = [threads.submit(work[index % len(work)], index) for index in range(workers)]
    for each in started:
        each.result()
    figures = f"{table.markdown(run.rows) if files else ''}\n{tally.markdown()}"
    print(f"\n{figures}", flush=True)
    if options.write:
        said = f"`python -m fuzz --seconds {options.seconds:.0f} --seed {options.seed}`:"
        table.write(options.write, f"{said}\n\n{figures}")
    return int(bool(table.total(run.rows).failures or tally.failures))


if __name__ == "__main__":
    sys.exit(main())
