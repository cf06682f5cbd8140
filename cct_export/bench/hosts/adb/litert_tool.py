"""LiteRT's ``benchmark_model`` on a phone: its flags, its output, and a ``.tflite`` file in it.

It is the tool of the interpreter, of ``tflite/tools/benchmark`` in LiteRT's sources. That of the
CompiledModel API has the same name and other flags; it cannot write what it computes.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cct_export.bench.hosts.adb.client import RemoteFolder
from cct_export.bench.hosts.adb.tool import (
    START_LIMIT_S,
    DelegateOptions,
    Report,
    copy_tool,
    failure,
    parse_options,
)
from cct_export.data.sampling import timing_images
from cct_export.errors import EngineFailed, InvalidRequest, NotAvailable
from cct_export.evaluation import golden
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import ReportedLatency, sidecar
from cct_export.records.layout import image_shape_of, layout_of
from cct_export.runtimes import litert, litert_file
from cct_export.runtimes.isolated import Opening, check_runs
from cct_export.runtimes.session import Logits, Quantization, checked_outputs, prepare, side_by_side
from cct_export.specs import BenchSpec

NAME = "benchmark_model"
# The percentiles that it tells.
HEADLINES = (50, 95)
# By the name that users type: the tool's flags, and a part of LiteRT's name of the delegate.
DELEGATES: dict[str, tuple[tuple[str, ...], str]] = {
    "default": (("--use_xnnpack=true",), "xnnpack"),
    "xnnpack": (("--use_xnnpack=true",), "xnnpack"),
    "none": (("--use_xnnpack=false",), ""),
    "gpu": (("--use_gpu=true",), "gpu"),
    "nnapi": (("--use_nnapi=true",), "nnapi"),
}
OPTIONS = {"gpu": ("precision",)}
# Without these it measures all the same, on random pixels, and does not show what it computes.
OUTPUT_FLAGS = ("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath")
MAX_S = 150.0  # its own default, which ends slow runs before there are enough of them

_ACCELERATORS = {"gpu": "gpu", "nnapi": "npu"}
_MEMORY_RUNS = 5
_MEMORY_S = 0.2  # the tool samples its memory every 0.05 s
_TIMINGS = re.compile(r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+)")
_STATISTICS = re.compile(r"^(?:INFO: )?(count=\d+ .*)$", re.MULTILINE)
_FIGURE = re.compile(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?)")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.e+]+)")
_REPLACED = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\)"
    r"(?:.*?for subgraph (\d+))?"
)
_UNKNOWN = re.compile(r"Unconsumed cmdline flags: (.*)")
_APPLIED = "Explicitly applied {} delegate, and the model graph will be {} executed"
_LAST_ERROR = "Benchmarking failed."


def arguments(spec: BenchSpec, options: DelegateOptions, model: str) -> list[str]:
    """Returns the flags for file, threads and delegate; see also ``timing_flags``.

    Args:
        spec: threads and delegate.
        options: of the delegate.
        model: path of the file on the phone.
    """
    flags = [f"--graph={model}", f"--num_threads={spec.threads}"]
    flags += DELEGATES[spec.delegation.name][0]
    if spec.delegation.name == "gpu":
        flags.append(f"--gpu_precision_loss_allowed={str(options.fp16).lower()}")
    return flags


def timing_flags(runs: int, seconds: float, warmup_s: float) -> list[str]:
    """Returns the flags for how often and how long it runs."""
    return [
        f"--num_runs={runs}", f"--min_secs={seconds:g}", f"--max_secs={max(MAX_S, 2 * seconds):g}",
        "--warmup_runs=1", f"--warmup_min_secs={warmup_s:g}",
    ]  # fmt: skip


def input_flags(shape: tuple[int, ...], pixels: str) -> list[str]:
    """Returns the flags for the input.

    Args:
        shape: of the model's input.
        pixels: path on the phone of a file with the bytes of that tensor.
    """
    return [
        "--input_layer=image",
        f"--input_layer_shape={','.join(map(str, shape))}",
        f"--input_layer_value_files=image:{pixels}",
    ]


def parse(text: str, spec: BenchSpec, operators: int | None = None) -> Report:
    """Returns the figures in the output of a run.

    Args:
        text: output.
        spec: the requested delegate.
        operators: how many the file has: the published tool tells at most that the delegate took
            all of them.

    Raises:
        EngineFailed: it cannot be parsed.
    """
    times = _TIMINGS.search(text)
    statistics = [dict(_FIGURE.findall(line)) for line in _STATISTICS.findall(text)]
    if times is None or not statistics:
        last = text.strip().rpartition("\n")[2]
        raise EngineFailed(f"{NAME} printed no times that can be read; its last line: {last!r}")
    peak = _PEAK.search(text)
    delegated, total = _nodes(text, DELEGATES[spec.delegation.name][1])
    if total is None:
        total = operators
        delegated = operators if _applied(text, spec, "completely") else delegated
        delegated = 0 if spec.delegation.name == "none" else delegated
    return Report(
        reported_ms=_latency(statistics[-1]),
        load_ms=float(times[1]) / 1e3,
        first_inference_ms=float(times[2]) / 1e3,
        peak_rss_bytes=round(float(peak[1]) * 2**20) if peak else None,
        delegated_nodes=delegated,
        total_nodes=total,
    )


def _latency(figures: dict[str, str]) -> ReportedLatency | None:
    """Returns a line of statistics, which is in microseconds; None if it has no median."""
    # Of runs that all took as long it tells only this figure.
    same = figures.get("curr") if "min" not in figures else None

    def milliseconds(name: str, default: str | None = same) -> float | None:
        figure = figures.get(name, default)
        return None if figure is None else float(figure) / 1e3

    median = milliseconds("median")
    if not median:
        return None
    return ReportedLatency(
        count=int(figures["count"]),
        p50=median,
        mean=milliseconds("avg"),
        min=milliseconds("min"),
        max=milliseconds("max"),
        p95=milliseconds("p95"),
        stddev=milliseconds("std", "0" if same else None),
    )


def _nodes(text: str, delegate: str) -> tuple[int | None, int | None]:
    """Returns how many operators of the main graph the delegate took, of how many, if it tells."""
    partitions = [
        (int(delegated), int(total))
        for delegated, total, name, graph in _REPLACED.findall(text)
        if delegate and delegate in name.lower() and graph in ("", "0")
    ]
    if not partitions:
        return None, None
    return sum(delegated for delegated, _ in partitions), max(total for _, total in partitions)


def check_flags(text: str) -> bool:
    """Returns whether the tool can show what it computes.

    Raises:
        NotAvailable: it does not know a flag that decides what is measured.
    """
    match = _UNKNOWN.search(text)
    unknown = re.findall(r"--(\w+)", match[1]) if match else []
    needed = [name for name in unknown if name not in OUTPUT_FLAGS]
    if needed:
        raise NotAvailable(
            f"this {NAME} does not know --{needed[0]}: take that of LiteRT's interpreter, not that "
            "of the CompiledModel API (docs/android-bench.md says where it is)"
        )
    return not unknown


def check_delegate(text: str, path: Path, spec: BenchSpec, report: Report) -> str:
    """Returns what really computes: the delegate, or ``none`` where it took nothing.

    The tool goes on without a delegate that is not there: only its output tells.

    Raises:
        NotAvailable: it is not what was requested.
    """
    name, allow_fallback = spec.delegation.name, spec.delegation.allow_fallback
    if name == "none":
        return name
    completely, partially = (_applied(text, spec, how) for how in ("completely", "partially"))
    if not (completely or partially):
        if name == "default":
            return "none"
        raise NotAvailable(f"{name} takes no operator of {path}: {_warning(text)}")
    delegated, total = report.delegated_nodes, report.total_nodes
    complete = completely or (delegated is not None and delegated == total)
    if not complete and name != "default" and not allow_fallback:
        count = (
            f"not all {total or ''}".strip() if delegated is None else f"{delegated} of the {total}"
        )
        raise NotAvailable(
            f"{name} takes {count} operators of {path}: "
            "--allow-fallback measures it all the same, and says so"
        )
    return "xnnpack" if name == "default" else name


def _applied(text: str, spec: BenchSpec, how: str) -> bool:
    return _APPLIED.format(DELEGATES[spec.delegation.name][1].upper(), how) in text


def _warning(text: str) -> str:
    """Returns why a delegate was not applied."""
    lines = [line for line in text.splitlines() if line.startswith(("WARN", "ERROR"))]
    signs = ("unsupported", "not be executed", "ailed", "ould not", "ouldn't")
    reasons = [line for line in lines if any(sign in line for sign in signs)]
    return reasons[0].partition(": ")[2] if reasons else f"{NAME} does not say that it applied it"


def reason(text: str) -> str:
    """Returns why a run failed: the last error, but for the one that all failures end with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith(_LAST_ERROR)]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [""])[-1].removeprefix("ERROR: ")


