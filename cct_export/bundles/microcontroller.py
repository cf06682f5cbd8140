"""C++ for microcontrollers on TensorFlow Lite Micro: the model as an array, and a self-test."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from cct_export.bundles import c_source
from cct_export.bundles.contents import Contents
from cct_export.bundles.folder import Files, render
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.evaluation import parity
from cct_export.formats.tflite_micro import operator_uses
from cct_export.operator_lists import OPERATOR_LISTS
from cct_export.runtimes import tflm
from cct_export.runtimes.session import Quantization
from cct_export.specs import SUFFIXES

# Of the memory that was measured: kernels for a chip may want buffers that the reference ones lack.
_ARENA_MARGIN = 0.05
_KIB = 1024
# Methods of its resolver that are not named by the rule of ``resolver_method``.
_OTHER_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}


@dataclass(frozen=True)
class _Run:
    """What TensorFlow Lite Micro computed on this machine: int8 ``(N, classes)``."""

    version: str
    arena_bytes: int
    outputs: np.ndarray


def files(contents: Contents) -> Files:
    """Returns the files of the bundle by path.

    Raises:
        InvalidRequest: the model is not a ``.tflite`` file of integers only, or has operators that
            TensorFlow Lite Micro has not.
        InvalidArtifact: its input is not ``pixel - 128``, TensorFlow Lite Micro cannot run it, or
            it misses the bounds there.
        MissingDependency: tflite-micro is not installed.
    """
    _check_types(contents)
    uses = list(operator_uses(contents.model))
    if missing := OPERATOR_LISTS["tflm"].missing(uses):
        raise InvalidRequest(
            f"TensorFlow Lite Micro has no {', '.join(missing)}: export the model with cct-export "
            "tflite --quantize int8-full --target tflm"
        )
    run = _run(contents)
    scale, zero_point = _quantization(contents)
    _verify(contents, np.float32(scale) * (run.outputs.astype(np.float32) - zero_point))
    name = c_source.identifier(contents.name)
    labels = contents.description.labels
    height, width, channels = contents.golden.images.shape[1:]
    output = contents.description.output
    return {
        **contents.common_files(),
        **render(
            "microcontroller",
            name=name,
            summary=contents.summary,
            height=height,
            width=width,
            channels=channels,
            classes=output.classes,
            labels=labels,
            scale=c_source.floating(scale),
            zero_point=zero_point,
            operators=[resolver_method(kind) for kind in sorted({use.kind for use in uses})],
            model_bytes=len(contents.model),
            model_values=c_source.values(np.frombuffer(contents.model, np.uint8)),
            measured_bytes=run.arena_bytes,
            arena_bytes=arena_size(run.arena_bytes),
            tflm_version=run.version,
            **_golden(contents, run),
        ),
    }


def resolver_method(kind: str) -> str:
    """Returns the method of ``MicroMutableOpResolver`` that adds an operator.

    Args:
        kind: an operator that TensorFlow Lite Micro has.

    Example:
        >>> resolver_method("MAX_POOL_2D")
        'AddMaxPool2D'
    """
    words = (word.upper() if word[0].isdigit() else word.capitalize() for word in kind.split("_"))
    return _OTHER_METHODS.get(kind, f"Add{''.join(words)}")


def arena_size(measured: int) -> int:
    """Returns the bytes of the arena for a model that used ``measured`` bytes: whole KiB."""
    return int(np.ceil(measured * (1 + _ARENA_MARGIN) / _KIB)) * _KIB


def _run(contents: Contents) -> _Run:
    """Runs the golden images; raises as ``Engine.open_session``."""
    tflm.import_engine()
    with closing(tflm.open_session(contents.path)) as session:
        outputs = [session.invoke(image[np.newaxis]).copy() for image in contents.inputs]
        assert session.arena_bytes is not None  # this engine tells it
        return _Run(session.engine[1], session.arena_bytes, np.concatenate(outputs))


def _check_types(contents: Contents) -> None:
    model = contents.description
    if model.format != "tflite":
        raise InvalidRequest(
            f"microcontroller takes .tflite files, not {SUFFIXES[model.format]}: export the model "
            "with cct-export tflite --quantize int8-full --io int8 --target tflm"
        )
    types = {str(contents.inputs.dtype), str(contents.outputs.dtype)}
    if model.scheme != "int8-full" or types != {"int8"}:
        raise InvalidRequest(
            f"microcontroller takes files of int8-full with int8 images and logits, and this one "
            f"is {model.scheme} with {contents.inputs.dtype} images and {contents.outputs.dtype} "
            "logits: export the model with cct-export tflite --quantize int8-full --io int8 "
            "--target tflm"
        )
    if not contents.takes_pixels or model.output.scale is None:
        raise InvalidArtifact(
            "the model's input is not quantized as pixel - 128, the only way that the C++ "
            "supports, or its output has no scale: export it again"
        )


def _quantization(contents: Contents) -> Quantization:
    """Returns what an integer of the output stands for; every file of int8 says it."""
    output = contents.description.output
    assert output.scale is not None
    assert output.zero_point is not None
    return Quantization(output.scale, output.zero_point)


def _verify(contents: Contents, values: np.ndarray) -> None:
    """Raises ``InvalidArtifact`` unless the values of TensorFlow Lite Micro meet the bounds."""
    model = contents.description
    report = parity.compare(
        contents.golden.logits,
        candidate=values,
        scheme=model.scheme,
        names=(model.source, model.model),
        images="golden images",
        outputs=[model.output],
        policy=model.golden,
    )
    if not report.passed:
        raise InvalidArtifact(
            "the model does not give the logits in its sidecar on TensorFlow Lite Micro: "
            f"{'; '.join(report.failures)}"
        )


def _golden(contents: Contents, run: _Run) -> dict[str, Any]:
    """Returns the variables of the templates about golden images."""
    output, bounds = contents.description.output, contents.description.golden
    decided = parity.decided_by(contents.golden.logits, output, bounds)
    return {
        "golden": bounds,
        "binary": output.is_binary,
        "threshold": "0.0f" if output.activation == "none" else "0.5f",
        # The same as in parity.compare: a share of decisions, and a number whatever the share is.
        "most_flips": max(bounds.flips, int((1 - bounds.agreement) * decided.sum())),
        "lowest_sqnr": round(10 * bounds.sqnr_db),
        "golden_bytes": contents.inputs.nbytes,
        "largest_step": int(np.abs(run.outputs - contents.outputs.astype(np.int16)).max()),
        "image_rows": c_source.values(contents.inputs.reshape(bounds.images, -1)),
        "integer_rows": c_source.values(run.outputs),
        "logit_rows": c_source.values(contents.golden.logits),
        "decided_rows": c_source.values(decided),
    }
