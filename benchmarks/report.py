"""The record of a run as JSON, as a Markdown table and as a picture."""

import json
import math
import re
from pathlib import Path
from typing import Any

from cct_export.specs import DEFAULT_MODEL

# What folding gains most from: its heads are as wide as the tokens.
EXAMPLE = "cct_keras_io"
# What the ratio of two latencies must not exceed: of the example's model, and of any other.
LATENCIES = (
    ("cct-export tflite none", "stock tflite float32", 0.82),
    ("cct-export tflite int8-dynamic", "stock tflite dynamic", 0.84),
    ("cct-export tflite int8", "stock tflite full", 0.25),
    ("cct-export tflite int8", "cct-export tflite none", 0.50),
    ("cct-export tflite int8-full", "stock tflite full", 0.85),
    ("cct-export onnx none", "stock onnx float32", 0.80),
    ("cct-export onnx int8", "stock onnx static", 0.32),
)
OTHER_LATENCIES = (
    ("cct-export tflite none", "stock tflite float32", 1.0),
    ("cct-export tflite int8", "stock tflite full", 0.50),
    ("cct-export onnx none", "stock onnx float32", 1.0),
    ("cct-export onnx int8", "stock onnx static", 1.0),
    ("cct-export onnx int8", "stock tflite full", 0.50),
)
OTHER_SQNR_DB = 25
# Of int8 files of models that ship with weights: noise ratio in dB and top-1 agreement at least,
# points of accuracy lost at most.
ACCURACIES = {
    "cct-export tflite int8": (30, 0.98, 0.3),
    "cct-export tflite int8-full": (20, 0.96, 0.7),
    "cct-export onnx int8": (30, 0.98, 0.3),
}
SIZE_BOUND = 0.70
# The stock converter has nothing of the kind; what it is compared with is not as wide.
WITHOUT_TWIN = ("cct-export tflite int16x8",)
DIFFERENCE_BOUND = "2e-5"
EXPORT_BOUND_S = "15"


def write(record: dict[str, Any], folder: Path) -> None:
    """Writes ``results.json``, ``results.md`` and ``latency-accuracy.png`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    # A line for the times of a file, not one for each run.
    text = re.sub(
        r"\[[\d\s,]+\]", lambda times: "".join(times[0].split()), json.dumps(record, indent=1)
    )
    (folder / "results.json").write_text(text + "\n")
    (folder / "results.md").write_text(markdown(record))
    plot(record, folder / "latency-accuracy.png")


def ratio(row: dict[str, Any], twin: dict[str, Any], threads: int | None = None) -> float | None:
    """Returns the size of a file over that of its twin, or with ``threads`` its median latency.

    None where one of the two could not be made or run.
    """
    if row["refused"] or twin["refused"]:
        return None
    if threads is None:
        return float(row["size_bytes"] / twin["size_bytes"])
    return float(row["median_ms"][threads] / twin["median_ms"][threads])


def limit_share(row: dict[str, Any], rates: dict[str, float], threads: int) -> float | None:
    """Returns the time that the multiply-accumulates alone would take, over the measured one."""
    if row.get("macs") is None:
        return None
    return float(row["macs"] / rates[row["precision"]] * 1e3 / row["median_ms"][threads])


def markdown(record: dict[str, Any]) -> str:
    """Returns the tables."""
    rows = {row["name"]: row for row in record["rows"]}
    machine = record["machine"]
    lines = [
        f"# {record['model']} on {machine['cpu']}",
        "",
        f"{machine['cores']} cores, {machine['os']}, Python {machine['python']}; "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        + ".",
        "",
        f"`{record['command']}`: every file in turn in one process, medians of "
        f"{_runs(record)} runs each; parity with Keras on {record['parity_images']} test images.",
        "",
    ]
    for threads, rates in record["roofline"].items():
        lines += _table(record, rows, threads, rates)
    lines += _bounds(record, rows)
    refused = [row for row in record["rows"] if row["refused"]]
    lines += [f"- {row['name']}: {row['refused']}" for row in refused]
    return "\n".join(lines) + "\n"


def _runs(record: dict[str, Any]) -> str:
    counts = {len(runs) for row in record["rows"] for runs in row["times_ns"].values()}
    return "/".join(f"{count:,}" for count in sorted(counts))


def _table(
    record: dict[str, Any], rows: dict[str, Any], threads: int, rates: dict[str, float]
) -> list[str]:
    per_second = ", ".join(f"{name} {2 * rate / 1e9:.0f}" for name, rate in rates.items())
    lines = [
        f"## {threads} thread{'s' if threads > 1 else ''}",
        "",
        f"One large matrix product reaches {per_second} G operations/s in the same run. Of the "
        "limit: the time that the file's multiply-accumulates would take at that rate, over its "
        "median; all those of an int8 file at the int8 rate, also what it computes in float.",
        "",
        "| file | kB | size ratio | median ms | latency ratio | of the limit | SQNR dB | "
        "max abs | agreement | top-1 % | export s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        if row["refused"]:
            lines.append(f"| {row['name']} | " + " | ".join(["–"] * 9) + " | refused |")
            continue
        twin, parity = rows[row["twin"]], row["parity"]
        cells = [
            f"{row['size_bytes'] / 1e3:,.0f}",
            _number(ratio(row, twin), ".2f"),
            f"{row['median_ms'][threads]:.3f}",
            _number(ratio(row, twin, threads), ".2f"),
            _number(limit_share(row, rates, threads), ".0%"),
            f"{parity['sqnr_db']:.1f}",
            f"{parity['max_abs']:.1e}",
            f"{parity['top1_agreement']:.3f}",
            f"{row['accuracy']['top1'] * 100:.2f}",
            f"{row['export_s']:.1f}",
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return [*lines, ""]


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


def _bounds(record: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """Returns the table of what this project promises."""
    threads = next(iter(record["roofline"]))
    example = record["model"] == EXAMPLE
    found: list[tuple[str, str, str]] = []
    for name, other, bound in LATENCIES if example else OTHER_LATENCIES:
        if not {name, other} <= rows.keys():
            continue
        reached = _number(ratio(rows[name], rows[other], threads), ".3f")
        found.append((f"latency of {name} / {other}", f"≤ {bound:.2f}", reached))
    if record["model"] not in (EXAMPLE, DEFAULT_MODEL):
        return _promised([*found, *_noise(rows)], threads)
    for name, bounds in ACCURACIES.items():
        if name in rows:
            found += _accuracies(name, bounds, rows)
    if not example:
        return _promised(found, threads)
    sizes = [
        ratio(row, rows[row["twin"]])
        for row in record["rows"]
        if row["ours"] and row["name"] not in WITHOUT_TWIN
    ]
    largest = max((size for size in sizes if size is not None), default=None)
    size = _number(largest, ".3f")
    found.append(("size, the largest of all schemes that stock has", f"≤ {SIZE_BOUND:.2f}", size))
    exact = [
        rows[name].get("parity")
        for name in ("cct-export tflite none", "cct-export onnx none")
        if name in rows
    ]
    largest = max((parity["max_abs"] for parity in exact if parity), default=None)
    found.append(
        (
            "float32, largest difference of a logit to Keras",
            f"≤ {DIFFERENCE_BOUND}",
            _number(largest, ".1e"),
        )
    )
    cold = f"{record['cold_export_s']:.1f}"
    found.append(
        ("`cct-export tflite` in a fresh process, proof included, s", f"≤ {EXPORT_BOUND_S}", cold)
    )
    return _promised(found, threads)


def _noise(rows: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the noise ratios of our int8 files of a model that does not ship."""
    names = [name for name in ACCURACIES if name in rows and not rows[name]["refused"]]
    return [
        (f"SQNR of {name}, dB", f"≥ {OTHER_SQNR_DB}", f"{rows[name]['parity']['sqnr_db']:.1f}")
        for name in names
    ]


