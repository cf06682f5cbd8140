"""The figures of results.json as text: results.md, and the blocks between markers in pages.

A block stands in README.md or docs/ between ``<!-- results:VIEW ARGUMENTS -->`` and
``<!-- /results -->``, where VIEW is a key of ``VIEWS`` and the arguments are folders below
results/. ``refresh`` writes the blocks of a page, and a test fails while one is stale.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import peer_tables
import picture
import record
from markdown_table import table
from record import MeasuredFile, Results

from cct_export.specs import DEFAULT_MODEL

BLOCK = re.compile(r"(<!-- results:(\w+) ([^>]*?) -->)(.*?)(<!-- /results -->)", re.DOTALL)
HEAD = (
    "file", "kB", "size ×", "ms", "latency ×", "roofline", "SQNR dB", "max abs", "agreement",
    "top-1 %", "export s",
)  # fmt: skip
FORMATS = {"tflite": "TFLite", "onnx": "ONNX"}
STOCK = {
    "stock tflite float32": "TFLiteConverter",
    "stock tflite fp16": "TFLiteConverter float16",
    "stock tflite dynamic": "TFLiteConverter dynamic int8",
    "stock tflite full": "TFLiteConverter full int8",
    "stock onnx float32": "tf2onnx",
    "stock onnx fp16": "convert_float_to_float16",
    "stock onnx dynamic": "quantize_dynamic",
    "stock onnx static": "quantize_static",
}

# Largest allowed latency over another file's: of the keras.io example's model, whose wide heads
# gain most from folding, and of any other.
EXAMPLE = "cct_keras_io"
EXAMPLE_LATENCIES = (
    ("cct-export tflite none", "stock tflite float32", 0.82),
    ("cct-export tflite int8-dynamic", "stock tflite dynamic", 0.84),
    ("cct-export tflite int8", "stock tflite full", 0.25),
    ("cct-export tflite int8", "cct-export tflite none", 0.50),
    ("cct-export tflite int8-full", "stock tflite full", 0.85),
    ("cct-export onnx none", "stock onnx float32", 0.80),
    ("cct-export onnx int8", "stock onnx static", 0.32),
)
LATENCIES = (
    ("cct-export tflite none", "stock tflite float32", 1.0),
    ("cct-export tflite int8", "stock tflite full", 0.50),
    ("cct-export onnx none", "stock onnx float32", 1.0),
    ("cct-export onnx int8", "stock onnx static", 1.0),
    ("cct-export onnx int8", "stock tflite full", 0.50),
)
# Of int8 files of the models that ship with weights: lowest SQNR in dB and top-1 agreement, most
# points of accuracy lost. Of other models only the SQNR.
ACCURACIES = {
    "cct-export tflite int8": (30, 0.98, 0.3),
    "cct-export tflite int8-full": (20, 0.96, 0.7),
    "cct-export onnx int8": (30, 0.98, 0.3),
}
OTHER_SQNR_DB = 25
LARGEST_SIZE = 0.70
# The stock converter has no such scheme: its baseline is narrower. And a file that trades size.
ANY_SIZE = ("cct-export tflite int16x8", "cct-export tflite none-speed")
LARGEST_DIFFERENCE = "2e-5"
LONGEST_EXPORT_S = "15"


def results_page(results: Results) -> str:
    """Returns results.md: a table for each number of threads, targets, and errors."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    parts = [
        f"# {results.model} on {machine.cpu}",
        f"{machine.cores} cores, {machine.os}, Python {machine.python}; {versions}.",
        f"`{results.command}`: files interleaved in one process, medians of {_runs(results)} runs; "
        f"parity with Keras on {results.parity_images:,} test images of {results.data}.",
    ]
    for threads, rate in results.roofline.items():
        parts += [
            f"## {_threads(threads)}",
            f"One large matrix product reaches {2 * rate.float32 / 1e9:.0f} (float32) and "
            f"{2 * rate.int8 / 1e9:.0f} (int8) G operations/s in the same run. The column "
            "roofline is the time of the file's multiply-accumulates at that rate over its "
            "median latency; all those of an int8 file count at the int8 rate.",
            files_table(results, threads),
        ]
    parts += [f"## Targets, {_threads(results.threads)}", targets_table(results)]
    return "\n\n".join([*parts, *_errors(results)]) + "\n"


def _errors(results: Results) -> list[str]:
    """Returns why files could not be made: one list, none if there are all."""
    lines = [f"- {file.name}: {file.error}" for file in results.files if file.error]
    return ["\n".join(lines)] if lines else []


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _runs(results: Results) -> str:
    counts = {len(runs) for file in results.measured for runs in file.times_ns.values()}
    return "/".join(f"{count:,}" for count in sorted(counts))


def files_table(results: Results, threads: int) -> str:
    """Returns a row for each file, stock files first."""
    return table(HEAD, [_row(results, file, threads) for file in results.files])


