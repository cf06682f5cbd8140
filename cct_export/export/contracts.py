"""What a file says of itself: its contract, and the metadata that hold it."""

import json
from dataclasses import replace

from cct_export import machine
from cct_export.export.workspace import Workspace
from cct_export.formats import tflite_metadata
from cct_export.quantize.schemes import scheme_of
from cct_export.records import (
    CONTRACT_KEY,
    Contract,
    InputContract,
    QuantizationSummary,
    checksum,
)
from cct_export.runtimes import engine_name
from cct_export.specs import ExportSpec

_LIBRARIES = (
    "keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer", "onnx", "onnxruntime", "tf2onnx",
    "numpy",
)  # fmt: skip
# Engines whose versions are of no use to the files of others.
_OWN_FILES = ("ncnn", "openvino")


def contract_of(
    workspace: Workspace, spec: ExportSpec, origin: str, quantization: QuantizationSummary | None
) -> Contract:
    """Returns the contract of a file that is not sealed yet.

    Args:
        workspace: the model.
        spec: what file it is.
        origin: which images calibrated it; empty if none.
        quantization: how; None where nothing is quantized.
    """
    loaded, normalization = workspace.loaded, workspace.loaded.options.normalization
    if normalization is not None and normalization.is_identity:
        normalization = None
    batch = None if spec.dynamic_batch else 1
    dtype = spec.io if scheme_of(spec.scheme, spec.format).integer_ends else "float32"
    softmax = loaded.options.softmax
    outputs = tuple(replace(each, dtype=dtype, softmax=softmax) for each in loaded.outputs)
    return Contract(
        format=spec.format,
        scheme=spec.scheme,
        io=spec.io,
        source=loaded.source,
        source_sha256=loaded.sha256,
        content_sha256=checksum.UNSEALED,
        image_shape=loaded.image_shape,
        target=spec.target,
        batch=batch,
        labels=workspace.labels,
        calibration=origin,
        versions=machine.versions(*_LIBRARIES, *{engine_name(spec)}.intersection(_OWN_FILES)),
        quantization=quantization,
        input=InputContract.of(
            spec.io,
            batch,
            loaded.image_shape,
            loaded.resize,
            normalization=normalization,
            layout=spec.layout.upper(),
        ),
        output=outputs[0],
        outputs=outputs if len(outputs) > 1 else (),
    )


def metadata_of(contract: Contract) -> dict[str, str | bytes]:
    """Returns what a file stores beside its graph: names and contents."""
    entries: dict[str, str | bytes] = {CONTRACT_KEY: json.dumps(contract.to_dict())}
    if contract.format == "tflite":
        entries[tflite_metadata.METADATA_KEY] = tflite_metadata.metadata(contract)
    return entries