def _promised(found: list[tuple[str, str, str]], threads: int) -> list[str]:
    lines = [f"| {what} | {bound} | {reached} |" for what, bound, reached in found]
    title = f"## Promised and reached, {threads} thread{'s' if threads > 1 else ''}"
    return [title, "", "| what | promised | reached |", "|---|---|---|", *lines, ""]


def _accuracies(
    name: str, bounds: tuple[float, float, float], rows: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """Returns what is promised of a quantized file's answers, and what is reached."""
    row = rows[name]
    whole = rows["cct-export tflite none"]
    if row["refused"] or whole["refused"]:
        return [(name, "", "refused")]
    sqnr_db, agreement, points = bounds
    lost = 100 * (whole["accuracy"]["top1"] - row["accuracy"]["top1"])
    images = f"{row['accuracy']['samples']:,} images"
    return [
        (f"SQNR of {name}, dB", f"≥ {sqnr_db}", f"{row['parity']['sqnr_db']:.1f}"),
        (
            f"top-1 agreement of {name}, near ties included",
            f"≥ {agreement}",
            f"{row['parity']['top1_agreement']:.3f}",
        ),
        (f"points of accuracy lost by {name}, {images}", f"≤ {points}", f"{lost:.2f}"),
    ]


def plot(record: dict[str, Any], path: Path) -> None:
    """Draws latency against accuracy, one point a file, one panel a format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    threads = next(iter(record["roofline"]))
    figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained", sharey=True)
    for axes, format in zip(panels, ("tflite", "onnx"), strict=True):
        rows = [row for row in record["rows"] if row["format"] == format and not row["refused"]]
        for ours, colour in ((False, "#6e6e6e"), (True, "#c8334f")):
            _scatter(axes, [row for row in rows if row["ours"] == ours], threads, colour)
        axes.set_title(format)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="both", labelsize=8)
        axes.set_xlabel(f"median latency, ms (log scale), threads: {threads}")
        axes.margins(0.2)
        axes.grid(alpha=0.25, which="both")
    panels[0].set_ylabel("top-1 accuracy, %")
    panels[0].legend(loc="lower left", frameon=False)
    figure.suptitle(f"{record['model']} on {record['machine']['cpu']}", fontsize=11)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _scatter(axes: Any, rows: list[dict[str, Any]], threads: int, colour: str) -> None:
    """Draws the points of one maker; of two neighbours the better has its label above."""
    if not rows:
        return
    name = "cct-export" if rows[0]["ours"] else "stock"
    points = [(row["median_ms"][threads], row["accuracy"]["top1"] * 100) for row in rows]
    axes.scatter(*zip(*points, strict=True), color=colour, label=name)
    for row, point in zip(rows, points, strict=True):
        others = [other for other in points if other != point]
        nearest = min(others, key=lambda other: abs(math.log(other[0] / point[0])), default=point)
        place = {"xytext": (0, 7 if point[1] >= nearest[1] else -13)}
        label = row["name"].removeprefix(f"{name} {row['format']} ")
        axes.annotate(
            label, point, ha="center", fontsize=8, color=colour, textcoords="offset points", **place
        )