def _row(results: Results, file: MeasuredFile, threads: int) -> list[str]:
    if file.error or file.parity is None or file.accuracy is None:
        return [file.name, *["–"] * (len(HEAD) - 2), "failed"]
    return [
        file.name,
        _kb(file),
        _number(results.size_ratio(file.name, file.baseline), ".2f"),
        f"{file.median_ms(threads):.3f}",
        _number(results.latency_ratio(file.name, file.baseline, threads), ".2f"),
        _number(results.roofline_share(file, threads), ".0%"),
        f"{file.parity.sqnr_db:.1f}",
        f"{file.parity.max_abs:.1e}",
        f"{file.parity.top1_agreement:.3f}",
        f"{100 * file.accuracy.top1:.2f}",
        f"{file.export_s:.1f}",
    ]


def _kb(file: MeasuredFile) -> str:
    return f"{(file.size_bytes or 0) / 1e3:,.0f}"


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


# Targets


def targets_table(results: Results) -> str:
    """Returns what this project aims at for the model, and what it reached."""
    return table(("what", "target", "reached"), list(_targets(results)))


def _targets(results: Results) -> Iterator[list[str]]:
    example = results.model == EXAMPLE
    names = {file.name for file in results.files}
    for name, other, bound in EXAMPLE_LATENCIES if example else LATENCIES:
        if {name, other} <= names:
            ratio = _number(results.latency_ratio(name, other, results.threads), ".3f")
            yield [f"latency of {name} / {other}", f"≤ {bound:.2f}", ratio]
    for name, bounds in ACCURACIES.items():
        if results.model in (EXAMPLE, DEFAULT_MODEL) and name in names:
            yield from _accuracy_targets(results, name, *bounds)
        elif file := results.file(name):
            yield [f"SQNR of {name}, dB", f"≥ {OTHER_SQNR_DB}", f"{file.parity.sqnr_db:.1f}"]
    if example:
        yield from _example_targets(results)


def _accuracy_targets(
    results: Results, name: str, sqnr_db: float, agreement: float, points: float
) -> Iterator[list[str]]:
    file, exact = results.file(name), results.file("cct-export tflite none")
    if file is None or exact is None:
        yield [name, "", "failed"]
        return
    lost = 100 * (exact.accuracy.top1 - file.accuracy.top1)
    images = f"{file.accuracy.samples:,} images"
    yield [f"SQNR of {name}, dB", f"≥ {sqnr_db}", f"{file.parity.sqnr_db:.1f}"]
    yield [
        f"top-1 agreement of {name}, near ties included",
        f"≥ {agreement}",
        f"{file.parity.top1_agreement:.3f}",
    ]
    yield [f"points of accuracy lost by {name}, {images}", f"≤ {points}", f"{lost:.2f}"]


def _example_targets(results: Results) -> Iterator[list[str]]:
    sizes = [
        results.size_ratio(file.name, file.baseline)
        for file in results.measured
        if file.ours and file.name not in ANY_SIZE
    ]
    size = max((ratio for ratio in sizes if ratio is not None), default=None)
    yield ["size ×, the largest of all schemes", f"≤ {LARGEST_SIZE:.2f}", _number(size, ".3f")]
    exact = [results.file(f"cct-export {format} none") for format in FORMATS]
    difference = max((file.parity.max_abs for file in exact if file), default=None)
    yield [
        "float32, largest difference of a logit to Keras",
        f"≤ {LARGEST_DIFFERENCE}",
        _number(difference, ".1e"),
    ]
    seconds = f"{results.cold_export_s:.1f}"
    yield ["`cct-export tflite` in a new process, s", f"≤ {LONGEST_EXPORT_S}", seconds]


# Blocks in pages


def refresh(page: Path) -> None:
    """Writes the blocks of a page, and the pictures that they show."""
    text = page.read_text()
    for _, view, arguments, *_ in BLOCK.findall(text):
        if view == "picture":
            path, *folders = shlex.split(arguments)
            picture.draw([record.read(folder) for folder in folders], page.parent / path)
        elif view == "peers_picture":
            peer_tables.refresh_picture(page, *shlex.split(arguments))
    page.write_text(rendered(text))


def rendered(text: str) -> str:
    """Returns the text of a page with its blocks as they should be."""
    return BLOCK.sub(_render, text)


def _render(block: re.Match[str]) -> str:
    begin, view, arguments, _, end = block.groups()
    if view not in VIEWS:
        raise ValueError(f"no view {view!r}: choose from {', '.join(VIEWS)}")
    content = VIEWS[view](*shlex.split(arguments))
    return f"{begin}{content}{end}" if view == "figure" else f"{begin}\n{content}\n{end}"


def _picture(path: str, *folders: str) -> str:
    """The bars, with their figures as the text for who cannot see them."""
    bars = picture.bars([record.read(folder) for folder in folders])
    pairs = zip(bars[::2], bars[1::2], strict=True)
    figures = "; ".join(f"{b.model} {b.label} {b.text} (stock {a.text})" for a, b in pairs)
    return f'<img src="{path}" width="560" alt="Latency and top-1 accuracy: {figures}">'