class LiteRTTool:
    """A ``.tflite`` file in ``benchmark_model`` on a phone.

    See ``Tool``; also a ``Session``, of which every run is a process on the phone.

    Args:
        folder: on the phone.
        binary: the program.
        path: the file.
        spec: threads and delegate.

    Raises:
        InvalidArtifact: the file is missing, broken, or not from one image to logits.
        InvalidRequest: an unknown option, or another number of images.
        MissingDependency: ai-edge-litert is not installed here.
        NotAvailable: there is no such delegate, or the phone does not take the files.
    """

    def __init__(self, folder: RemoteFolder, binary: Path, path: Path, spec: BenchSpec) -> None:
        delegate = spec.delegation.name
        known = OPTIONS.get(delegate, ())
        self._options = parse_options(spec.delegation, DELEGATES, known, NAME)
        self._folder, self._path, self._spec = folder, path, spec
        self._prefix = folder.prefix()
        litert.import_engine()
        self.contract = litert_file.contract_of(path)
        self._inspect()
        if self.batch != spec.batch:
            raise InvalidRequest(f"{path} takes {self.batch} image at a time, not {spec.batch}")
        self._binary = copy_tool(folder, binary)
        self._model = folder.copy(path, ".tflite")
        self.engine = ("litert", "")
        self.delegate, self.accelerator = delegate, _ACCELERATORS.get(delegate, "cpu")
        self.delegated_nodes: int | None = None
        self.total_nodes: int | None = None
        self.arena_bytes: int | None = None
        self._shows_output = True
        self._output_files = 0

    def _inspect(self) -> None:
        """Reads the input and the output of the file."""
        from ai_edge_litert.interpreter import Interpreter

        check_runs(Opening("litert", str(self._path)))
        interpreter = Interpreter(str(self._path))
        image, outputs = litert_file.image_and_outputs(interpreter, path=self._path)
        # No tensors are allocated: no delegate has changed the graph yet.
        self._operators = len(interpreter._get_ops_details())
        self._shape = image.shape
        self.layout = layout_of(self._shape)
        self.image_shape = image_shape_of(self._shape, self.layout)
        self.batch: int | None = self._shape[0]
        self.io = image.dtype
        self.input_quantization: Quantization | None = image.quantization
        self.output_quantizations = tuple(output.quantization for output in outputs)
        self._output_tensors = outputs
        found = [output.contract for output in outputs]
        self.outputs = checked_outputs(self, path=self._path, format="tflite", outputs=found)

    def first(self) -> Report:
        """Runs once, and checks the delegate; see ``Tool``."""
        pixels = prepare(self, timing_images(self.image_shape, self._spec.batch))
        self._pixels = self._folder.write(pixels.tobytes(), f"{self._prefix}timing")
        text = self._run(self._single_run(f"{self._prefix}first"), START_LIMIT_S)
        self._shows_output = check_flags(text)
        report = parse(text, self._spec, self._operators)
        self.delegate = check_delegate(text, self._path, self._spec, report)
        self.delegated_nodes, self.total_nodes = report.delegated_nodes, report.total_nodes
        return report

    def golden(self) -> GoldenCheck:
        """Compares with the golden images; see ``Tool``."""
        if not self._shows_output:
            changed = sidecar.examine(self._path, self.contract).changed
            return GoldenCheck(
                changed=changed, unknown=f"this {NAME} cannot write what it computes"
            )
        return golden.check(self, path=self._path, delegation=self._spec.delegation)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._output_files += 1
        name = f"{self._prefix}output-{self._output_files}"
        pixels = self._folder.write(prepared.tobytes(), f"{self._prefix}golden")
        self._run(self._single_run(name), START_LIMIT_S, pixels)
        content = self._folder.read(name)
        types = [np.dtype(output.dtype) for output in self._output_tensors]
        counts = [math.prod(output.shape) for output in self._output_tensors]
        size = sum(n * dtype.itemsize for n, dtype in zip(counts, types, strict=True))
        if content is None or len(content) != size:
            received = "nothing" if content is None else f"{len(content)} bytes"
            raise EngineFailed(f"{NAME} wrote {received} as the output of {self._path}, not {size}")
        # The tool writes one output after the other.
        values, start = [], 0
        for output, count, dtype in zip(self._output_tensors, counts, types, strict=True):
            part = np.frombuffer(content, dtype, count, start)
            values.append(part.reshape(output.shape))
            start += part.nbytes
        return side_by_side(values)

    def _single_run(self, output: str) -> list[str]:
        """Returns the flags of a single run that writes what it computes."""
        return [*timing_flags(1, 0.0, 0.0), f"--output_filepath={self._folder.path}/{output}"]

    def timed(self, runs: int, seconds: float, warmup_s: float) -> Report:
        """Times runs; see ``Tool``."""
        longest_s = max(MAX_S, 2 * seconds)
        text = self._run(timing_flags(runs, seconds, warmup_s), START_LIMIT_S + 2 * longest_s)
        report = parse(text, self._spec)
        if not report.reported_ms:
            raise EngineFailed(f"this {NAME} tells no median: take a newer one")
        return report

    def memory(self) -> int | None:
        """Returns the peak memory; see ``Tool``."""
        flags = timing_flags(_MEMORY_RUNS, _MEMORY_S, 0.0)
        text = self._run([*flags, "--report_peak_memory_footprint=true"], START_LIMIT_S)
        return parse(text, self._spec).peak_rss_bytes

    def close(self) -> None:
        """Does nothing: every run is a process of its own; see ``Session``."""

    def _run(self, flags: Sequence[str], limit_s: float, pixels: str = "") -> str:
        """Returns the output of the tool; raises ``CCTExportError`` if it fails."""
        command = [
            *self._options.prefix,
            self._binary,
            *arguments(self._spec, self._options, self._model),
            *input_flags(self._shape, pixels or self._pixels),
            *flags,
        ]
        ended = self._folder.run(command, limit_s)
        if ended.code:
            check_flags(ended.text)
            accelerated = self.accelerator != "cpu"
            raise failure(ended, f"{NAME} on {self._path}", accelerated, reason(ended.text))
        return ended.text
