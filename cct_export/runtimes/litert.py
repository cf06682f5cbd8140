"""LiteRT (TensorFlow Lite): its interpreter and the delegates of that."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, MissingDependency, NotAvailable
from cct_export.runtimes import litert_delegates as delegates
from cct_export.runtimes.litert_file import (
    contract_of,
    ends,
    partitions,
    quantization,
    try_in_child,
)
from cct_export.runtimes.session import Logits, Session
from cct_export.specs import DEFAULT_DELEGATION, Delegation

DELEGATES = delegates.ABOUT


class LiteRTSession:
    """A ``.tflite`` file in LiteRT's interpreter. See ``Session``."""

    def __init__(self, path: Path, threads: int, delegation: Delegation) -> None:
        """Opens ``path``.

        Raises:
            InvalidArtifact: broken, or not from images to logits.
            NotAvailable: the delegate is not here, or does not take the whole file.
        """
        self.contract = contract_of(path)
        try:
            self._interpreter = delegates.interpreter(path, threads, delegation)
            self._interpreter.allocate_tensors()
            nodes = self.nodes()
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"LiteRT cannot open {path}: {_first_line(error)}") from error
        self.engine = ("litert", metadata.version("ai-edge-litert"))
        self.delegate = "xnnpack" if delegation.name == "default" else delegation.name
        self.accelerator = "external" if delegation.name.startswith("external:") else "cpu"
        image, logits = ends(self._interpreter, path)
        self._input, self._output = image["index"], logits["index"]
        self.input_quantization = quantization(image)
        self.output_quantization = quantization(logits)
        self.image_shape: ImageShape = tuple(int(size) for size in image["shape"][1:])  # type: ignore[assignment]
        self.io = np.dtype(image["dtype"]).name
        self.batch: int | None = int(image["shape"][0])
        self.delegated_nodes: int | None
        self.total_nodes: int | None
        self.delegated_nodes, self.total_nodes = _count_nodes(nodes)
        delegates.check_taken(path, delegation, self.delegated_nodes, self.total_nodes)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._interpreter.set_tensor(self._input, prepared)
        self._interpreter.invoke()
        logits: Logits = self._interpreter.get_tensor(self._output)
        return logits

    def nodes(self) -> list[dict[str, Any]]:
        """Returns the file's operators and after them the delegate's, see ``partitions``."""
        nodes: list[dict[str, Any]] = self._interpreter._get_ops_details()
        return nodes

    def close(self) -> None:
        """Frees the interpreter."""
        del self._interpreter


def import_engine() -> None:
    """Imports LiteRT; raises ``MissingDependency``."""
    try:
        import ai_edge_litert.interpreter
        import ai_edge_litert.schema_py_generated  # noqa: F401
    except ImportError:
        raise MissingDependency.of("ai-edge-litert", "litert") from None


def open_session(
    path: Path, threads: int = 1, trusted: bool = False, delegation: Delegation = DEFAULT_DELEGATION
) -> Session:
    """Returns a session on ``path``.

    Args:
        path: the file.
        threads: threads that the CPU may use.
        trusted: skip the trial in a process of its own, which a broken flatbuffer can end: for
            files just made, and where this process may end.
        delegation: one of ``DELEGATES``.

    Raises:
        InvalidArtifact: missing, broken, or not from images to logits.
        MissingDependency: ai-edge-litert is not installed.
        NotAvailable: the delegate is not here, or does not take the whole file.
    """
    if not path.is_file():
        raise InvalidArtifact(f"no such file: {path}")
    import_engine()
    if not trusted:
        contract_of(path)
        try_in_child(path)
    word, colon, _ = delegation.name.partition(":")
    if word not in DELEGATES or (colon and word != "external"):
        raise NotAvailable(
            f"LiteRT has no delegate {delegation.name!r}: choose {', '.join(DELEGATES)}"
        )
    if word in ("gpu", "npu"):
        from cct_export.runtimes.litert_compiled import CompiledSession

        return CompiledSession(path, threads, delegation)
    return LiteRTSession(path, threads, delegation)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _count_nodes(operators: list[dict[str, Any]]) -> tuple[int, int]:
    """Returns how many operators the delegate took, and how many there are."""
    originals = sum(node["op_name"] != "DELEGATE" for node in operators)
    return len(partitions(operators)), originals
