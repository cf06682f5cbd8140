"""OpenVINO, which reads .tflite and .onnx files: processors of any maker, Intel's GPUs and NPUs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency, NotAvailable
from cct_export.files import check_file
from cct_export.names import choose
from cct_export.records import CONTRACT_KEY, Contract
from cct_export.records.layout import image_shape_of, layout_of
from cct_export.records.output import output_of
from cct_export.runtimes import litert_file
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
from cct_export.text import one_line
from cct_export.untrusted import refusing

DELEGATES = {
    "default": "the CPU",
    "cpu": "x86 and Arm processors",
    "gpu": "Intel's GPUs",
    "npu": "Intel's NPUs",
}
_IMAGE_TYPES = ("float32", "uint8")
_FLOATS = ("float16", "float32", "float64")
_ANY = -1  # the size of an axis that may have any
# OpenVINO's names. Without one it computes float32 in bfloat16 where the processor has that.
PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
# What begins lines about its own source code in messages of OpenVINO 2026.4.
_INTERNAL = ("Exception from", "Check '", "FrontEnd API", "While validating", "Model wasn't")
_PRECISION = "INFERENCE_PRECISION_HINT"
_NO_RULE = "No conversion rule found for operations: "


class OpenVINOSession(Session):
    """A ``.tflite`` or ``.onnx`` file in OpenVINO. See ``Session``."""

    def __init__(self, path: Path, *, threads: int, delegation: Delegation) -> None:
        """Opens ``path``; see ``Engine.open_session``."""
        import openvino

        device = "CPU" if delegation.name == "default" else delegation.name.upper()
        core = openvino.Core()
        if device not in {name.partition(".")[0] for name in core.available_devices}:
            raise NotAvailable(
                f"OpenVINO finds no {device} here, only {', '.join(core.available_devices)}"
            )
        format = path.suffix.removeprefix(".")
        model = _read(path, format)
        if format == "onnx":
            with refusing(InvalidArtifact, f"{path}: not a readable ONNX file"):
                self.contract = _onnx_contract(model)
        else:
            self.contract = litert_file.contract_of(path)
        self.engine = ("openvino", openvino.__version__.partition("-")[0])
        self.delegate = self.accelerator = device.lower()
        self._describe(model, path, format)
        self._request = _compile(core, model, device, threads, delegation, path)

    def _describe(self, model: Any, path: Path, format: str) -> None:
        """Sets what the graph and the contract tell about the input and the outputs."""
        image, *outputs = shapes = [_shape(port) for port in (*model.inputs, *model.outputs)]
        if len(model.inputs) != 1 or not classifies(len(image), list(map(len, outputs))):
            raise InvalidArtifact(
                f"{path} does not map one image to logits: its inputs and outputs are {shapes}"
            )
        self.io = _dtype(model.inputs[0])
        if self.io not in _IMAGE_TYPES:
            raise InvalidArtifact(
                f"{path} takes {self.io}, and OpenVINO tells no scale of it: export it with --io "
                f"{' or '.join(_IMAGE_TYPES)}"
            )
        integers = {_dtype(port) for port in model.outputs} - set(_FLOATS)
        if integers:
            raise InvalidArtifact(
                f"{path} gives {', '.join(integers)}, and OpenVINO tells no scale of them: export "
                "it with outputs of floats"
            )
        if _ANY in image[1:]:
            raise InvalidArtifact(
                f"{path} takes images of any size, {image}: export it with a fixed one"
            )
        self.layout = layout_of(image)
        self.image_shape: ImageShape = image_shape_of(image, self.layout)
        self.batch = None if image[0] == _ANY else image[0]
        found = [
            output_of(port.any_name, _dtype(port), [None if size == _ANY else size for size in of])
            for port, of in zip(model.outputs, outputs, strict=True)
        ]
        self.outputs = checked_outputs(self, path=path, format=format, outputs=found)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._request.infer([prepared], share_inputs=True)
        outputs = [tensor.data for tensor in self._request.output_tensors]
        return side_by_side(outputs).copy()

    def close(self) -> None:
        """Frees the compiled model."""
        del self._request


def _read(path: Path, format: str) -> Any:
    """Returns the model in a file of ``format``; by itself OpenVINO goes by the content."""
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework(format)
    try:
        return frontend.convert(frontend.load(path))
    except Exception as error:  # its exceptions have no common base class
        raise InvalidArtifact(f"OpenVINO cannot read {path}: {_reason(error)}") from error


def _onnx_contract(model: Any) -> Contract:
    """Returns the contract in an ONNX file's metadata, where OpenVINO keeps it."""
    key = ["framework", CONTRACT_KEY]
    return Contract.parse(model.get_rt_info(key).value if model.has_rt_info(key) else "{}")


