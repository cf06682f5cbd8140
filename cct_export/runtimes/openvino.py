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
# OpenVINO's names. Without one it computes float32 in bfloat16 where the processor has that.
PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
# What begins lines of OpenVINO's messages that tell about its own source code.
_INTERNAL = ("Exception from", "Check '", "FrontEnd API", "While validating", "Model wasn't")
_PRECISION, _PROPERTIES = "INFERENCE_PRECISION_HINT", "SUPPORTED_PROPERTIES"
_NO_RULE = "No conversion rule found for operations: "


class OpenVINOSession(Session):
    """A ``.tflite`` or ``.onnx`` file in OpenVINO. See ``Session``."""

    def __init__(self, path: Path, *, threads: int, delegation: Delegation) -> None:
        """Opens ``path``; see ``Engine.open_session``."""
        import openvino

        format = path.suffix.removeprefix(".")
        self.contract = litert_file.contract_of(path) if format == "tflite" else Contract()
        device = "CPU" if delegation.name == "default" else delegation.name.upper()
        core = openvino.Core()
        if device not in {name.partition(".")[0] for name in core.available_devices}:
            raise NotAvailable(
                f"OpenVINO finds no {device} here, only {', '.join(core.available_devices)}"
            )
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise InvalidArtifact(f"OpenVINO cannot read {path}: {_reason(error)}") from error
        if format == "onnx":
            with refusing(InvalidArtifact, f"{path}: not a readable ONNX file"):
                self.contract = _contract(model)
        self.engine = ("openvino", openvino.__version__.partition("-")[0])
        self.delegate = self.accelerator = device.lower()
        self._describe(model, path, format)
        self._request = _compile(core, model, device, threads, delegation, path)
        self._outputs = range(len(self.outputs))

    def _describe(self, model: Any, path: Path, format: str) -> None:
        """Sets what the graph and the contract tell about the input and the outputs."""
        inputs, outputs = model.inputs, model.outputs
        shapes = [_shape(port) for port in (*inputs, *outputs)]
        ranks = [len(shape) for shape in shapes[len(inputs) :]]
        if len(inputs) != 1 or not classifies(len(shapes[0]), ranks):
            raise InvalidArtifact(
                f"{path} does not map one image to logits: its inputs and outputs are {shapes}"
            )
        image, *rest = shapes
        self.io = _dtype(inputs[0])
        others = {self.io} - {*_IMAGE_TYPES} | {_dtype(port) for port in outputs} - {"float32"}
        if others:
            raise InvalidArtifact(
                f"OpenVINO does not tell the scale of {', '.join(sorted(others))} in {path}: "
                "export it with --io float32 or uint8"
            )
        if not all(image[1:]):
            raise InvalidArtifact(f"{path} takes images of any size: export it with a fixed one")
        self.layout = layout_of(image)
        self.image_shape: ImageShape = image_shape_of(image, self.layout)
        self.batch = image[0] or None
        names = [port.any_name for port in outputs]
        found = [output_of(name, "float32", shape) for name, shape in zip(names, rest, strict=True)]
        self.outputs = checked_outputs(self, path=path, format=format, outputs=found)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._request.infer([prepared], share_inputs=True)
        outputs = [self._request.get_output_tensor(index).data for index in self._outputs]
        return side_by_side(outputs).copy()

    def close(self) -> None:
        """Frees the compiled model."""
        del self._request


def _contract(model: Any) -> Contract:
    """Returns the contract in an ONNX file's metadata, where OpenVINO keeps it."""
    key = ["framework", CONTRACT_KEY]
    return Contract.parse(model.get_rt_info(key).value if model.has_rt_info(key) else "{}")


def _shape(port: Any) -> tuple[int, ...]:
    """Returns the shape of an input or output, with 0 for axes of any size."""
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return ()
    return tuple(axis.get_length() if axis.is_static else 0 for axis in shape)


def _dtype(port: Any) -> str:
    return str(np.dtype(port.element_type.to_dtype()).name)


def _compile(
    core: Any, model: Any, device: str, threads: int, delegation: Delegation, path: Path
) -> Any:
    """Returns a request of the compiled model: one stream, as many threads as asked for."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    if device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    settings |= _settings(dict(delegation.options), core.get_property(device, _PROPERTIES), device)
    try:
        return core.compile_model(model, device, settings).create_infer_request()
    except RuntimeError as error:
        raise NotAvailable(f"OpenVINO does not run {path}: {_reason(error)}") from error


def _settings(
    options: dict[str, str], properties: Mapping[str, str], device: str
) -> dict[str, str]:
    """Returns OpenVINO's properties of a delegate's options: ``precision``, or any by its name.

    Raises:
        InvalidRequest: the device has no such property, or there is no such precision.
    """
    precision = choose(options.pop("precision", "fp32"), PRECISIONS, what="precision of OpenVINO")
    settable = sorted(name for name, mode in properties.items() if mode == "RW")
    for name in options:
        if name not in settable:
            raise InvalidRequest(
                f"OpenVINO's {device} has no property {name!r} to set: choose from precision, "
                f"{', '.join(settable)}"
            )
    return {_PRECISION: PRECISIONS[precision], **options}


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
