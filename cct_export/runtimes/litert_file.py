"""What can be known of a ``.tflite`` file before an engine opens it, which a broken one may end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact
from cct_export.records import CONTRACT_KEY, Contract
from cct_export.runtimes.session import Quantization

PROBE_LIMIT_S = 120
_TYPES = ("float32", "uint8", "int8")
_PROBE = """
import sys
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
interpreter.invoke()
"""


def contract_of(path: Path) -> Contract:
    """Returns what the file says about itself.

    Raises:
        InvalidArtifact: missing, no flatbuffer, or its contract cannot be read.
    """
    if not path.is_file():
        raise InvalidArtifact(f"no such file: {path}")
    try:
        return read_contract(path.read_bytes())
    except InvalidArtifact as error:
        raise InvalidArtifact(f"{path}: {error}") from error


def read_contract(content: bytes) -> Contract:
    """Returns what the file says about itself.

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
                return Contract.parse(stored.decode())
    except Exception as error:  # a broken flatbuffer raises anything, struct.error above all
        raise InvalidArtifact(f"not a readable TFLite file: {error}") from error
    return Contract()


def try_in_child(path: Path) -> None:
    """Runs the file once in a process of its own; raises ``InvalidArtifact`` if that fails."""
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


def quantization(end: dict[str, Any]) -> Quantization | None:
    """Returns scale and zero point of an end of the graph, None if it has no integers."""
    scale, zero_point = end["quantization"]
    return Quantization(float(scale), int(zero_point)) if scale else None


def ends(interpreter: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the details of the image input and of the logits.

    Args:
        interpreter: LiteRT's, opened on ``path``.
        path: named in the errors.

    Raises:
        InvalidArtifact: the file is not from one image to logits.
    """
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
    if type == "int8" and quantization(inputs[0]) is None:
        raise InvalidArtifact(f"{path} does not say which pixel an int8 of its input stands for")
    return inputs[0], outputs[0]
