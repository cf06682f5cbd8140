"""Compares what this project makes of a model with what the stock routes make of it.

``python benchmarks/run.py --data DATA`` writes results.json, results.md and latency-accuracy.png.
"""

import logging
import os
import re
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cct_export.errors import CCTExportError, InvalidArtifact
from cct_export.specs import DEFAULT_MODEL

log = logging.getLogger("benchmarks")
ACCURACY = ("top1", "top5", "samples", "top1_interval", "top5_interval", "calibration_error")
LIBRARIES = (
    "tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer", "onnx", "onnxruntime", "tf2onnx",
)  # fmt: skip


@click.command()
@click.option("--data", required=True, help="Images: cifar10, digits, a folder or an .npz.")
@click.option("--model", default=DEFAULT_MODEL, help="A preset, .keras, .weights.h5 or run.")
@click.option("--out", type=click.Path(path_type=Path), help="By default results/MACHINE/MODEL.")
@click.option("--threads", default="1,2", help="Thread counts to time with.")
@click.option("--rounds", type=click.IntRange(1), default=60, help="Turns of 20 runs each.")
@click.option("--images", type=click.IntRange(1), default=1000, help="Images that parity takes.")
@click.option("--schemes", default="", help="Only these of ours, as none,int8, and their twins.")
def main(
    data: str, model: str, out: Path | None, threads: str, rounds: int, images: int, schemes: str
) -> None:
    """Compare cct-export with the stock routes, from the same weights, in one run."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    counts = _counts(threads)
    try:
        record = measure(model, data, counts, rounds, images, schemes.split(",") if schemes else [])
    except CCTExportError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    import report

    place = Path(__file__).parent / "results" / slug(record["machine"]["cpu"])
    folder = out or place / record["model"]
    report.write(record, folder)
    click.echo(f"wrote {folder}")


def _counts(text: str) -> list[int]:
    """Returns thread counts from ``1,2``."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise click.BadParameter(
            f"{text!r} is no list of numbers such as 1,2", param_hint="--threads"
        )
    return [int(part) for part in text.split(",")]


def slug(cpu: str) -> str:
    """Returns a processor's name as that of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")


def measure(
    model: str, data: str, threads: list[int], rounds: int, images: int, schemes: list[str]
) -> dict[str, Any]:
    """Makes every file, proves and times it.

    Args:
        model: what the commands take as MODEL.
        data: what they take as ``--data``.
        threads: thread counts to time with.
        rounds: turns of every artifact.
        images: test images that parity takes.
        schemes: those of ours to take, with the stock routes beside them; all if empty.

    Returns:
        What results.json holds.
    """
    import routes

    from cct_export import machine

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            make(route, routes.file_of(folder, route.name, route.format))
            for route in routes.chosen(routes.routes(model, data, folder), schemes)
        ]
        for row in rows:
            prove(row, model, data, images)
        timed = [row for row in rows if not row["refused"]]
        record = {
            "command": shlex.join(["python", "benchmarks/run.py", *_plain(sys.argv[1:])]),
            "machine": machine.describe(),
            "versions": machine.versions(*LIBRARIES),
            "model": Path(model).name,
            "parity_images": images,
            "cold_export_s": routes.cold_export_s(model, folder),
            "roofline": {count: race(timed, count, rounds) for count in threads},
        }
    for row in rows:
        del row["path"]
    return record | {"rows": rows}


def _plain(arguments: list[str]) -> list[str]:
    """Returns the arguments without the folders above the files they name."""
    return [argument.rstrip("/").rpartition("/")[2] for argument in arguments]


def make(route: Any, path: Path) -> dict[str, Any]:
    """Makes the file of a route and returns its row, which says so if the route refuses."""
    log.info("making %s", route.name)
    fields = {key: value for key, value in asdict(route).items() if key != "make"}
    row = fields | {"ours": route.ours, "path": path, "refused": "", "times_ns": {}}
    started = time.perf_counter()
    try:
        route.make(path)
    except Exception as error:  # whatever the stock routes raise is the result
        row["refused"] = _line(error)
    row["export_s"] = time.perf_counter() - started
    row["size_bytes"] = path.stat().st_size if path.is_file() else None
    return row


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def prove(row: dict[str, Any], model: str, data: str, images: int) -> None:
    """Adds parity, accuracy and multiply-accumulates to a row, or why its file does not run."""
    import cct_export

    if row["refused"]:
        return
    log.info("proving %s", row["name"])
    try:
        report = cct_export.verify(
            row["path"], against=model, data=data, samples=images, scheme="none"
        )
    except InvalidArtifact as error:
        row["refused"] = _line(error).replace(str(row["path"].parent) + os.sep, "")
        return
    row["parity"] = {
        key: getattr(report, key) for key in ("max_abs", "sqnr_db", "top1_agreement", "samples")
    }
    (result,) = cct_export.benchmark(
        row["format"],
        sources=[row["path"]],
        data=data,
        accuracy=True,
        min_runs=1,
        min_s=0,
        warmup_s=0,
    )
    # Of a thousand classes the confusions alone are megabytes.
    accuracy = asdict(result.accuracy)
    row["accuracy"] = {key: accuracy[key] for key in ACCURACY} | {"data": Path(data).name}
    found = cct_export.inspect(row["path"])
    row["macs"], row["partitions"] = found.macs, found.partitions
    row["delegated"] = [found.delegated, found.nodes]


def race(rows: list[dict[str, Any]], threads: int, rounds: int) -> dict[str, float]:
    """Times all files round robin; returns the rate of a matrix product before and after."""
    import roofline

    import cct_export

    log.info("timing %d files, %d threads", len(rows), threads)
    before = roofline.rates(threads)
    times = cct_export.time_together([row["path"] for row in rows], threads=threads, rounds=rounds)
    after = roofline.rates(threads)
    for row, runs in zip(rows, times, strict=True):
        row["times_ns"][threads] = runs
        row.setdefault("median_ms", {})[threads] = statistics.median(runs) / 1e6
    return {name: max(before[name], after[name]) for name in before}


if __name__ == "__main__":
    main()