def _summary(*arguments: str) -> str:
    """A row for each file of ours and its baseline; arguments are ``FOLDER:SCHEME,SCHEME``."""
    rows: list[list[str]] = []
    for argument in arguments:
        folder, _, schemes = argument.partition(":")
        results = record.read(folder)
        model = f"`{results.model}`"
        for format in FORMATS:
            for scheme in schemes.split(","):
                ours = results.file(f"cct-export {format} {scheme}")
                for file in (ours, ours and results.file(ours.baseline)):
                    if file is not None:
                        rows.append([model, *_summary_cells(file, results.threads)])
                        model = ""
    return table(("model", "file", "ms", "kB", "SQNR dB", "top-1 %"), rows, text_columns=2)


def _summary_cells(file: MeasuredFile, threads: int) -> list[str]:
    scheme = "float32" if file.scheme == "none" else file.scheme
    label = f"**{FORMATS[file.format]} {scheme}**" if file.ours else f"stock: {STOCK[file.name]}"
    return [
        label,
        f"{file.median_ms(threads):.3f}",
        _kb(file),
        f"{file.parity.sqnr_db:.1f}",
        f"{100 * file.accuracy.top1:.2f}",
    ]


def _setup(folder: str) -> str:
    """How the results in a folder were measured."""
    results = record.read(folder)
    machine, accuracy = results.machine, results.measured[0].accuracy
    return (
        f"Median latency of {_runs(results)} runs on {_threads(results.threads)} of an "
        f"{machine.cpu} ({machine.cores} cores, {machine.surroundings or machine.architecture}), "
        f"all files interleaved in one process. SQNR is against Keras on "
        f"{results.parity_images:,} test images of `{results.data}`, top-1 on "
        f"{accuracy.samples:,}. {', '.join(f'{n} {v}' for n, v in results.versions.items())}."
    )


def _headline(folder: str) -> str:
    """One sentence about the int8 file."""
    results = record.read(folder)
    ours, exact = (results.file(f"cct-export tflite {s}") for s in ("int8", "none"))
    stock = results.file(ours.baseline)
    threads = results.threads
    return (
        f"The int8 TFLite file of `{results.model}` ({results.parameters:,} parameters) takes "
        f"**{ours.median_ms(threads):.2f} ms** on {_threads(threads)} of an "
        f"{results.machine.cpu}, where `TFLiteConverter`'s takes {stock.median_ms(threads):.2f}. "
        f"It is {_kb(ours)} kB and reaches **{100 * ours.accuracy.top1:.2f} %** top-1 accuracy "
        f"(float32: {100 * exact.accuracy.top1:.2f} %), with an SQNR of "
        f"{ours.parity.sqnr_db:.1f} dB instead of {stock.parity.sqnr_db:.1f}."
    )


def _files(folder: str) -> str:
    """Every file, on the first number of threads, and why some could not be made."""
    results = record.read(folder)
    return "\n\n".join([files_table(results, results.threads), *_errors(results)])


def _targets_of(folder: str) -> str:
    """Targets and what was reached."""
    return targets_table(record.read(folder))


def _ratios(*folders: str) -> str:
    """Latency in ms, and over the stock file's, of float32 and int8, a row for each model."""
    names = [f"cct-export {format} {scheme}" for format in FORMATS for scheme in ("none", "int8")]
    rows = []
    for results in map(record.read, folders):
        cells = []
        for name in names:
            file = results.file(name)
            ratio = file and results.latency_ratio(name, file.baseline, results.threads)
            cells.append(f"{file.median_ms(results.threads):.2f} ({ratio:.2f} ×)" if ratio else "–")
        rows.append([f"`{Path(results.model).stem}`", f"{results.parameters:,}", *cells])
    heads = ("TFLite float32", "TFLite int8", "ONNX float32", "ONNX int8")
    return table(("model", "parameters", *heads), rows)


def _figure(folder: str, quantity: str, name: str = "") -> str:
    """One figure: ``parameters`` of the model; ``ms``, ``kb``, ``sqnr`` or ``top1`` of a file."""
    results = record.read(folder)
    if quantity == "parameters":
        return f"{results.parameters:,}"
    file = results.file(name)
    if file is None:
        raise ValueError(f"{folder} has no file {name!r}")
    figures = {
        "ms": f"{file.median_ms(results.threads):.2f}",
        "kb": _kb(file),
        "sqnr": f"{file.parity.sqnr_db:.1f}",
        "top1": f"{100 * file.accuracy.top1:.2f}",
    }
    return figures[quantity]


VIEWS: dict[str, Callable[..., str]] = {
    "picture": _picture,
    "summary": _summary,
    "setup": _setup,
    "headline": _headline,
    "files": _files,
    "targets": _targets_of,
    "ratios": _ratios,
    "figure": _figure,
    "peers": peer_tables.peers,
    "peers_picture": peer_tables.peers_picture,
}
