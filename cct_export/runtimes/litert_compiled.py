"""LiteRT's CompiledModel on a GPU or NPU."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, InvalidRequest, NotAvailable
from cct_export.runtimes.litert_file import contract_of, ends, quantization
from cct_export.runtimes.session import Logits, Quantization
from cct_export.specs import Delegation

# Which of the engine's messages tell what went wrong, and where in the engine they are from.
_SIGNS = ("No adapters", "ould not", "ouldn't", "not accelerated", "nsupported", "not supported")
_SHARES = re.compile(r"(\d+) operations will run on the \w+, and the remaining (\d+) operations")
_ORIGIN = re.compile(r"^(?:└ )?(?:(?:ERROR|WARNING|Warning): ?(?:\[[^\]]*\])? ?)?")
# The engine tries every accelerator, whichever was asked for.
_OF_ANOTHER = {"gpu": ("NPU", "compiler_plugin", "openvino"), "npu": ("Vulkan", "WebGPU")}
_HOST_MEMORY = 1  # LiteRT's type of a buffer that the CPU reads and writes
_PRECISIONS = ("fp32", "fp16")


class _End(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None


class CompiledSession:
    """A ``.tflite`` file compiled for a GPU or NPU. See ``Session``."""

    def __init__(self, path: Path, threads: int, delegation: Delegation) -> None:
        """Opens ``path``.

        Raises:
            InvalidArtifact: broken, or not from one image to logits.
            InvalidRequest: an option that there is not.
            NotAvailable: there is no such accelerator, or it does not take the whole file.
        """
        self.contract = contract_of(path)
        image, logits = _ends(path)
        self.engine = ("litert", metadata.version("ai-edge-litert"))
        self.delegate = self.accelerator = delegation.name
        self._model, messages = _compiled(path, threads, delegation)
        self._inputs = self._model.create_input_buffers(0)
        self._outputs = self._model.create_output_buffers(0)
        self.image_shape: ImageShape = image.shape[1:]  # type: ignore[assignment]
        self.batch: int | None = image.shape[0]
        self.io = image.dtype
        self.input_quantization = image.quantization
        self.output_quantization = logits.quantization
        self._logits = logits
        # How many operators there are, the engine says only where some of them fell back.
        self.delegated_nodes: int | None
        self.total_nodes: int | None
        self.delegated_nodes, self.total_nodes = _shares(messages)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``. The run itself is asynchronous: reading waits for it."""
        self._inputs[0].write(np.ascontiguousarray(prepared))
        self._model.run_by_index(0, self._inputs, self._outputs)
        count = int(np.prod(self._logits.shape))
        found = self._outputs[0].read(count, np.dtype(self._logits.dtype).type)
        logits: Logits = np.asarray(found).reshape(self._logits.shape)
        return logits

    def close(self) -> None:
        """Frees the model."""
        self._model.close()


def _compiled(path: Path, threads: int, delegation: Delegation) -> tuple[Any, list[str]]:
    """Returns the engine's model, and what it said while it made that."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, GpuOptions, Options

    word = delegation.name
    wanted = HardwareAccelerator.GPU if word == "gpu" else HardwareAccelerator.NPU
    if delegation.allow_fallback:
        wanted |= HardwareAccelerator.CPU
    options = Options(wanted, cpu_options=CpuOptions(num_threads=threads))
    if word == "gpu":
        options = Options(
            wanted,
            cpu_options=CpuOptions(num_threads=threads),
            gpu_options=GpuOptions(enforce_f32=_precision(delegation) == "fp32"),
        )
    elif delegation.options:
        raise InvalidRequest(f"LiteRT's delegate {word!r} takes no options")
    model, refusal = None, None
    with _native_messages() as messages:
        try:
            model = CompiledModel.from_file(str(path), options=options)
        except RuntimeError as error:
            refusal = error
    if refusal is not None:
        reason = _cause(word, messages, refusal)
        raise NotAvailable(f"{word} does not run {path}: {reason}") from refusal
    _check_ran(path, word, model, messages)
    return model, messages


def _shares(messages: list[str]) -> tuple[int, int] | tuple[None, None]:
    """Returns how many operators the accelerator took, and how many there are."""
    found = [match for line in messages if (match := _SHARES.search(line))]
    if not found:
        return None, None
    return int(found[-1][1]), int(found[-1][1]) + int(found[-1][2])


def _check_ran(path: Path, word: str, model: Any, messages: list[str]) -> None:
    """Raises ``NotAvailable`` if the CPU would run the file, or begin it: the engine may be silent.

    With a fallback it calls a model that runs on the CPU fully accelerated. Which memory the
    input is read from tells: host memory only is the CPU's.
    """
    types = set(model.get_input_buffer_requirements(0)["supported_types"])
    if word == "gpu" and types == {_HOST_MEMORY}:
        raise NotAvailable(f"{path} would start on the CPU, not on a GPU: {_cause(word, messages)}")
    if word == "npu" and any("NPU accelerator could not be loaded" in line for line in messages):
        raise NotAvailable(f"{path} would run on the CPU, not on an NPU: {_cause(word, messages)}")


def _precision(delegation: Delegation) -> str:
    options = dict(delegation.options)
    precision = options.pop("precision", _PRECISIONS[0])
    if options or precision not in _PRECISIONS:
        said = ", ".join(f"{name}={value}" for name, value in delegation.options)
        raise InvalidRequest(
            f"LiteRT's GPU takes the option precision={' or '.join(_PRECISIONS)}, not {said}"
        )
    return precision


def _ends(path: Path) -> tuple[_End, _End]:
    """Returns image and logits as the interpreter tells them: CompiledModel tells no scales."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        image, logits = ends(Interpreter(str(path)), path)
    except (ValueError, RuntimeError) as error:
        raise InvalidArtifact(f"LiteRT cannot open {path}: {error}") from error
    return _end(image), _end(logits)


def _end(details: dict[str, Any]) -> _End:
    shape = tuple(int(size) for size in details["shape"])
    return _End(shape, np.dtype(details["dtype"]).name, quantization(details))


@contextlib.contextmanager
def _native_messages() -> Iterator[list[str]]:
    """Gives a list that holds, afterwards, what native code wrote to standard error.

    LiteRT says there, and nowhere else, why an accelerator cannot be had. A worker's standard
    error is a file that can be read back; it is left as it is, so that the last words of an
    engine that ends the process come through.
    """
    messages: list[str] = []
    if _readable(2):
        start = os.fstat(2).st_size
        yield messages
        _take(messages, os.pread(2, os.fstat(2).st_size - start, start))
        return
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield messages
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            content = file.read()
            _take(messages, content)
            os.write(2, content)


def _readable(descriptor: int) -> bool:
    try:
        os.pread(descriptor, 0, 0)
    except (OSError, AttributeError):  # a pipe, a file to write only; Windows
        return False
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _take(messages: list[str], content: bytes) -> None:
    lines = content.decode(errors="replace").splitlines()
    messages += [line.strip() for line in lines if line.strip()]


def _cause(word: str, messages: list[str], error: Exception | None = None) -> str:
    """Returns the lines that say why, in one."""
    lines = [*messages, *(str(error).splitlines() if error else ())]
    others = _OF_ANOTHER.get(word, ())
    telling = [
        _ORIGIN.sub("", line)
        for line in lines
        if any(sign in line for sign in _SIGNS) and not any(other in line for other in others)
    ]
    shares = [line for line in lines if _SHARES.search(line)]
    told = dict.fromkeys(line for line in (*shares[-1:], *telling) if line)
    return "; ".join(told) or "it gave no reason"
