"""Validates cct-bench: its overhead, its medians against other tools, and its regression check.

``python benchmarks/validate.py overhead|medians|regressions --out FOLDER`` prints tables and
writes JSON.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
from tables import table

import cct_export
from cct_export import machine
from cct_export.bench import record, regression, worker
from cct_export.bench.statistics import Interval, repeat_headlines_ms
from cct_export.records import BenchResult

ROOT = Path(__file__).parent
OVERHEAD_LIMIT_NS = 5000
RUNS = 100_000
LARGEST_DEVIATION = 0.05
STATUS = {0: "pass", 5: "regression", 7: "inconclusive"}
STATUSES = ("pass", "inconclusive", "regression")
# The tool rounds to 0.01 ms, which is 6 % of a run: here it does not round.
LITERT_BENCHMARK = """
from ai_edge_litert.tools import benchmark_litert_model as tool
tool.round = lambda number, digits: number
tool.main()
"""
# What the console script runs.
CCT_BENCH = "from cct_export.commands.program import bench_main; bench_main()"
SLOWDOWNS = (1.05, 1.1, 1.2)
# Ends with its parent, should that be killed.
BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
# Seconds that a scheduler takes to give a new process its core.
SETTLE_S = 1.0


@click.group()
def main() -> None:
    """Validate the measurements of cct-bench."""


_out = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the JSON."
)


def write(folder: Path, name: str, fields: dict[str, object]) -> None:
    """Writes the figures with the machine that they are of."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"machine": asdict(machine.describe())} | fields
    (folder / f"validate-{name}.json").write_text(json.dumps(fields, indent=1) + "\n")


def print_verdict(passed: bool, reason: str = "") -> None:
    """Prints ``passed`` or ``FAILED``."""
    click.echo(f"\n{'passed' if passed else 'FAILED'}{reason}")


def files(folder: Path) -> list[Path]:
    """Exports the example's model: both formats, float32 and int8."""
    exports = {"tflite": cct_export.export_tflite, "onnx": cct_export.export_onnx}
    schemes = {"float32": "none", "int8": "int8"}
    paths = [folder / f"{name}.{format}" for format in exports for name in schemes]
    for path in paths:
        export = exports[path.suffix[1:]]
        export("cct_keras_io", output=path, scheme=schemes[path.stem])
    return paths


# Overhead


class Idle:
    """A session that does nothing."""

    def invoke(self, prepared: np.ndarray) -> np.ndarray:
        """Returns its input."""
        return prepared


def burst_ns() -> tuple[float, float]:
    """Returns the wall time of a run that does nothing in a burst, and its reported time.

    The first is the cost of the loop beside the engine, the second what it adds to each figure.
    """
    start = time.perf_counter_ns()
    times = worker.time_burst(Idle(), np.zeros(1), RUNS, 0.0)  # type: ignore[arg-type]
    return (time.perf_counter_ns() - start) / RUNS, statistics.median(times)


def empty_ns() -> float:
    """Returns the wall time of a turn of a loop that only calls the session."""
    invoke, image = Idle().invoke, np.zeros(1)
    start = time.perf_counter_ns()
    for _ in range(RUNS):
        invoke(image)
    return (time.perf_counter_ns() - start) / RUNS


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=10)
@_out
def overhead(rounds: int, out: Path) -> None:
    """Time the harness itself, with a session that does nothing."""
    pairs = [(burst_ns(), empty_ns()) for _ in range(rounds)]
    wall = statistics.median(wall for (wall, _), _ in pairs)
    reported = statistics.median(reported for (_, reported), _ in pairs)
    empty = statistics.median(empty for _, empty in pairs)
    added = wall - empty
    rows = [
        ("a run that does nothing, in a burst", f"{wall:.0f}"),
        ("the same in an empty loop", f"{empty:.0f}"),
        ("overhead beside a run", f"{added:.0f}"),
        ("part of it in the figure", f"{reported:.0f}"),
    ]
    click.echo(table(("what", "ns"), rows))
    passed = added < OVERHEAD_LIMIT_NS
    print_verdict(passed, f": {added:.0f} ns, {OVERHEAD_LIMIT_NS} ns allowed")
    fields = {"burst_ns": wall, "reported_ns": reported, "empty_ns": empty, "overhead_ns": added}
    write(out, "overhead", fields | {"passed": passed})


# Medians


def cct_bench_ms(path: Path, seconds: float) -> float:
    """Returns the median (ms) of ``cct_export.benchmark``."""
    (result,) = cct_export.benchmark(path.suffix[1:], sources=path, min_s=seconds)
    return statistics.median(result.times_ns) / 1e6


