"""ncnn, with float32 arithmetic on the CPU."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency
from cct_export.files import check_file
from cct_export.records import CONTRACT_KEY, Contract, weights
from cct_export.records.layout import NCHW
from cct_export.records.output import output_of
from cct_export.runtimes.isolated import IsolatedSession, Opening
from cct_export.runtimes.session import (
    Logits,
    Session,
    checked_outputs,
    chosen_delegate,
    classifies,
    side_by_side,
)
from cct_export.specs import DEFAULT_DELEGATION, NO_OPTIONS, Delegation, ModelOptions
from cct_export.streams import redirected
from cct_export.text import one_line
from cct_export.untrusted import Malformed, refusing

DELEGATES = {"default": "ncnn's layers for the CPU, in float32"}
UNREADABLE = "not a readable ncnn file"
# By default ncnn computes in 16 bits wherever the processor can.
_IN_16_BITS = (
    "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed",
    "use_bf16_storage",
)  # fmt: skip
_MAGIC = "7767517"
_INPUT = re.compile(r"^Input\s+\S+\s+0\s+1\s+(\S+)(.*)$", re.MULTILINE)
_SIZE = re.compile(r"(?:^|\s)(0|1|2)=(\d{1,9})(?=\s|$)")
_CONTRACT = re.compile(rf"^# {re.escape(CONTRACT_KEY)} (.*)$", re.MULTILINE)
_MAX_BYTES = 2**26  # of a text; a million layers have fewer


class NcnnSession(Session):
    """An ``.ncnn.param`` file and its ``.ncnn.bin`` in ncnn. See ``Session``."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Opens ``path``; see ``Engine.open_session``."""
        import ncnn

        self._ncnn, self._path = ncnn, path
        with refusing(InvalidArtifact, f"{path}: {UNREADABLE}"):
            text = _text(path)
            self._input, self.image_shape = _image(text)
            stored = _CONTRACT.findall(text)
            self.contract = Contract.parse(stored[-1] if stored else "{}")
        self.engine = ("ncnn", ncnn.__version__)
        self.delegate, self.accelerator = "cpu", "cpu"
        self.layout, self.io, self.batch = NCHW, "float32", 1
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        for option in _IN_16_BITS:
            setattr(self._net.opt, option, False)
        self._called(lambda: self._load(weights.path_of(path)))
        names = self._net.output_names()
        self._outputs = list(names)
        height, width, channels = self.image_shape
        values = self._run(np.zeros((1, channels, height, width), np.float32))
        if not classifies(4, [value.ndim for value in values]):
            shapes = [value.shape for value in values]
            raise InvalidArtifact(
                f"{path} does not map one image to logits: its outputs are {shapes}"
            )
        found = [
            output_of(name, "float32", value.shape)
            for name, value in zip(names, values, strict=True)
        ]
        self.outputs = checked_outputs(self, path=path, format="ncnn", outputs=found)

    def _load(self, beside: Path | None) -> int:
        """Reads the layers, and their weights; returns 0 if that succeeds."""
        return int(self._net.load_param(str(self._path)) or self._net.load_model(str(beside)))

    def _called(self, call: Callable[[], int]) -> None:
        """Calls ncnn, which returns a number and tells the reason on standard error only."""
        with tempfile.TemporaryFile() as log:
            with redirected(2, log.fileno()):
                failed = call()
            if failed:
                log.seek(0)
                reasons = log.read().decode(errors="replace").strip().splitlines()
                reason = one_line(reasons[0]) if reasons else f"it returns {failed}"
                raise InvalidArtifact(f"ncnn cannot run {self._path}: {reason}")

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        return side_by_side(self._run(prepared))

    def _run(self, prepared: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs, with a batch axis of one image."""
        extractor = self._net.create_extractor()
        # A copy: ncnn neither holds the array nor takes any distance between channels.
        extractor.input(self._input, self._ncnn.Mat(prepared[0]).clone())
        outputs = []
        for name in self._outputs:
            failed, output = extractor.extract(name)
            if failed:
                raise InvalidArtifact(f"ncnn cannot run {self._path}: {name} returns {failed}")
            outputs.append(np.array(output)[np.newaxis])
        return outputs

    def close(self) -> None:
        """Frees the net."""
        self._net.clear()
        del self._net


def _text(path: Path) -> str:
    """Returns the text of a file; raises ``Malformed`` for another."""
    if path.stat().st_size > _MAX_BYTES:
        raise Malformed(f"it has {path.stat().st_size:,} bytes, more than any list of layers")
    text = path.read_text("utf-8")
    if text.split(maxsplit=1)[:1] != [_MAGIC]:
        raise Malformed(f"it does not begin with {_MAGIC}")
    return text


def _image(text: str) -> tuple[str, ImageShape]:
    """Returns the name of the image input, and height, width and channels."""
    inputs = _INPUT.findall(text)
    if len(inputs) != 1:
        raise Malformed(f"it has {len(inputs)} inputs, not one image")
    ((name, parameters),) = inputs
    sizes = {int(key): int(size) for key, size in _SIZE.findall(parameters)}
    if len(sizes) != 3 or not all(sizes.values()):
        raise Malformed(f"it does not tell the size of {name}: write 0=WIDTH 1=HEIGHT 2=CHANNELS")
    return name, (sizes[1], sizes[0], sizes[2])


def choose_delegate(name: str) -> str:
    """Returns a delegate as this module names it; see ``Engine.choose_delegate``."""
    return chosen_delegate(name, DELEGATES, engine="ncnn")


def import_engine() -> None:
    """Imports ncnn; raises ``MissingDependency``."""
    try:
        import ncnn  # noqa: F401
    except ImportError:
        raise MissingDependency.of("ncnn", "ncnn") from None


def open_session(
    path: Path,
    *,
    threads: int = 1,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    options: ModelOptions = NO_OPTIONS,
) -> Session:
    """Opens an ``.ncnn.param`` file; see ``Engine.open_session``."""
    check_file(path)
    beside = weights.path_of(path)
    if beside is None:
        raise InvalidRequest(f"{path} does not end in .ncnn.param: rename it, and its weights")
    check_file(beside, "file of weights")
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    if delegation.options:
        names = ", ".join(name for name, _ in delegation.options)
        raise InvalidRequest(f"ncnn takes no options, not {names}: leave them out")
    if not trusted:
        return IsolatedSession(Opening("ncnn", str(path), threads, delegation))
    import_engine()
    return NcnnSession(path, threads=threads)
