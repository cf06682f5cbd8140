"""What ONNX Runtime can hand a graph to, and whether that really took it."""

from pathlib import Path
from typing import Any

from cct_export.errors import InvalidArtifact, InvalidRequest, NotAvailable
from cct_export.specs import Delegation

CPU = "CPUExecutionProvider"
# What the user says: the engine's name, the processor, what brings it.
PROVIDERS = {
    "cpu": (CPU, "cpu", "every onnxruntime"),
    "xnnpack": ("XnnpackExecutionProvider", "cpu", "builds for Android, iOS and Arm Linux"),
    "cuda": ("CUDAExecutionProvider", "gpu", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "gpu", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "cpu", "onnxruntime-openvino"),
    "qnn": ("QNNExecutionProvider", "npu", "onnxruntime-qnn"),
    "coreml": ("CoreMLExecutionProvider", "apple", "onnxruntime on macOS"),
    "nnapi": ("NnapiExecutionProvider", "android", "onnxruntime-android"),
    "directml": ("DmlExecutionProvider", "gpu", "onnxruntime-directml"),
    "webgpu": ("WebGpuExecutionProvider", "gpu", "onnxruntime-webgpu"),
}
ABOUT = {
    "default": "the CPU",
    **{word: f"{name}, in {origin}" for word, (name, _, origin) in PROVIDERS.items()},
    "plugin": "plugin:/path/to/provider.so, a provider that is a library of its own",
}
_OPENVINO = PROVIDERS["openvino"][0]
_PLUGIN = "cct_export_plugin"


def provider_name(delegation: Delegation) -> str:
    """Returns the engine's own name of a provider.

    Raises:
        NotAvailable: there is no such provider, or this onnxruntime does not have it.
    """
    import onnxruntime

    word = "cpu" if delegation.name == "default" else delegation.name
    names = {name: name for name, _, _ in PROVIDERS.values()}
    names |= {short: name for short, (name, _, _) in PROVIDERS.items()}
    if word not in names:
        raise NotAvailable(
            f"ONNX Runtime has no provider {word!r}: choose {', '.join(PROVIDERS)} or plugin:PATH"
        )
    here = onnxruntime.get_available_providers()
    if names[word] not in here:
        origin = next(origin for name, _, origin in PROVIDERS.values() if name == names[word])
        raise NotAvailable(
            f"this onnxruntime has no {names[word]}, only {', '.join(here)}: it is in {origin}"
        )
    return names[word]


def accelerator(delegation: Delegation) -> str:
    """Returns the kind of processor that a provider runs on."""
    word = "cpu" if delegation.name == "default" else delegation.name
    chosen = dict(delegation.options).get("device_type", "")
    for short, (name, kind, _) in PROVIDERS.items():
        if word in (short, name):
            return chosen.lower() or kind
    return "plugin"


def open_engine(path: Path, options: Any, delegation: Delegation) -> tuple[Any, str]:
    """Returns ONNX Runtime's session of ``path``, and the name of the provider asked for.

    Args:
        path: the file.
        options: SessionOptions, changed here.
        delegation: the provider.

    Raises:
        InvalidArtifact: the file cannot be opened.
        InvalidRequest: options for a provider that has none, or no library is named.
        NotAvailable: the provider is not here, or does not take the whole file.
    """
    import onnxruntime

    wanted = dict(delegation.options)
    if delegation.name.startswith("plugin"):
        name = _add_plugin(options, delegation, wanted)
        providers: dict[str, Any] = {}
    else:
        name = provider_name(delegation)
        if name == CPU and wanted:
            raise InvalidRequest(f"ONNX Runtime's {CPU} takes no options, not {', '.join(wanted)}")
        if name == _OPENVINO:  # which does not look at the engine's own setting
            wanted.setdefault("num_of_threads", str(options.intra_op_num_threads))
        providers = {"providers": [name], "provider_options": [wanted]}
    strict = name != CPU and not delegation.allow_fallback
    if strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        engine = onnxruntime.InferenceSession(path, options, enable_fallback=0, **providers)
    except Exception as error:  # its exceptions have no common base class
        reason = str(error).strip().partition("\n")[0]
        if name == CPU:
            raise InvalidArtifact(f"ONNX Runtime cannot open {path}: {reason}") from error
        raise NotAvailable(f"{name} does not run {path}: {reason}") from error
    if name not in engine.get_providers():
        raise NotAvailable(f"{name} could not be started for {path}: `-v` shows what it said")
    return engine, name


def _add_plugin(options: Any, delegation: Delegation, wanted: dict[str, str]) -> str:
    """Registers a provider's library and asks for its devices; returns the provider's name."""
    import onnxruntime

    library = delegation.name.partition(":")[2]
    if not library:
        raise InvalidRequest(f"which library? Say plugin:/path/to/provider.so, not {library!r}")
    if not Path(library).is_file():
        raise NotAvailable(f"no such provider: {library}")
    before = {device.ep_name for device in onnxruntime.get_ep_devices()}
    try:
        onnxruntime.register_execution_provider_library(_PLUGIN, library)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise NotAvailable(f"{library} is no provider of ONNX Runtime: {reason}") from error
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name not in before]
    if not devices:
        raise NotAvailable(f"{library} finds no device on this machine")
    options.add_provider_for_devices(devices[:1], wanted)
    name: str = devices[0].ep_name
    return name


def check_taken(
    path: Path, name: str, delegation: Delegation, taken: int | None, total: int | None
) -> None:
    """Raises ``NotAvailable`` if the provider asked for would not really run the file."""
    if total is None and delegation.allow_fallback:
        raise NotAvailable(
            f"{name} does not tell which nodes of {path} it takes: without --allow-fallback the "
            "engine makes sure that it is all of them"
        )
    if name == CPU or taken == total:
        return
    if not taken:
        raise NotAvailable(f"{name} takes none of the {total} nodes of {path}")
    if not delegation.allow_fallback:
        raise NotAvailable(
            f"{name} takes {taken} of the {total} nodes of {path}: "
            "--allow-fallback measures it all the same, and says so"
        )