def plain_loop_ms(path: Path, seconds: float) -> float:
    """Returns the median (ms) of a loop that uses nothing of this package."""
    command = [sys.executable, "-P", ROOT / "plain_loop.py", path, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return statistics.median(json.loads(done.stdout)) / 1e6


def litert_benchmark_ms(path: Path, seconds: float, run_ms: float) -> float:
    """Returns the median (ms) of LiteRT's own ``litert-benchmark``.

    Args:
        path: a ``.tflite`` file.
        seconds: about how long to run.
        run_ms: about how long a run takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "result.json"
        options = {
            "model": path,
            "num_runs": max(1, round(seconds * 1e3 / run_ms)),
            "warmup_runs": max(1, round(500 / run_ms)),
            "num_threads": 1,
            "result_json": written,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-P", "-c", LITERT_BENCHMARK, *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return litert_median_ms(written.read_text())


def litert_median_ms(text: str) -> float:
    """Returns the median in the JSON that ``litert-benchmark --result_json`` wrote.

    Raises:
        RuntimeError: the file ran on something else than the CPU, or in part only.
    """
    result = json.loads(text)
    if result["accelerators"] != ["CPU"] or not result["fully_accelerated"]:
        raise RuntimeError(f"litert-benchmark ran it on {result['accelerators']}, or not whole")
    return float(result["latency"]["median_ms"])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median and the quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(low), float(high)


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=10)
@click.option("--seconds", type=float, default=1.0, help="Timed runs of each tool in a round.")
@_out
def medians(rounds: int, seconds: float, out: Path) -> None:
    """Time the same files with cct-bench, a plain loop and LiteRT's own tool, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        paths = files(Path(folder))
        expected = {path: plain_loop_ms(path, 0.2) for path in paths}
        times: dict[Path, dict[str, list[float]]] = {path: {} for path in paths}
        for turn in range(rounds):
            for path in paths:
                for name, measure in rotated(_tools(path, seconds, expected[path]), turn):
                    times[path].setdefault(name, []).append(measure())
    rows = [medians_row(path.name, by_tool) for path, by_tool in times.items()]
    head = ("file", "cct-bench ms", "plain loop ms", "ratio", "litert-benchmark ms", "ratio")
    click.echo(table(head, rows))
    worst = max(abs(ratios(by_tool, "plain")[0] - 1) for by_tool in times.values())
    passed = worst <= LARGEST_DEVIATION
    print_verdict(passed, f": within {worst:.1%} of the plain loop")
    by_file = {path.name: by_tool for path, by_tool in times.items()}
    write(out, "medians", {"ms": by_file, "worst": worst, "passed": passed})


Tool = tuple[str, Callable[[], float]]


def _tools(path: Path, seconds: float, run_ms: float) -> list[Tool]:
    tools: list[Tool] = [
        ("cct-bench", lambda: cct_bench_ms(path, seconds)),
        ("plain", lambda: plain_loop_ms(path, seconds)),
    ]
    if path.suffix == ".tflite":
        tools.append(("litert", lambda: litert_benchmark_ms(path, seconds, run_ms)))
    return tools


def rotated(tools: list[Tool], turn: int) -> list[Tool]:
    """Returns the tools with another one first in every turn."""
    start = turn % len(tools)
    return tools[start:] + tools[:start]


def ratios(by_tool: dict[str, list[float]], other: str) -> tuple[float, float, float]:
    """Returns median and quartiles of cct-bench over another tool, turn by turn."""
    return quartiles([a / b for a, b in zip(by_tool["cct-bench"], by_tool[other], strict=True)])


def medians_row(name: str, by_tool: dict[str, list[float]]) -> list[str]:
    """Returns the cells of a file: median of each tool, and the ratios."""
    cells = [name, f"{statistics.median(by_tool['cct-bench']):.4f}"]
    for other in ("plain", "litert"):
        if other in by_tool:
            middle, low, high = ratios(by_tool, other)
            cells += [f"{statistics.median(by_tool[other]):.4f}"]
            cells += [f"{middle:.3f} ({low:.3f} to {high:.3f})"]
        else:
            cells += ["–", "–"]
    return cells


# Regressions


@dataclass(frozen=True)
class Check:
    """One run of ``cct-bench check``, and verdicts recalculated from its times.

    Attributes:
        status: ``pass``, ``regression`` or ``inconclusive``, from the exit code.
        by_interval: the verdict if busy neighbours were ignored.
        single_repeat: the same with only the first repeat of the baseline.
        slowed: the same with every run so many times as long.
        ratio: latency now over then, with the bounds of its interval.
        other_cores: cores that other programs kept busy.
        speed: a fixed piece of work, now over then.
        repeats_ms: headline of every repeat.
    """

    status: str
    by_interval: str
    single_repeat: str
    slowed: dict[float, str]
    ratio: Interval
    other_cores: float
    speed: float
    repeats_ms: tuple[float, ...]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keeps so many cores busy, and ends that even after an exception."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            neighbour = subprocess.Popen([sys.executable, "-c", BUSY_LOOP])
            stack.callback(neighbour.wait)
            stack.callback(neighbour.kill)
        time.sleep(SETTLE_S)
        yield


def cct_bench(*arguments: str | Path) -> int:
    """Runs a command and returns its exit code."""
    command = [sys.executable, "-c", CCT_BENCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in STATUS:
        raise RuntimeError(f"{arguments}: {done.returncode}: {done.stderr[-500:]}")
    return done.returncode


def check(baseline: Path, source: Path, folder: Path) -> Check:
    """Runs ``cct-bench check`` once."""
    written = folder / "now.json"
    code = cct_bench("check", "--baseline", baseline, source, "--json", written, "-q")
    (then,), (now,) = record.read(baseline), record.read(written)
    judged = judge_quiet(then, now)
    return Check(
        status=STATUS[code],
        by_interval=judged.status,
        single_repeat=judge_quiet(first_repeat(then), now).status,
        slowed={factor: judge_quiet(then, slowed(now, factor)).status for factor in SLOWDOWNS},
        ratio=judged.ratio,
        other_cores=now.conditions.other_cores,
        speed=now.conditions.yardstick_ms / then.conditions.yardstick_ms,
        repeats_ms=repeat_headlines_ms(now),
    )


def first_repeat(result: BenchResult) -> BenchResult:
    """Returns a measurement as if it had ended after one process."""
    bursts = result.bursts[:1]
    return replace(result, bursts=bursts, times_ns=result.times_ns[: sum(bursts[0])])


def slowed(result: BenchResult, factor: float) -> BenchResult:
    """Returns a measurement whose runs took so many times as long."""
    return replace(result, times_ns=tuple(int(t * factor) for t in result.times_ns))


def judge_quiet(then: BenchResult, now: BenchResult) -> regression.Verdict:
    """Judges by the interval alone, as if no other program had run."""
    quiet = [
        replace(result, conditions=replace(result.conditions, other_cores=0.0))
        for result in (then, now)
    ]
    return regression.judge(*quiet, regression.Limits())


def counts(statuses: Sequence[str]) -> str:
    """Returns the numbers of ``pass / inconclusive / regression``."""
    number = Counter(statuses)
    return " / ".join(str(number[status]) for status in STATUSES)


@main.command()
@click.option("--repeats", type=click.IntRange(1), default=20, help="Checks of the same file.")
@click.option("--others", type=click.IntRange(1), default=5, help="Checks of everything else.")
@_out
def regressions(repeats: int, others: int, out: Path) -> None:
    """Check the same file, a slower one, and one beside busy programs, many times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        float32, int8 = files(folder)[:2]
        baseline = folder / "then.json"
        cct_bench("tflite", int8, "--repeats", "5", "-q", "--json", baseline)
        same = [check(baseline, int8, folder) for _ in range(repeats)]
        slower = [check(baseline, float32, folder) for _ in range(others)]
        with busy(machine.usable_cores()):
            disturbed = [check(baseline, int8, folder) for _ in range(others)]
    rows = [
        (
            what, len(checks), counts([check.status for check in checks]),
            counts([check.by_interval for check in checks]),
            "{:.3f} ({:.3f} to {:.3f})".format(*quartiles([check.ratio[0] for check in checks])),
            f"{statistics.median(check.other_cores for check in checks):.2f}",
        )
        for what, checks in (
            ("unchanged", same), ("float32 instead", slower), ("busy neighbours", disturbed),
        )
    ]  # fmt: skip
    head = ("what", "checks", "verdicts", "by the interval alone", "ratio", "other cores")
    click.echo(f"Verdicts: {' / '.join(STATUSES)}.\n\n{table(head, rows)}\n")
    rows = [("a baseline with one repeat", counts([check.single_repeat for check in same]))]
    rows += [
        (f"{factor:g} times as long", counts([check.slowed[factor] for check in same]))
        for factor in SLOWDOWNS
    ]
    click.echo(table(("the unchanged, recalculated as", "by the interval alone"), rows))
    passed = all_right(same, slower, disturbed)
    print_verdict(passed)
    groups = {"unchanged": same, "float32 instead": slower, "busy neighbours": disturbed}
    checks = {what: [asdict(c) for c in group] for what, group in groups.items()}
    write(out, "regressions", {"checks": checks, "passed": passed})


def all_right(same: list[Check], slower: list[Check], disturbed: list[Check]) -> bool:
    """Whether no verdict is wrong, and no interval either."""
    return (
        not any(check.status == "regression" for check in same)
        and not any(check.status == "pass" for check in slower)
        and all(check.status == "inconclusive" for check in disturbed)
        and not any("regression" in (check.by_interval, check.single_repeat) for check in same)
        and all(check.by_interval == "regression" for check in slower)
    )


if __name__ == "__main__":
    main()
