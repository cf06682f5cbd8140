"""LiteRT (TensorFlow Lite) on the CPU with the XNNPACK delegate."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.results import CONTRACT_KEY
from cct_export.runtimes.session import Logits, Quantization
from cct_export.sidecar import parse_contract

PROBE_LIMIT_S = 120
_TYPES = ("float32", "uint8", "int8")
_PROBE = """
import sys
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
interpreter.invoke()
"""


class LiteRTSession:
    """A ``.tflite`` file in LiteRT's interpreter. See ``Session``."""

    def __init__(self, path: Path, threads: int = 1, trusted: bool = False) -> None:
        """Opens ``path``.

        Args:
            path: the file.
            threads: threads of the XNNPACK delegate.
            trusted: skip the trial in a process of its own, which a broken flatbuffer can end: for
                files just made, and where this process may end.

        Raises:
            InvalidArtifact: missing, broken, or not from images to logits.
            MissingDependency: ai-edge-litert is not installed.
        """
        if not path.is_file():
            raise InvalidArtifact(f"no such file: {path}")
        import_engine()
        from ai_edge_litert.interpreter import Interpreter

        try:
            self.contract = read_contract(path.read_bytes())
        except InvalidArtifact as error:
            raise InvalidArtifact(f"{path}: {error}") from error
        if not trusted:
            _try_in_child(path)
        try:
            self._interpreter = Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
            nodes = _count_nodes(self._interpreter._get_ops_details())
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"LiteRT cannot open {path}: {_first_line(error)}") from error
        self.engine = ("litert", metadata.version("ai-edge-litert"))
        image, logits = _ends(self._interpreter, path)
        self._input, self._output = image["index"], logits["index"]
        self.input_quantization = _quantization(image)
        self.output_quantization = _quantization(logits)
        self.image_shape: ImageShape = tuple(int(size) for size in image["shape"][1:])  # type: ignore[assignment]
        self.io = np.dtype(image["dtype"]).name
        self.batch: int | None = int(image["shape"][0])
        self.delegated_nodes: int | None
        self.total_nodes: int | None
        self.delegated_nodes, self.total_nodes = nodes

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._interpreter.set_tensor(self._input, prepared)
        self._interpreter.invoke()
        logits: Logits = self._interpreter.get_tensor(self._output)
        return logits

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


def open_session(path: Path, threads: int = 1, trusted: bool = False) -> LiteRTSession:
    """Returns a session on ``path``; see ``LiteRTSession``."""
    return LiteRTSession(path, threads, trusted)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def read_contract(content: bytes) -> dict[str, Any]:
    """Returns what the file says about itself, empty if nothing.

    Raises:
        InvalidArtifact: ``content`` is no flatbuffer, or its contract cannot be read.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise InvalidArtifact("not a TFLite file: the identifier TFL3 is missing")
    try:
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == CONTRACT_KEY.encode():
                stored = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
                return parse_contract(stored.decode())
    except Exception as error:  # a broken flatbuffer raises anything, struct.error above all
        raise InvalidArtifact(f"not a readable TFLite file: {error}") from error
    return {}


def _try_in_child(path: Path) -> None:
    in_child(_PROBE, path)


def in_child(code: str, path: Path) -> str:
    """Runs ``code`` on ``path`` in a Python of its own, which a broken flatbuffer may end.

    Args:
        code: what to run; it finds the path in ``sys.argv[1]``.
        path: the file.

    Returns:
        What ``code`` printed.

    Raises:
        InvalidArtifact: ``code`` failed, crashed, or took more than ``PROBE_LIMIT_S``.
    """
    # -P: the working directory may hold a module of the same name as one of ours.
    command = [sys.executable, "-P", "-c", code, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise InvalidArtifact(f"{path}: one run takes more than {PROBE_LIMIT_S} s") from None
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        reason = (
            f"LiteRT crashed on it (signal {-done.returncode})" if done.returncode < 0 else last
        )
        raise InvalidArtifact(f"{path} cannot be run: {reason}")
    return done.stdout


def _quantization(end: dict[str, Any]) -> Quantization | None:
    scale, zero_point = end["quantization"]
    return Quantization(float(scale), int(zero_point)) if scale else None


def _ends(interpreter: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the details of the image input and of the logits."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    good = (
        len(inputs) == len(outputs) == 1
        and len(inputs[0]["shape"]) == 4
        and -1 not in inputs[0]["shape_signature"][1:]
        and len(outputs[0]["shape"]) == 2
    )
    if not good:
        shapes = [tuple(map(int, end["shape"])) for end in (*inputs, *outputs)]
        raise InvalidArtifact(f"{path} is not from one image to logits: its ends are {shapes}")
    type = np.dtype(inputs[0]["dtype"]).name
    if type not in _TYPES:
        raise InvalidArtifact(f"{path} takes {type}, not {', '.join(_TYPES)} images")
    if type == "int8" and _quantization(inputs[0]) is None:
        raise InvalidArtifact(f"{path} does not say which pixel an int8 of its input stands for")
    return inputs[0], outputs[0]


def _count_nodes(operators: list[dict[str, Any]]) -> tuple[int, int]:
    """Returns how many operators the delegate took, and how many there are."""
    originals = sum(node["op_name"] != "DELEGATE" for node in operators)
    return len(partitions(operators)), originals


def partitions(operators: list[dict[str, Any]]) -> dict[int, int]:
    """Returns the partition, from 0 on, of each operator that the delegate took.

    LiteRT lists the delegate's own nodes after the original operators, which stay in the list. A
    partition is what lies between a delegate node's outputs and its inputs.

    Args:
        operators: ``index``, ``op_name``, ``inputs`` and ``outputs`` of each node, as LiteRT's
            interpreter lists them.
    """
    originals = [node for node in operators if node["op_name"] != "DELEGATE"]
    delegates = [node for node in operators if node["op_name"] == "DELEGATE"]
    maker = {int(tensor): node["index"] for node in originals for tensor in node["outputs"]}
    inputs_of = {node["index"]: node["inputs"] for node in originals}
    taken: dict[int, int] = {}
    for partition, delegate in enumerate(delegates):
        border = {int(tensor) for tensor in delegate["inputs"]}
        left = [int(tensor) for tensor in delegate["outputs"]]
        while left:
            tensor = left.pop()
            node = maker.get(tensor)
            if tensor in border or node is None or node in taken:
                continue
            taken[node] = partition
            left += [int(tensor) for tensor in inputs_of[node]]
    return taken
