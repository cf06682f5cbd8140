"""LiteRT's CompiledModel on a GPU or NPU."""

import contextlib
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact, InvalidRequest, NotAvailable
from cct_export.records.layout import image_shape_of, layout_of
from cct_export.runtimes.litert_file import TensorDetails, contract_of, image_and_outputs
from cct_export.runtimes.session import Logits, Session, checked_outputs, side_by_side
from cct_export.specs import Delegation

# Parts of log lines that report a failure.
_FAILURES = ("No adapters", "ould not", "ouldn't", "not accelerated", "nsupported", "not supported")
_COVERAGE = re.compile(r"(\d+) operations will run on the \w+, and the remaining (\d+) operations")
# Severity and source location, with which a log line begins.
_LOG_PREFIX = re.compile(r"^(?:└ )?(?:(?:ERROR|WARNING|Warning): ?(?:\[[^\]]*\])? ?)?")
# LiteRT tries all accelerators: log lines about the other ones, by the requested accelerator.
_OTHER_ACCELERATORS = {
    "gpu": ("NPU", "compiler_plugin", "openvino"),
    "npu": ("Vulkan", "WebGPU"),
}
_HOST_MEMORY = 1  # LiteRT's type of a buffer that the CPU reads and writes
_PRECISIONS = ("fp32", "fp16")


class CompiledSession(Session):
    """A ``.tflite`` file compiled for a GPU or NPU. See ``Session``."""

    def __init__(self, path: Path, *, threads: int, delegation: Delegation) -> None:
        """Opens ``path``; see ``Engine.open_session``."""
        self.contract = contract_of(path)
        image, self._details = _image_and_outputs(path)
        self.engine = ("litert", metadata.version("ai-edge-litert"))
        self.delegate = self.accelerator = delegation.name
        self._model, log_lines = _compile(path, threads, delegation)
        self._inputs = self._model.create_input_buffers(0)
        self._buffers = self._model.create_output_buffers(0)
        self.layout = layout_of(image.shape)
        self.image_shape = image_shape_of(image.shape, self.layout)
        self.batch = image.shape[0]
        self.io = image.dtype
        found = [output.contract for output in self._details]
        self.outputs = checked_outputs(self, path=path, format="tflite", outputs=found)
        self.input_quantization = image.quantization
        self.output_quantizations = tuple(output.quantization for output in self._details)
        # LiteRT logs the number of operators only where some of them fell back to the CPU.
        self.delegated_nodes, self.total_nodes = _coverage(log_lines)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``. The run is asynchronous: reading the output waits for it."""
        self._inputs[0].write(np.ascontiguousarray(prepared))
        self._model.run_by_index(0, self._inputs, self._buffers)
        pairs = zip(self._buffers, self._details, strict=True)
        return side_by_side([_read(buffer, details) for buffer, details in pairs])

    def close(self) -> None:
        """Frees the model."""
        self._model.close()


def _read(buffer: Any, details: TensorDetails) -> np.ndarray:
    values = buffer.read(math.prod(details.shape), np.dtype(details.dtype).type)
    return np.asarray(values).reshape(details.shape)


def _compile(path: Path, threads: int, delegation: Delegation) -> tuple[Any, list[str]]:
    """Returns the compiled model and the lines that LiteRT logged meanwhile."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, GpuOptions, Options

    name = delegation.name
    accelerators = HardwareAccelerator.GPU if name == "gpu" else HardwareAccelerator.NPU
    if delegation.allow_fallback:
        accelerators |= HardwareAccelerator.CPU
    options = Options(accelerators, cpu_options=CpuOptions(num_threads=threads))
    if name == "gpu":
        options = Options(
            accelerators,
            cpu_options=CpuOptions(num_threads=threads),
            gpu_options=GpuOptions(enforce_f32=_precision(delegation) == "fp32"),
        )
    elif delegation.options:
        raise InvalidRequest(f"LiteRT's delegate {name!r} takes no options")
    model, failure = None, None
    with _native_log() as log_lines:
        try:
            model = CompiledModel.from_file(str(path), options=options)
        except RuntimeError as error:
            failure = error
    if failure is not None:
        reason = _reason(name, [*log_lines, *str(failure).splitlines()])
        raise NotAvailable(f"{name} does not run {path}: {reason}") from failure
    _check_accelerated(path, name, model, log_lines)
    return model, log_lines


