"""ONNX Runtime on the CPU."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.results import CONTRACT_KEY
from cct_export.runtimes.session import Logits, Quantization
from cct_export.sidecar import parse_contract

PROVIDER = "CPUExecutionProvider"
_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeSession:
    """An ``.onnx`` file in ONNX Runtime. See ``Session``."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Opens ``path`` with ``threads`` threads inside an operator.

        Raises:
            InvalidArtifact: missing, broken, or not from images to logits.
            MissingDependency: onnxruntime is not installed.
        """
        if not path.is_file():
            raise InvalidArtifact(f"no such file: {path}")
        import_engine()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
        except Exception as error:  # its exceptions have no common base class
            reason = str(error).strip().partition("\n")[0]
            raise InvalidArtifact(f"ONNX Runtime cannot open {path}: {reason}") from error
        self.engine = ("onnxruntime", onnxruntime.__version__)
        image = _image(self._session, path)
        batch, height, width, channels = image.shape
        self._input = image.name
        self.image_shape: ImageShape = (height, width, channels)
        self.io = _TYPES[image.type]
        self.input_quantization: Quantization | None = None
        self.output_quantization: Quantization | None = None
        self.batch: int | None = batch if isinstance(batch, int) else None
        self.contract = _contract(self._session, path)
        parts = self._session.get_provider_graph_assignment_info()
        mine = [part for part in parts if part.ep_name == PROVIDER]
        self.delegated_nodes: int | None = sum(len(part.get_nodes()) for part in mine)
        self.total_nodes: int | None = sum(len(part.get_nodes()) for part in parts)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        logits: Logits = self._session.run(None, {self._input: prepared})[0]
        return logits

    def close(self) -> None:
        """Frees the session."""
        del self._session


def import_engine() -> None:
    """Imports ONNX Runtime; raises ``MissingDependency``."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingDependency.of("onnxruntime", "onnxruntime") from None


def open_session(path: Path, threads: int = 1, trusted: bool = False) -> OnnxRuntimeSession:
    """Returns a session on ``path``; ``trusted`` changes nothing, the parser survives any file."""
    return OnnxRuntimeSession(path, threads)


def kernels(path: Path) -> dict[str, int]:
    """Returns the operators that ONNX Runtime runs for one image, by kind, from its profile.

    Args:
        path: a file just made, with float32 or uint8 input.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        options.log_severity_level = 3
        engine = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
        image = engine.get_inputs()[0]
        shape = [size if isinstance(size, int) else 1 for size in image.shape]
        engine.run(None, {image.name: np.zeros(shape, _TYPES[image.type])})
        events = json.loads(Path(engine.end_profiling()).read_text())
    ran = [
        event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time")
    ]
    return dict(Counter(ran).most_common())


def _image(session: Any, path: Path) -> Any:
    """Returns the image input, after checking that the file is from one image to logits."""
    ends = inputs, outputs = session.get_inputs(), session.get_outputs()
    good = (
        [len(end) for end in ends] == [1, 1]
        and len(inputs[0].shape) == 4
        and len(outputs[0].shape) == 2
    )
    if not good:
        shapes = [end.shape for end in (*inputs, *outputs)]
        raise InvalidArtifact(f"{path} is not from one image to logits: its ends are {shapes}")
    if inputs[0].type not in _TYPES:
        raise InvalidArtifact(f"{path} takes {inputs[0].type}, not float32 or uint8 images")
    if not all(isinstance(size, int) for size in inputs[0].shape[1:]):
        raise InvalidArtifact(
            f"{path} takes images of any size, {inputs[0].shape}: export it with a fixed one"
        )
    return inputs[0]


def _contract(session: Any, path: Path) -> dict[str, Any]:
    """Returns what the file says about itself, empty if nothing."""
    properties = session.get_modelmeta().custom_metadata_map
    try:
        return parse_contract(properties.get(CONTRACT_KEY, "{}"))
    except ValueError as error:
        raise InvalidArtifact(f"{path}: its {CONTRACT_KEY} cannot be read: {error}") from error
