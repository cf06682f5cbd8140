"""What goes into every bundle: the model, its contract, and what it has to answer."""

import io
import json
import platform
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact
from cct_export.evaluation import parity
from cct_export.records import Artifact, sidecar
from cct_export.records.sidecar import Golden, Sidecar
from cct_export.runtimes import engine_of, format_of
from cct_export.runtimes.session import Session, dequantize, prepare

Files = dict[str, bytes]

# Categories of Unicode: control, half of a pair, and what ends lines and paragraphs.
_NOT_IN_A_LINE = ("Cc", "Cs", "Zl", "Zp")

# The engine's distribution, and the extra of this package that brings it.
ENGINES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}


@dataclass(frozen=True)
class Contents:
    """What every target makes its files of.

    Attributes:
        name: of the bundle, a plain word.
        model: content of the ``.tflite`` or ``.onnx`` file.
        artifact: contract, size and checksum of the file.
        golden: images with the logits that Keras gives them.
        inputs: the same images as the engine takes them, ``(N, H, W, C)`` in the file's type.
        outputs: what the engine answered on this machine, ``(N, classes)`` in the file's type.
        output_quantization: scale and zero point of ``outputs``, None for floats.
        engine: name and version of the engine that answered.
    """

    name: str
    model: bytes
    artifact: Artifact
    golden: Golden
    inputs: np.ndarray
    outputs: np.ndarray
    output_quantization: tuple[float, int] | None
    engine: tuple[str, str]

    @property
    def format(self) -> str:
        """``tflite`` or ``onnx``."""
        return self.artifact.format

    @property
    def model_file(self) -> str:
        """Name of the model in the bundle."""
        return f"model.{self.format}"

    @property
    def labels(self) -> list[str]:
        """Names of the classes; their numbers where they are not known."""
        names = self.artifact.contract.labels
        return list(names) or [str(index) for index in range(self.golden.logits.shape[1])]

    def model_json(self) -> dict[str, Any]:
        """Returns what a program needs to know to use the model, as plain JSON types.

        ``input`` and ``output`` are the contract, ``golden`` says how close the answers have to
        be: to those of Keras by the scheme's policy, and where they were computed that lie beside.
        """
        fields = self.artifact.to_dict()
        policy = parity.policy_of(self.artifact.scheme, golden=True)
        names = ("scheme", "source", "source_sha256", "sha256", "input", "versions")
        quantized = self.output_quantization
        return {
            "model": self.model_file,
            "format": self.format,
            **{name: fields[name] for name in names},
            "output": fields["output"]
            | {
                "dtype": str(self.outputs.dtype),
                "scale": quantized[0] if quantized else None,
                "zero_point": quantized[1] if quantized else None,
            },
            "labels": self.labels,
            "golden": {
                "images": len(self.inputs),
                "origin": self.golden.origin,
                "sqnr_db": policy.sqnr_db,
                "agreement": policy.agreement,
                "flips": policy.flips,
                "max_abs": policy.max_abs,
                "computed_by": " ".join(self.engine),
                "computed_on": platform.machine(),
            },
        }

    def golden_npz(self) -> bytes:
        """Returns an ``.npz`` with ``images``, ``inputs``, ``outputs`` and Keras' ``logits``."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            images=self.golden.images,
            inputs=self.inputs,
            outputs=self.outputs,
            logits=self.golden.logits,
        )
        return stream.getvalue()

    def common(self) -> Files:
        """Returns the model, ``labels.txt`` and ``model.json``."""
        return {
            self.model_file: self.model,
            "labels.txt": "".join(f"{label}\n" for label in self.labels).encode(),
            "model.json": (json.dumps(self.model_json(), indent=1) + "\n").encode(),
        }


def gather(artifact: Path, name: str) -> Contents:
    """Returns the contents of a bundle, after running the golden images here.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file with its sidecar.
        name: of the bundle.

    Raises:
        InvalidRequest: the file is of another kind.
        InvalidArtifact: it cannot be run, has no sidecar, or does not give the logits in there.
        MissingDependency: its engine is not installed.
    """
    format = format_of(artifact)
    session: Session = engine_of(format).open_session(artifact)
    beside = sidecar.read(artifact)
    if beside is None:
        raise InvalidArtifact(
            f"{artifact} has no {sidecar.path_of(artifact).name} that belongs to it, and so no "
            "golden images to prove a device with: export it again, and keep both files"
        )
    shape = beside.golden.images.shape[1:]
    if shape != session.image_shape:
        raise InvalidArtifact(f"{artifact} takes images {session.image_shape}, its sidecar {shape}")
    inputs = prepare(session, beside.golden.images)
    outputs = np.concatenate([session.invoke(one[np.newaxis]).copy() for one in inputs])
    if wrong := _wrong(beside, format, inputs, outputs):
        raise InvalidArtifact(f"{sidecar.path_of(artifact)} {wrong}: export the model again")
    report = parity.compare(
        beside.golden.logits,
        candidate=dequantize(outputs, session.output_quantization),
        scheme=beside.contract.scheme,
        names=(beside.contract.source, str(artifact)),
        images=f"golden images in the sidecar ({beside.golden.origin})",
        policy=parity.policy_of(beside.contract.scheme, golden=True),
    )
    if not report.passed:
        raise InvalidArtifact(
            f"{artifact} does not give the logits in its sidecar: {'; '.join(report.failures)}"
        )
    quantized = session.output_quantization
    return Contents(
        name=name,
        model=artifact.read_bytes(),
        artifact=beside.artifact,
        golden=beside.golden,
        inputs=inputs,
        outputs=outputs,
        output_quantization=None if quantized is None else (quantized.scale, quantized.zero_point),
        engine=session.engine,
    )


def _wrong(beside: Sidecar, format: str, inputs: np.ndarray, outputs: np.ndarray) -> str:
    """Returns what a sidecar says that is not so, or that no program in a bundle could use."""
    contract, count = beside.contract, outputs.shape[1]
    labels = contract.labels or ("",) * count
    if contract.format != format:
        return f"is of the format {contract.format!r}"
    if (wanted := beside.golden.logits.shape[1]) != count or len(labels) != count:
        return f"has {wanted} golden logits and {len(labels)} labels, and the model {count} logits"
    for label in labels:
        if any(unicodedata.category(letter) in _NOT_IN_A_LINE for letter in label):
            return f"has the label {label!r}, which is no text of one line"
    image, shape, dtype = contract.input, inputs.shape[1:], str(inputs.dtype)
    if image is None or image.shape[1:] != shape or image.dtype != dtype:
        return f"does not say that an image is {list(shape)} as {dtype}"
    if not image.preprocessing or contract.output is None:
        return "does not say what goes into the model and comes out"
    return ""
