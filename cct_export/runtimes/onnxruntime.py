"""ONNX Runtime and its execution providers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency, NotAvailable
from cct_export.files import check_file
from cct_export.records import CONTRACT_KEY, Contract
from cct_export.records.layout import image_shape_of, layout_of
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
from cct_export.untrusted import refusing

CPU = "CPUExecutionProvider"
# What ONNX Runtime puts before its messages: its name, and number and name of the code.
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


class Provider(NamedTuple):
    """An execution provider.

    Attributes:
        name: in ONNX Runtime.
        accelerator: kind of processor that it runs on.
        package: builds of ONNX Runtime that include it.
    """

    name: str
    accelerator: str
    package: str


PROVIDERS = {
    "cpu": Provider(CPU, "cpu", "every onnxruntime"),
    "xnnpack": Provider("XnnpackExecutionProvider", "cpu", "builds for Android, iOS and Arm Linux"),
    "cuda": Provider("CUDAExecutionProvider", "gpu", "onnxruntime-gpu"),
    "tensorrt": Provider("TensorrtExecutionProvider", "gpu", "onnxruntime-gpu"),
    "openvino": Provider("OpenVINOExecutionProvider", "cpu", "onnxruntime-openvino"),
    "qnn": Provider("QNNExecutionProvider", "npu", "onnxruntime-qnn"),
    "coreml": Provider("CoreMLExecutionProvider", "apple", "onnxruntime on macOS"),
    "nnapi": Provider("NnapiExecutionProvider", "android", "onnxruntime-android"),
    "directml": Provider("DmlExecutionProvider", "gpu", "onnxruntime-directml"),
    "webgpu": Provider("WebGpuExecutionProvider", "gpu", "onnxruntime-webgpu"),
}
DELEGATES = {
    "default": "the CPU",
    **{key: f"{provider.name}, in {provider.package}" for key, provider in PROVIDERS.items()},
    "plugin": "plugin:/path/to/provider.so, a provider in a library of its own",
}
_OPENVINO = PROVIDERS["openvino"].name
_PLUGIN = "cct_export_plugin"
_IMAGE_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeSession(Session):
    """An ``.onnx`` file in ONNX Runtime. See ``Session``."""

    def __init__(
        self, path: Path, *, threads: int, delegation: Delegation, profile: Path | None = None
    ) -> None:
        """Opens ``path``; see ``open_session``.

        With ``profile``, a path without suffix, the times of the operators are recorded there; see
        ``end_profile``.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._session, provider = _open(path, options, delegation)
        self.engine = ("onnxruntime", onnxruntime.__version__)
        self.delegate = "cpu" if delegation.name == "default" else delegation.name
        self.accelerator = _accelerator(delegation)
        with refusing(InvalidArtifact, f"{path}: not a readable ONNX file"):
            image = _image_input(self._session, path)
            self._input = image.name
            properties = self._session.get_modelmeta().custom_metadata_map
            self.contract = Contract.parse(properties.get(CONTRACT_KEY, "{}"))
        self.layout = layout_of(image.shape)
        self.image_shape: ImageShape = image_shape_of(image.shape, self.layout)
        self.io = _IMAGE_TYPES[image.type]
        self.batch = image.shape[0] if isinstance(image.shape[0], int) else None
        found = [
            output_of(each.name, _dtype(each.type), each.shape)
            for each in self._session.get_outputs()
        ]
        self.outputs = checked_outputs(self, path=path, format="onnx", outputs=found)
        subgraphs = self._session.get_provider_graph_assignment_info()
        nodes = [(part.ep_name, len(part.get_nodes())) for part in subgraphs]
        # Builds with WebGPU report no subgraphs.
        if nodes:
            self.total_nodes = sum(count for _, count in nodes)
            self.delegated_nodes = sum(count for name, count in nodes if name == provider)
        self._check_delegated(path, provider, delegation.allow_fallback)

    def _check_delegated(self, path: Path, provider: str, allow_fallback: bool) -> None:
        """Raises ``NotAvailable`` if the requested provider does not run all nodes."""
        delegated, total = self.delegated_nodes, self.total_nodes
        if total is None and allow_fallback:
            raise NotAvailable(
                f"{provider} does not report which nodes of {path} it runs: leave out "
                "--allow-fallback, then ONNX Runtime requires it to run all of them"
            )
        if provider == CPU or delegated == total:
            return
        if not delegated:
            raise NotAvailable(f"{provider} runs none of the {total} nodes of {path}")
        if not allow_fallback:
            raise NotAvailable(
                f"{provider} runs {delegated} of the {total} nodes of {path}: "
                "--allow-fallback measures it anyway and reports the share"
            )

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        return side_by_side(self._session.run(None, {self._input: prepared}))

    def end_profile(self) -> Path:
        """Stops profiling; returns the file with the times of the operators."""
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
    *,
    threads: int = 1,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    options: ModelOptions = NO_OPTIONS,
) -> Session:
    """Opens an ``.onnx`` file; see ``Engine.open_session``."""
    check_file(path)
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    if not trusted:
        return IsolatedSession(Opening("onnxruntime", str(path), threads, delegation))
    import_engine()
    return OnnxRuntimeSession(path, threads=threads, delegation=delegation)


