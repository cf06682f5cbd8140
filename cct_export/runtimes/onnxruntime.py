"""ONNX Runtime and its execution providers."""

from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.records import CONTRACT_KEY, Contract
from cct_export.runtimes import onnxruntime_providers as providers
from cct_export.runtimes.session import Logits, Quantization
from cct_export.specs import DEFAULT_DELEGATION, Delegation

DELEGATES = providers.ABOUT
_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeSession:
    """An ``.onnx`` file in ONNX Runtime. See ``Session``."""

    def __init__(
        self, path: Path, threads: int, delegation: Delegation, profile: Path | None = None
    ) -> None:
        """Opens ``path``; see ``open_session``."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._session, provider = providers.open_engine(path, options, delegation)
        self.engine = ("onnxruntime", onnxruntime.__version__)
        self.delegate = "cpu" if delegation.name == "default" else delegation.name
        self.accelerator = providers.accelerator(delegation)
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
        mine = [part for part in parts if part.ep_name == provider]
        # WebGPU's builds tell nothing: no parts at all.
        self.total_nodes: int | None = sum(len(part.get_nodes()) for part in parts) or None
        self.delegated_nodes: int | None = (
            sum(len(part.get_nodes()) for part in mine) if self.total_nodes else None
        )
        nodes = self.delegated_nodes, self.total_nodes
        providers.check_taken(path, provider, delegation, *nodes)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        logits: Logits = self._session.run(None, {self._input: prepared})[0]
        return logits

    def end_profile(self) -> Path:
        """Returns the file with the time of every operator so far, and keeps no more of them."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """Frees the session."""
        del self._session


def import_engine() -> None:
    """Imports ONNX Runtime; raises ``MissingDependency``."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingDependency.of("onnxruntime", "onnxruntime") from None


def open_session(
    path: Path,
    threads: int = 1,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    profile: Path | None = None,
) -> OnnxRuntimeSession:
    """Returns a session on ``path``.

    Args:
        path: the file.
        threads: threads inside of an operator.
        trusted: changes nothing, the parser survives any file.
        delegation: one of ``DELEGATES``, or a provider by the engine's own name.
        profile: where to keep the time of every operator, a path without suffix; see
            ``OnnxRuntimeSession.end_profile``.

    Raises:
        InvalidArtifact: missing, broken, or not from images to logits.
        MissingDependency: onnxruntime is not installed.
        NotAvailable: the provider is not here, or does not take the whole file.
    """
    if not path.is_file():
        raise InvalidArtifact(f"no such file: {path}")
    import_engine()
    return OnnxRuntimeSession(path, threads, delegation, profile)


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


def _contract(session: Any, path: Path) -> Contract:
    """Returns what the file says about itself."""
    properties = session.get_modelmeta().custom_metadata_map
    try:
        return Contract.parse(properties.get(CONTRACT_KEY, "{}"))
    except ValueError as error:
        raise InvalidArtifact(f"{path}: its {CONTRACT_KEY} cannot be read: {error}") from error
