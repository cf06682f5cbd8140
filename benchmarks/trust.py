"""Whether ``cct-bench`` can be believed: its overhead, its medians, its alarms.

``python benchmarks/trust.py overhead|loops|alarms --out FOLDER`` prints tables and writes JSON.
"""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import cct_export
from cct_export import machine
from cct_export.bench import latency, record, regression

ROOT = Path(__file__).parent
OVERHEAD_LIMIT_NS = 5000
RUNS = 100_000
WANTED = 0.05
STATUS = {0: "pass", 5: "regression", 7: "inconclusive"}
# What the console script runs. It rounds to 0.01 ms, which is 6 % of a run: here it does not.
LITERT_BENCHMARK = """
from ai_edge_litert.tools import benchmark_litert_model as tool
tool.round = lambda number, digits: number
tool.main()
"""
SLOWED = (1.05, 1.1, 1.2)
STATUSES = ("pass", "inconclusive", "regression")
# Ends with its parent, should that be killed.
SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
CCT_BENCH = "from cct_export.commands.program import bench_main; bench_main()"
# Seconds that a scheduler takes to give a new process its core.
SETTLE_S = 1.0


@click.group()
def main() -> None:
    """Find out whether cct-bench can be believed."""


_out = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the JSON."
)


def write(folder: Path, name: str, found: dict[str, Any]) -> None:
    """Writes what was found, with the machine that it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"machine": machine.describe()} | found
    (folder / f"trust-{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# Overhead


class Idle:
    """A session that does nothing."""

    def invoke(self, prepared: np.ndarray) -> np.ndarray:
        """Returns what it was given."""
        return prepared


def burst_ns() -> tuple[float, float]:
    """Returns the wall time of a run that does nothing in a burst, and how long it is said to be.

    The first is what the loop costs beside the engine, the second what it adds to each figure.
    """
    started = time.perf_counter_ns()
    times = latency.burst(Idle(), np.zeros(1), RUNS, 0.0)  # type: ignore[arg-type]
    return (time.perf_counter_ns() - started) / RUNS, statistics.median(times)


def empty_ns() -> float:
    """Returns the wall time of a turn of a loop that only calls the session."""
    invoke, image = Idle().invoke, np.zeros(1)
    started = time.perf_counter_ns()
    for _ in range(RUNS):
        invoke(image)
    return (time.perf_counter_ns() - started) / RUNS


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=10)
@_out
def overhead(rounds: int, out: Path) -> None:
    """Time the harness itself: a session that does nothing."""
    pairs = [(burst_ns(), empty_ns()) for _ in range(rounds)]
    wall = statistics.median(whole for (whole, _), _ in pairs)
    said = statistics.median(times for (_, times), _ in pairs)
    empty = statistics.median(loop for _, loop in pairs)
    added = wall - empty
    rows = [
        ("a run that does nothing, in a burst", f"{wall:.0f}"),
        ("the same in an empty loop", f"{empty:.0f}"),
        ("overhead beside a run", f"{added:.0f}"),
        ("of it in the figure", f"{said:.0f}"),
    ]
    click.echo(table(("what", "ns"), rows))
    good = added < OVERHEAD_LIMIT_NS
    click.echo(f"\n{verdict(good)}: {added:.0f} ns, below {OVERHEAD_LIMIT_NS} ns wanted")
    found = {"burst_ns": wall, "reported_ns": said, "empty_ns": empty, "overhead_ns": added}
    write(out, "overhead", found | {"good": good})


def verdict(good: bool) -> str:
    """Returns the word for it."""
    return "good" if good else "NOT GOOD"


# Loops


def files(folder: Path) -> list[Path]:
    """Exports the example's model: both formats, float32 and int8."""
    made = []
    for format, export in (
        ("tflite", cct_export.export_tflite),
        ("onnx", cct_export.export_onnx),
    ):
        for scheme, name in (("none", "float32"), ("int8", "int8")):
            path = folder / f"{name}.{format}"
            export("cct_keras_io", path, scheme)
            made.append(path)
    return made


def ours(path: Path, seconds: float) -> float:
    """Returns the median (ms) of ``cct_export.bench``."""
    (found,) = cct_export.benchmark(path.suffix[1:], sources=[path], min_s=seconds)
    return statistics.median(found.times_ns) / 1e6