def _coverage(log_lines: Sequence[str]) -> tuple[int, int] | tuple[None, None]:
    """Returns the number of operators that the accelerator runs, and of all operators."""
    matches = [match for line in log_lines if (match := _COVERAGE.search(line))]
    if not matches:
        return None, None
    accelerated, remaining = int(matches[-1][1]), int(matches[-1][2])
    return accelerated, accelerated + remaining


def _check_accelerated(path: Path, name: str, model: Any, log_lines: Sequence[str]) -> None:
    """Raises ``NotAvailable`` if the CPU runs the file, or its first operators.

    With a fallback, LiteRT reports a model that runs on the CPU as fully accelerated. The memory
    types of its input tell them apart: the CPU reads from host memory only.
    """
    memory_types = set(model.get_input_buffer_requirements(0)["supported_types"])
    if name == "gpu" and memory_types == {_HOST_MEMORY}:
        reason = _reason(name, log_lines)
        raise NotAvailable(f"{path} would start on the CPU, not on a GPU: {reason}")
    if name == "npu" and any("NPU accelerator could not be loaded" in line for line in log_lines):
        reason = _reason(name, log_lines)
        raise NotAvailable(f"{path} would run on the CPU, not on an NPU: {reason}")


def _precision(delegation: Delegation) -> str:
    options = dict(delegation.options)
    precision = options.pop("precision", _PRECISIONS[0])
    if options or precision not in _PRECISIONS:
        received = ", ".join(f"{name}={value}" for name, value in delegation.options)
        raise InvalidRequest(
            f"LiteRT's GPU takes the option precision={' or '.join(_PRECISIONS)}, not {received}"
        )
    return precision


def _image_and_outputs(path: Path) -> tuple[TensorDetails, tuple[TensorDetails, ...]]:
    """Returns input and outputs as the interpreter has them: CompiledModel has no scales."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        return image_and_outputs(Interpreter(str(path)), path=path)
    except (ValueError, RuntimeError) as error:
        raise InvalidArtifact(f"LiteRT cannot open {path}: {error}") from error


@contextlib.contextmanager
def _native_log() -> Iterator[list[str]]:
    """Yields a list that afterwards holds the lines native code wrote to standard error.

    Only there does LiteRT report why an accelerator is not available. A worker's standard error is
    a file that can be read back; it is not redirected, so that the last lines of an engine that
    aborts the process are kept.
    """
    log_lines: list[str] = []
    if _is_readable_file(2):
        start = os.fstat(2).st_size
        yield log_lines
        log_lines += _lines(os.pread(2, os.fstat(2).st_size - start, start))
        return
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield log_lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            content = file.read()
            log_lines += _lines(content)
            os.write(2, content)


def _is_readable_file(descriptor: int) -> bool:
    try:
        os.pread(descriptor, 0, 0)
    except (OSError, AttributeError):  # a pipe or a write-only file; Windows
        return False
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _lines(content: bytes) -> list[str]:
    lines = content.decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _reason(name: str, log_lines: Sequence[str]) -> str:
    """Returns the log lines that explain the failure of an accelerator, as one line."""
    others = _OTHER_ACCELERATORS.get(name, ())
    failures = [
        _LOG_PREFIX.sub("", line)
        for line in log_lines
        if any(sign in line for sign in _FAILURES) and not any(other in line for other in others)
    ]
    coverage = [line for line in log_lines if _COVERAGE.search(line)]
    unique = dict.fromkeys(line for line in (*coverage[-1:], *failures) if line)
    return "; ".join(unique) or "LiteRT gives no reason"