def _shape(port: Any) -> tuple[int, ...]:
    """Returns the shape of an input or output, with ``_ANY`` for axes of any size."""
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return ()
    return tuple(axis.get_length() if axis.is_static else _ANY for axis in shape)


def _dtype(port: Any) -> str:
    return str(np.dtype(port.element_type.to_dtype()).name)


def _compile(
    core: Any, model: Any, device: str, threads: int, delegation: Delegation, path: Path
) -> Any:
    """Returns a request of the compiled model: one stream, as many threads as asked for."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    if device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    options = dict(delegation.options)
    name = options.pop("precision", "fp32")
    settings[_PRECISION] = PRECISIONS[choose(name, PRECISIONS, what="precision of OpenVINO")]
    _set(core, device, options, taken=settings)
    try:
        return core.compile_model(model, device, settings).create_infer_request()
    except RuntimeError as error:
        raise NotAvailable(f"OpenVINO does not run {path}: {_reason(error)}") from error


def _set(core: Any, device: str, options: Mapping[str, str], taken: Mapping[str, str]) -> None:
    """Sets properties of a device.

    Args:
        core: of OpenVINO.
        device: ``CPU``, ``GPU`` or ``NPU``.
        options: properties by name.
        taken: properties that options of the commands set.

    Raises:
        InvalidRequest: the device has no such property, or does not take the value.
    """
    properties = core.get_property(device, "SUPPORTED_PROPERTIES")
    settable = sorted(
        name for name, mode in properties.items() if mode == "RW" and name not in taken
    )
    for name, value in options.items():
        if name not in settable:
            raise InvalidRequest(
                f"OpenVINO's {device} has no option {name!r}: choose from precision, "
                f"{', '.join(settable)}"
            )
        try:
            core.set_property(device, {name: value})
        except RuntimeError as error:
            raise InvalidRequest(
                f"OpenVINO's {device} does not take {name}={value}: {_reason(error)}"
            ) from error


def _reason(error: Exception) -> str:
    """Returns what OpenVINO says of an error, without the lines about its own source code."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    for line in lines:
        if line.startswith(_NO_RULE):
            operators = line.removeprefix(_NO_RULE)
            hint = (
                ": cct-export onnx --pure-onnx leaves them out" if "com.microsoft" in line else ""
            )
            return f"it has no {operators}{hint}"
    reasons = [line for line in lines if line and not line.startswith(_INTERNAL)]
    return one_line("; ".join(reasons)) or "it gives no reason"


def choose_delegate(name: str) -> str:
    """Returns a delegate as this module names it; see ``Engine.choose_delegate``."""
    return chosen_delegate(name, DELEGATES, engine="OpenVINO")


def import_engine() -> None:
    """Imports OpenVINO; raises ``MissingDependency``."""
    try:
        import ai_edge_litert  # noqa: F401 - reads what TFLite files say of themselves
        import openvino  # noqa: F401
    except ImportError:
        raise MissingDependency.of("openvino", "openvino") from None


def open_session(
    path: Path,
    *,
    threads: int = 1,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    options: ModelOptions = NO_OPTIONS,
) -> Session:
    """Opens a ``.tflite`` or ``.onnx`` file; see ``Engine.open_session``."""
    check_file(path)
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    if not trusted:
        return IsolatedSession(Opening("openvino", str(path), threads, delegation))
    import_engine()
    return OpenVINOSession(path, threads=threads, delegation=delegation)