def choose_delegate(name: str) -> str:
    """Returns a provider as this module names it; see ``Engine.choose_delegate``.

    It may also be named as ONNX Runtime names it, such as ``CUDAExecutionProvider``.
    """
    for key, provider in PROVIDERS.items():
        if name == provider.name:
            return key
    return chosen_delegate(name, DELEGATES, engine="ONNX Runtime", library="plugin")


def _provider(name: str) -> Provider:
    """Returns the provider of a delegate that is no plugin."""
    return PROVIDERS["cpu" if name == "default" else name]


def _available_provider(name: str) -> Provider:
    """Returns a provider; raises ``NotAvailable`` if this onnxruntime does not include it."""
    import onnxruntime

    provider = _provider(name)
    available = onnxruntime.get_available_providers()
    if provider.name not in available:
        raise NotAvailable(
            f"{provider.name} is in {provider.package}; this onnxruntime has only "
            f"{', '.join(available)}"
        )
    return provider


def _accelerator(delegation: Delegation) -> str:
    """Returns the kind of processor that a provider runs on."""
    if delegation.name.startswith("plugin:"):
        return "plugin"
    provider = _provider(delegation.name)
    device = dict(delegation.options).get("device_type", "")
    return device.lower() or provider.accelerator


def _open(path: Path, options: Any, delegation: Delegation) -> tuple[Any, str]:
    """Returns ONNX Runtime's session and its provider's name; changes ``options``."""
    import onnxruntime

    provider_options = dict(delegation.options)
    providers: list[str] | None = None
    if delegation.name.startswith("plugin"):
        name = _add_plugin(options, delegation)
    else:
        name = _available_provider(delegation.name).name
        if name == CPU and provider_options:
            raise InvalidRequest(
                f"ONNX Runtime's {CPU} takes no options, not {', '.join(provider_options)}"
            )
        if name == _OPENVINO:  # which ignores intra_op_num_threads
            provider_options.setdefault("num_of_threads", str(options.intra_op_num_threads))
        providers = [name]
    if name != CPU and not delegation.allow_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(
            path,
            options,
            providers=providers,
            provider_options=[provider_options] if providers else None,
            enable_fallback=0,
        )
    except Exception as error:  # its exceptions have no common base class
        reason = _CODE.sub("", str(error).strip().partition("\n")[0])
        if name == CPU:
            raise InvalidArtifact(f"ONNX Runtime cannot open {path}: {reason}") from error
        raise NotAvailable(f"{name} does not run {path}: {reason}") from error
    if name not in session.get_providers():
        raise NotAvailable(f"{name} could not be started for {path}: `-v` shows its log")
    return session, name


def _add_plugin(options: Any, delegation: Delegation) -> str:
    """Registers a provider's library and adds its first device; returns the provider's name."""
    import onnxruntime

    library = delegation.name.partition(":")[2]
    check_file(Path(library), "provider")
    known = {device.ep_name for device in onnxruntime.get_ep_devices()}
    try:
        onnxruntime.register_execution_provider_library(_PLUGIN, library)
    except Exception as error:  # as above
        reason = str(error).strip().partition("\n")[0]
        raise NotAvailable(f"{library} is no provider of ONNX Runtime: {reason}") from error
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name not in known]
    if not devices:
        raise NotAvailable(f"{library} finds no device on this machine")
    options.add_provider_for_devices(devices[:1], dict(delegation.options))
    name: str = devices[0].ep_name
    return name


def _image_input(session: Any, path: Path) -> Any:
    """Returns the image input; raises ``InvalidArtifact`` if there is not one image and classes."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    ranks = [len(tensor.shape) for tensor in outputs]
    if len(inputs) != 1 or not classifies(len(inputs[0].shape), ranks):
        shapes = [tensor.shape for tensor in (*inputs, *outputs)]
        raise InvalidArtifact(
            f"{path} does not map one image to logits: its inputs and outputs are {shapes}"
        )
    image = inputs[0]
    if image.type not in _IMAGE_TYPES:
        raise InvalidArtifact(f"{path} takes {image.type}, not float32 or uint8 images")
    if not all(isinstance(size, int) for size in image.shape[1:]):
        raise InvalidArtifact(
            f"{path} takes images of any size, {image.shape}: export it with a fixed one"
        )
    return image


def _dtype(type: str) -> str:
    """Returns numpy's name of an ONNX Runtime type such as ``tensor(float)``."""
    name = type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)
