"""TFLite Micro: its interpreter with the reference kernels, of the package tflite-micro."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency
from cct_export.files import check_file
from cct_export.records.layout import image_shape_of, layout_of
from cct_export.runtimes.isolated import IsolatedSession, Opening
from cct_export.runtimes.litert_file import contract_of, image_and_outputs
from cct_export.runtimes.session import (
    Logits,
    Session,
    checked_outputs,
    chosen_delegate,
    side_by_side,
)
from cct_export.specs import DEFAULT_DELEGATION, NO_OPTIONS, Delegation, ModelOptions
from cct_export.streams import redirected
from cct_export.text import one_line
from cct_export.untrusted import refusing

DELEGATES = {"default": "TFLite Micro's reference kernels; nothing is timed with them"}
# Room for what the interpreter needs beside tensors.
_OVERHEAD_BYTES = 2**20
_ARENA = re.compile(r"Arena allocation total (\d+) bytes")


class TFLMSession(Session):
    """A ``.tflite`` file in TFLite Micro's interpreter. See ``Session``."""

    def __init__(self, path: Path) -> None:
        """Opens ``path``; see ``Engine.open_session``."""
        from tflite_micro import runtime

        self._path = path
        self.contract = contract_of(path)
        self.engine = ("tflm", metadata.version("tflite-micro"))
        self.delegate, self.accelerator = "reference", "cpu"
        with refusing(InvalidArtifact, f"{path}: not a readable TFLite file"):
            tensors = _Tensors(path.read_bytes())
            arena_size = tensors.arena_limit
        self._interpreter: Any = self._called(
            lambda: runtime.Interpreter.from_file(str(path), arena_size=arena_size)
        )
        image, outputs = image_and_outputs(tensors, path=path)
        self._outputs = range(len(outputs))
        self.input_quantization = image.quantization
        self.output_quantizations = tuple(output.quantization for output in outputs)
        self.layout = layout_of(image.shape)
        self.image_shape = image_shape_of(image.shape, self.layout)
        self.io, self.batch = image.dtype, image.shape[0]
        self.outputs = checked_outputs(
            self, path=path, format="tflite", outputs=[output.contract for output in outputs]
        )
        self.invoke(np.zeros(image.shape, image.dtype))
        self.arena_bytes = self._arena_bytes()

    def _called(self, call: Callable[[], object]) -> object:
        """Calls the engine, which tells its reasons on standard error only."""
        with tempfile.TemporaryFile() as log:
            try:
                with redirected(2, log.fileno()):
                    return call()
            except (RuntimeError, ValueError) as error:
                log.seek(0)
                reasons = log.read().decode(errors="replace").strip().splitlines()
                reason = one_line(reasons[0] if reasons else error)
                raise InvalidArtifact(f"TFLite Micro cannot run {self._path}: {reason}") from error

    def _arena_bytes(self) -> int | None:
        """Returns what the interpreter took of the arena, which it only prints."""
        with tempfile.TemporaryFile() as log:
            with redirected(2, log.fileno()):
                self._interpreter.print_allocations()
            log.seek(0)
            total = _ARENA.search(log.read().decode(errors="replace"))
        return int(total[1]) if total else None

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._called(lambda: (self._interpreter.set_input(prepared, 0), self._interpreter.invoke()))
        return side_by_side([self._interpreter.get_output(index) for index in self._outputs])

    def close(self) -> None:
        """Frees the interpreter."""
        del self._interpreter


class _Tensors:
    """The input and outputs of a flatbuffer, as LiteRT's interpreter describes them."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf(content, 0)
        self._graph = model.subgraphs[0]
        self._dtypes = {
            number: name.lower()
            for name, number in vars(schema.TensorType).items()
            if not name.startswith("_")
        }

    @property
    def arena_limit(self) -> int:
        """Bytes that suffice for all tensors, each copied once, without sharing any memory."""
        shapes = map(_shape_of, self._graph.tensors)
        sizes = (float(np.prod(shape, dtype=np.float64)) for shape in shapes)
        return int(2 * 8 * sum(sizes)) + _OVERHEAD_BYTES

    def get_input_details(self) -> list[dict[str, Any]]:
        """Returns the inputs."""
        return [self._details(int(index)) for index in self._graph.inputs]

    def get_output_details(self) -> list[dict[str, Any]]:
        """Returns the outputs."""
        return [self._details(int(index)) for index in self._graph.outputs]

    def _details(self, index: int) -> dict[str, Any]:
        tensor = self._graph.tensors[index]
        affine = tensor.quantization
        has_scale = affine is not None and affine.scale is not None and len(affine.scale) == 1
        return {
            "index": index,
            "name": tensor.name.decode(errors="replace"),
            "shape": _shape_of(tensor),
            "shape_signature": _shape_of(tensor),
            "dtype": self._dtypes[tensor.type],
            "quantization": (affine.scale[0], affine.zeroPoint[0]) if has_scale else (0.0, 0),
        }


def _shape_of(tensor: Any) -> np.ndarray:
    """Returns the shape of a flatbuffer's tensor, which a scalar may lack."""
    return np.empty(0, np.int32) if tensor.shape is None else tensor.shape


def choose_delegate(name: str) -> str:
    """Returns a delegate as this module names it; see ``Engine.choose_delegate``."""
    return chosen_delegate(name, DELEGATES, engine="TFLite Micro")


def import_engine() -> None:
    """Imports TFLite Micro; raises ``MissingDependency``."""
    try:
        import ai_edge_litert  # noqa: F401
        import tflite_micro  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "tflite-micro is not installed: pip install 'cct-export[tflm]' brings it, for CPython "
            "3.11 on x86-64 Linux only"
        ) from None


def is_installed() -> bool:
    """Returns whether ``import_engine`` finds the engine."""
    try:
        import_engine()
    except MissingDependency:
        return False
    return True


def open_session(
    path: Path,
    *,
    threads: int = 1,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    options: ModelOptions = NO_OPTIONS,
) -> Session:
    """Opens a ``.tflite`` file; see ``Engine.open_session``."""
    check_file(path)
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    if threads != 1:
        raise InvalidRequest(f"TFLite Micro runs on one thread, not {threads}: leave it out")
    if not trusted:
        return IsolatedSession(Opening("tflm", str(path), threads, delegation))
    import_engine()
    return TFLMSession(path)
