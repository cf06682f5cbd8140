"""A ``.tflite`` file in LiteRT's ``benchmark_model`` on a phone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cct_export.bench.hosts.adb import benchmark_model, settings
from cct_export.bench.hosts.adb.report import Report, failure
from cct_export.bench.hosts.adb.tool import START_LIMIT_S, placed
from cct_export.bench.hosts.adb.workplace import Workplace
from cct_export.data.dataset import ImageShape
from cct_export.data.sampling import timing_images
from cct_export.errors import EngineFailed, InvalidRequest
from cct_export.evaluation import golden
from cct_export.evaluation.golden import GoldenCheck
from cct_export.runtimes import litert, litert_file
from cct_export.runtimes.session import Logits, Quantization, prepare
from cct_export.specs import BenchSpec

HEADLINES = (50, 95)
_KINDS = {"gpu": "gpu", "nnapi": "npu"}
_MEMORY_RUNS = 5
_MEMORY_S = 0.2  # the tool looks every 0.05 s


class WithLiteRT:
    """See ``Tool``; also a ``Session``, of which every run is a process on the phone.

    Args:
        workplace: on the phone.
        binary: the tool.
        path: the file.
        spec: threads and delegate.

    Raises:
        InvalidArtifact: the file is missing, broken, or not from one image to logits.
        InvalidRequest: an option that there is not, or another number of images.
        MissingDependency: ai-edge-litert is not installed here.
        NotAvailable: there is no such delegate, or the phone does not take the files.
    """

    def __init__(self, workplace: Workplace, binary: Path, path: Path, spec: BenchSpec) -> None:
        word = spec.delegation.name
        known = benchmark_model.OPTIONS.get(word, ())
        self._settings = settings.read(
            spec.delegation, benchmark_model.DELEGATES, known, benchmark_model.NAME
        )
        self._workplace, self._path, self._spec = workplace, path, spec
        self._prefix = workplace.prefix()
        litert.import_engine()
        self.contract = litert_file.contract_of(path)
        self._look_inside()
        if self.batch != spec.batch:
            raise InvalidRequest(f"{path} takes {self.batch} image at a time, not {spec.batch}")
        self._binary = placed(workplace, binary)
        self._model = workplace.place(path, ".tflite")
        self.engine = ("litert", "")
        self.delegate, self.accelerator = word, _KINDS.get(word, "cpu")
        self.delegated_nodes: int | None = None
        self.total_nodes: int | None = None
        self.unproven = ""
        self._shows_output = True
        self._outputs = 0

    def _look_inside(self) -> None:
        """Finds out what goes in and what comes out."""
        from ai_edge_litert.interpreter import Interpreter

        litert_file.check_runs(self._path)
        interpreter = Interpreter(str(self._path))
        image, logits = litert_file.image_and_logits(interpreter, path=self._path)
        # No tensors are allocated: no delegate has changed the graph yet.
        self._operators = len(interpreter._get_ops_details())
        self._shape = image.shape
        self.image_shape: ImageShape = self._shape[1:]  # type: ignore[assignment]
        self.batch: int | None = self._shape[0]
        self.io = image.dtype
        self.input_quantization: Quantization | None = image.quantization
        self.output_quantization: Quantization | None = logits.quantization
        self._output_type = np.dtype(logits.dtype)
        self._classes = logits.shape[-1]

    def first(self) -> Report:
        """See ``Tool``."""
        pixels = prepare(self, timing_images(self.image_shape, self._spec.batch))
        self._pixels = self._workplace.write(pixels.tobytes(), f"{self._prefix}timing")
        text = self._run(self._once(f"{self._prefix}first"), START_LIMIT_S)
        self._shows_output = benchmark_model.check_known(text)
        report = benchmark_model.parse(text, self._spec, self._operators)
        self.delegate = benchmark_model.check_taken(text, self._path, self._spec, report)
        self.delegated_nodes, self.total_nodes = report.delegated_nodes, report.total_nodes
        return report

    def golden(self) -> GoldenCheck:
        """See ``Tool``."""
        if not self._shows_output:
            self.unproven = f"this {benchmark_model.NAME} cannot write what it computes"
            return GoldenCheck()
        answer = golden.check(self, path=self._path, delegation=self._spec.delegation)
        if answer.parity is None:
            self.unproven = "there is no sidecar with golden images beside the file"
        return answer

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._outputs += 1
        name = f"{self._prefix}output-{self._outputs}"
        pixels = self._workplace.write(prepared.tobytes(), f"{self._prefix}golden")
        self._run(self._once(name), START_LIMIT_S, pixels)
        content = self._workplace.read(name)
        size = self._spec.batch * self._classes * self._output_type.itemsize
        if content is None or len(content) != size:
            found = "nothing" if content is None else f"{len(content)} bytes"
            raise EngineFailed(
                f"{benchmark_model.NAME} wrote {found} as the output of {self._path}, not {size}"
            )
        return np.frombuffer(content, self._output_type).reshape(-1, self._classes)

    def _once(self, output: str) -> list[str]:
        """Returns the flags of a single run that writes what it computes."""
        flags = benchmark_model.timing(1, 0.0, 0.0)
        return [*flags, f"--output_filepath={self._workplace.path}/{output}"]

    def timed(self, runs: int, seconds: float, warmup_s: float) -> Report:
        """See ``Tool``."""
        flags = benchmark_model.timing(runs, seconds, warmup_s)
        longest = max(benchmark_model.MAX_S, 2 * seconds)
        text = self._run(flags, START_LIMIT_S + 2 * longest)
        report = benchmark_model.parse(text, self._spec)
        if not report.reported_ms:
            raise EngineFailed(f"this {benchmark_model.NAME} tells no median: take a newer one")
        return report

    def memory(self) -> int | None:
        """See ``Tool``."""
        flags = benchmark_model.timing(_MEMORY_RUNS, _MEMORY_S, 0.0)
        text = self._run([*flags, "--report_peak_memory_footprint=true"], START_LIMIT_S)
        return benchmark_model.parse(text, self._spec).peak_rss_bytes

    def close(self) -> None:
        """Nothing stays open; see ``Session``."""

    def _run(self, flags: Sequence[str], limit_s: float, pixels: str = "") -> str:
        """Returns what the tool says; raises ``CCTExportError`` if it fails."""
        command = [
            *self._settings.prefix,
            self._binary,
            *benchmark_model.arguments(self._spec, self._settings, self._model),
            *benchmark_model.input_flags(self._shape, pixels or self._pixels),
            *flags,
        ]
        ended = self._workplace.run(command, limit_s)
        if ended.code:
            benchmark_model.check_known(ended.text)
            what = f"{benchmark_model.NAME} on {self._path}"
            accelerated = self.accelerator != "cpu"
            raise failure(ended, what, accelerated, benchmark_model.reason(ended.text))
        return ended.text