def plain(path: Path, seconds: float) -> float:
    """Returns the median (ms) of a loop that knows nothing of this package."""
    command = [sys.executable, "-P", ROOT / "plain_loop.py", path, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return statistics.median(json.loads(done.stdout)) / 1e6


def litert_tool(path: Path, seconds: float, run_ms: float) -> float:
    """Returns the median (ms) of LiteRT's own ``litert-benchmark``.

    Args:
        path: a ``.tflite`` file.
        seconds: how long, about.
        run_ms: how long a run takes, about.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "result.json"
        options = {
            "model": path,
            "num_runs": runs_in(seconds, run_ms),
            "warmup_runs": runs_in(0.5, run_ms),
            "num_threads": 1,
            "result_json": written,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-P", "-c", LITERT_BENCHMARK, *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return litert_median_ms(json.loads(written.read_text()))


def runs_in(seconds: float, run_ms: float) -> int:
    """Returns how many runs fit, one at least."""
    return max(1, round(seconds * 1e3 / run_ms))


def litert_median_ms(found: dict[str, Any]) -> float:
    """Returns the median in what ``litert-benchmark --result_json`` wrote.

    Raises:
        RuntimeError: it was not the CPU that ran the file, or not all of it.
    """
    if found["accelerators"] != ["CPU"] or not found["fully_accelerated"]:
        raise RuntimeError(f"litert-benchmark ran it on {found['accelerators']}, or not whole")
    median: float = found["latency"]["median_ms"]
    return median


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median and the quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(low), float(high)


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=10)
@click.option("--seconds", type=float, default=1.0, help="Of timed runs in a turn.")
@_out
def loops(rounds: int, seconds: float, out: Path) -> None:
    """Time the same files with cct-bench, a plain loop and LiteRT's own tool, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        made = files(Path(folder))
        expected = {path: plain(path, 0.2) for path in made}
        times: dict[Path, dict[str, list[float]]] = {path: {} for path in made}
        for turn in range(rounds):
            for path in made:
                for name, measure in _rotated(_ways(path, seconds, expected[path]), turn):
                    times[path].setdefault(name, []).append(measure())
    rows = [_row(path.name, found) for path, found in times.items()]
    head = ("file", "cct-bench ms", "plain loop ms", "ratio", "litert-benchmark ms", "ratio")
    click.echo(table(head, rows))
    worst = max(abs(_ratios(found, "plain")[0] - 1) for found in times.values())
    click.echo(f"\n{verdict(worst <= WANTED)}: within {worst:.1%} of the plain loop")
    kept = {path.name: found for path, found in times.items()}
    write(out, "loops", {"ms": kept, "worst": worst, "good": worst <= WANTED})


Ways = list[tuple[str, Callable[[], float]]]


def _ways(path: Path, seconds: float, run_ms: float) -> Ways:
    ways: Ways = [
        ("ours", lambda: ours(path, seconds)),
        ("plain", lambda: plain(path, seconds)),
    ]
    if path.suffix == ".tflite":
        ways.append(("litert", lambda: litert_tool(path, seconds, run_ms)))
    return ways


def _rotated(ways: Ways, turn: int) -> Ways:
    """Returns the ways with another one first in every turn."""
    start = turn % len(ways)
    return ways[start:] + ways[:start]


def _ratios(found: dict[str, list[float]], other: str) -> tuple[float, float, float]:
    """Returns median and quartiles of ours over another's, turn by turn."""
    return spread([a / b for a, b in zip(found["ours"], found[other], strict=True)])


def _row(name: str, found: dict[str, list[float]]) -> list[str]:
    cells = [name, f"{statistics.median(found['ours']):.4f}"]
    for other in ("plain", "litert"):
        if other in found:
            middle, low, high = _ratios(found, other)
            cells += [f"{statistics.median(found[other]):.4f}"]
            cells += [f"{middle:.3f} ({low:.3f} to {high:.3f})"]
        else:
            cells += ["–", "–"]
    return cells


# Alarms


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keeps so many cores busy, and stops that whatever happens."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            neighbour = subprocess.Popen([sys.executable, "-c", SPIN])
            stack.callback(neighbour.wait)
            stack.callback(neighbour.kill)
        time.sleep(SETTLE_S)
        yield


def cct_bench(*arguments: str | Path) -> int:
    """Runs a command, and returns its exit code."""
    command = [sys.executable, "-c", CCT_BENCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in STATUS:
        raise RuntimeError(f"{arguments}: {done.returncode}: {done.stderr[-500:]}")
    return done.returncode


def checked(baseline: Path, source: Path, folder: Path) -> dict[str, Any]:
    """Runs ``cct-bench check`` once.

    Returns:
        The ``status`` that its exit code says; ratio, bounds and conditions; and what the bounds
        alone say if nobody minds other programs: of these times, as ``quiet``; of a baseline with
        one repeat, as ``single``; of times so many times as long, as ``slowed``.
    """
    written = folder / "now.json"
    code = cct_bench("check", "--baseline", baseline, source, "--json", written, "-q")
    (then,), (now,) = record.read(baseline), record.read(written)
    found = unhindered(then, now)
    return {
        "status": STATUS[code],
        "quiet": found.status,
        "single": unhindered(first_repeat(then), now).status,
        "slowed": {by: unhindered(then, slowed(now, by)).status for by in SLOWED},
        "ratio": found.ratio,
        "other_cores": now.conditions["other_cores"],
        "speed": now.conditions["yardstick_ms"] / then.conditions["yardstick_ms"],
        "repeats_ms": repeats_ms(now),
    }


def repeats_ms(result: Any) -> tuple[float, ...]:
    """Returns the median of every repeat."""
    from cct_export.bench.statistics import repeat_headlines_ms

    return repeat_headlines_ms(result)


def first_repeat(result: Any) -> Any:
    """Returns a measurement as if it had ended after one process."""
    bursts = result.bursts[:1]
    return dataclasses.replace(result, bursts=bursts, times_ns=result.times_ns[: sum(bursts[0])])


def slowed(result: Any, by: float) -> Any:
    """Returns a measurement whose runs took so many times as long."""
    return dataclasses.replace(result, times_ns=tuple(int(t * by) for t in result.times_ns))


def unhindered(then: Any, now: Any) -> regression.Verdict:
    """Judges as if no other program had run: what the bounds alone say."""
    pair = [
        dataclasses.replace(one, conditions=one.conditions | {"other_cores": 0.0})
        for one in (then, now)
    ]
    return regression.judge(*pair, regression.Limits())


def counts(found: Sequence[dict[str, Any]], key: Any) -> str:
    """Returns ``pass/inconclusive/regression`` as counts."""
    seen = Counter(one[key] for one in found)
    return " / ".join(str(seen[status]) for status in STATUSES)


@main.command()
@click.option("--repeats", type=click.IntRange(1), default=20, help="Checks of an unchanged file.")
@click.option("--others", type=click.IntRange(1), default=5, help="Checks of everything else.")
@_out
def alarms(repeats: int, others: int, out: Path) -> None:
    """Check an unchanged file, slower ones, and one among busy programs, again and again."""
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        float32, int8 = files(folder)[:2]
        baseline = folder / "then.json"
        cct_bench("tflite", int8, "--repeats", "5", "-q", "--json", baseline)
        found["unchanged"] = [checked(baseline, int8, folder) for _ in range(repeats)]
        found["float32 instead"] = [checked(baseline, float32, folder) for _ in range(others)]
        with busy(machine.usable_cores()):
            found["busy neighbours"] = [checked(baseline, int8, folder) for _ in range(others)]
    wanted = {
        "unchanged": {"pass", "inconclusive"},
        "float32 instead": {"regression", "inconclusive"},
        "busy neighbours": {"inconclusive"},
    }
    rows = [
        (
            what, len(found[what]), counts(found[what], "status"), counts(found[what], "quiet"),
            "{:.3f} ({:.3f} to {:.3f})".format(*spread([one["ratio"][0] for one in found[what]])),
            f"{statistics.median(one['other_cores'] for one in found[what]):.2f}",
        )
        for what in wanted
    ]  # fmt: skip
    head = ("what", "checks", "verdicts", "by the bounds alone", "ratio", "other cores")
    click.echo(f"Verdicts: {' / '.join(STATUSES)}.\n\n{table(head, rows)}\n")
    same = found["unchanged"]
    rows = [("a baseline with one repeat", counts(same, "single"))]
    rows += [
        (f"{by:g} times as long", counts([one["slowed"] for one in same], by)) for by in SLOWED
    ]
    click.echo(table(("the unchanged, recalculated as", "by the bounds alone"), rows))
    good = all(one["status"] in wanted[what] for what, ones in found.items() for one in ones)
    # Among busy programs a verdict is hindered; by the bounds alone it has to be right.
    good &= all(one["quiet"] != "regression" for one in same)
    good &= all(one["single"] != "regression" for one in same)
    slower = found["float32 instead"]
    good &= all(one["quiet"] == "regression" for one in slower)
    click.echo(f"\n{verdict(good)}")
    write(out, "alarms", {"checks": found, "good": good})


if __name__ == "__main__":
    main()
