"""What every bundle holds: the model, its description, and golden inputs with their logits."""

import platform
import unicodedata
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cct_export.bundles.folder import Files
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.evaluation import parity
from cct_export.evaluation.outputs import activation_of
from cct_export.evaluation.parity import Policy
from cct_export.records import InputContract, OutputContract
from cct_export.records.encoding import to_text
from cct_export.records.sidecar import Golden, Sidecar, examine
from cct_export.records.sidecar import path_of as sidecar_path
from cct_export.records.sidecar import read as read_sidecar
from cct_export.records.weights import path_of as weights_path
from cct_export.runtimes import engine_of, format_of
from cct_export.runtimes.session import Session, dequantize, prepare
from cct_export.specs import SUFFIXES

# Unicode categories of what a label of one line cannot hold: control characters, surrogates, and
# separators of lines and paragraphs.
_NOT_IN_A_LINE = ("Cc", "Cs", "Zl", "Zp")
_INT8_OFFSET = 128


@dataclass(frozen=True, kw_only=True)
class OutputDescription(OutputContract):
    """The output of a bundled model.

    Attributes:
        scale: an integer q stands for ``scale · (q − zero_point)``; None for floats.
        zero_point: see ``scale``.
    """

    scale: float | None
    zero_point: int | None


@dataclass(frozen=True, kw_only=True)
class GoldenDescription(Policy):
    """The golden inputs of a bundle, and the policy that their logits have to meet.

    Attributes:
        images: number of golden inputs.
        origin: where they are from.
        computed_by: name and version of the engine that computed the outputs in the bundle.
        computed_on: architecture of the machine that it ran on.
    """

    images: int
    origin: str
    computed_by: str
    computed_on: str


@dataclass(frozen=True)
class ModelDescription:
    """What a program needs to know to run and verify the model: the content of ``model.json``.

    Attributes:
        model: name of the model's file in the bundle.
        weights: name of the file with its weights; None if they are in the model's file.
        format: ``tflite``, ``onnx`` or ``ncnn``.
        scheme: quantization scheme.
        source: what the file was exported from, as the user wrote it.
        source_sha256: checksum of the file with the weights that it was exported from.
        sha256: checksum of the model's file.
        input: contract of the input.
        versions: of the libraries that exported it.
        output: the output tensor.
        labels: class names in the order of the logits; their indices where they are not known.
        golden: the golden inputs, and the bounds on their logits.
    """

    model: str
    weights: str | None
    format: str
    scheme: str
    source: str
    source_sha256: str
    sha256: str
    input: InputContract
    versions: dict[str, str]
    output: OutputDescription
    labels: tuple[str, ...]
    golden: GoldenDescription


@dataclass(frozen=True)
class Contents:
    """What every target makes its files from.

    Attributes:
        name: of the bundle.
        path: of the ``.tflite``, ``.onnx`` or ``.ncnn.param`` file.
        model: its content.
        weights: content of the file with its weights; empty if they are in the model's file.
        description: content of ``model.json``.
        golden: golden inputs with the logits of Keras.
        inputs: the same images in the type and layout of the model's input.
        outputs: the model's outputs on this machine in their own type, ``(N, classes)``.
    """

    name: str
    path: Path
    model: bytes
    weights: bytes
    description: ModelDescription
    golden: Golden
    inputs: np.ndarray
    outputs: np.ndarray

    @property
    def summary(self) -> str:
        """The model's input and output, in a sentence for a README."""
        model = self.description
        height, width, channels = self.golden.images.shape[1:]
        held = f"the {model.output.contents} of {model.output.classes} classes"
        if model.output.classes == 1:
            held = "one value, which tells two classes apart,"
        return (
            f"`{model.model}` ({len(self.model) + len(self.weights):,} bytes"
            f"{f' with `{model.weights}`' if model.weights else ''}, quantization scheme "
            f"`{model.scheme}`) takes {'RGB' if channels == 3 else 'grey'} images of "
            f"{height} × {width} pixels as {self.inputs.dtype} and returns {held} as "
            f"{self.outputs.dtype}."
        )

    @property
    def takes_pixels(self) -> bool:
        """Whether the model's input is the pixels, 0 to 255, or for int8 the pixels minus 128."""
        offset = _INT8_OFFSET if self.inputs.dtype == np.int8 else 0
        return np.array_equal(self.inputs, self.golden.images.astype(np.int16) - offset)

    def common_files(self) -> Files:
        """Returns the files that every bundle has: the model, ``labels.txt``, ``model.json``."""
        weights = self.description.weights
        return {
            self.description.model: self.model,
            **({weights: self.weights} if weights else {}),
            "labels.txt": "".join(f"{label}\n" for label in self.description.labels).encode(),
            "model.json": to_text(self.description).encode(),
        }


def gather(artifact: Path, name: str) -> Contents:
    """Returns the contents of a bundle, after verifying the golden inputs on this machine.

    Args:
        artifact: a ``.tflite``, ``.onnx`` or ``.ncnn.param`` file with its sidecar.
        name: of the bundle.

    Raises:
        InvalidRequest: the file is of another kind, without its weights, or gives an image more
            than one class.
        InvalidArtifact: it cannot be run, has changed since it was exported, has no usable sidecar,
            or its logits miss the bounds.
        MissingDependency: its engine is not installed.
    """
    format = format_of(artifact)
    with closing(engine_of(format).open_session(artifact)) as session:
        _check_single(session.outputs, artifact)
        examine(artifact, session.contract).require()
        sidecar = read_sidecar(artifact, session.contract)
        if sidecar is None:
            raise InvalidArtifact(
                f"{artifact} has no {sidecar_path(artifact).name} that belongs to it, and so no "
                "golden inputs to verify a device with: export it again, and keep both files"
            )
        inputs, outputs = _run_golden(session, sidecar.golden, artifact)
        if problem := _sidecar_problem(sidecar, format, inputs, outputs):
            raise InvalidArtifact(f"{sidecar_path(artifact)} {problem}: export the model again")
        _verify(sidecar, dequantize(session, outputs), session.outputs, artifact)
        description = _describe(sidecar, outputs, session)
    beside = weights_path(artifact)
    return Contents(
        name=name,
        path=artifact,
        model=artifact.read_bytes(),
        weights=beside.read_bytes() if beside else b"",
        description=description,
        golden=sidecar.golden,
        inputs=inputs,
        outputs=outputs,
    )


def _check_single(outputs: Sequence[OutputContract], artifact: Path) -> None:
    if len(outputs) > 1 or outputs[0].has_slots:
        shapes = ", ".join(f"{output.name} {list(output.sizes)}" for output in outputs)
        raise InvalidRequest(
            f"the programs of bundles show the classes of one output without slots, and {artifact} "
            f"gives {shapes}: run it with cct-export predict, or with its engine"
        )


def _run_golden(session: Session, golden: Golden, artifact: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the golden inputs as the model takes them, and the model's outputs."""
    shape = golden.images.shape[1:]
    if shape != session.image_shape:
        raise InvalidArtifact(
            f"{artifact} takes images of shape {session.image_shape}, and its sidecar holds golden "
            f"inputs of shape {shape}: export the model again"
        )
    inputs = prepare(session, golden.images)
    return inputs, np.concatenate([session.invoke(image[np.newaxis]).copy() for image in inputs])


def _sidecar_problem(sidecar: Sidecar, format: str, inputs: np.ndarray, outputs: np.ndarray) -> str:
    """Returns why no program could use what the sidecar says; empty if one can."""
    contract, classes = sidecar.contract, outputs.shape[1]
    labels = contract.labels
    golden_classes = sidecar.golden.logits.shape[1]
    if contract.format != format:
        return f"is of the format {contract.format!r}"
    if golden_classes != classes or len(labels) not in (0, max(classes, 2)):
        return (
            f"has {golden_classes} golden logits and {len(labels)} labels, and the model {classes} "
            "logits"
        )
    for label in labels:
        if any(unicodedata.category(letter) in _NOT_IN_A_LINE for letter in label):
            return f"has the label {label!r}, which is not text of one line"
    image, shape, dtype = contract.input, inputs.shape[1:], str(inputs.dtype)
    if image is None or image.shape[1:] != shape or image.dtype != dtype:
        return f"does not say that an image is {list(shape)} as {dtype}"
    if not image.preprocessing or contract.output is None:
        return "does not describe the preprocessing and the output"
    return ""


def _verify(
    sidecar: Sidecar, logits: np.ndarray, outputs: Sequence[OutputContract], artifact: Path
) -> None:
    """Raises ``InvalidArtifact`` unless the logits of the golden inputs meet the bounds."""
    scheme = sidecar.contract.scheme
    report = parity.compare(
        sidecar.golden.logits,
        candidate=logits,
        scheme=scheme,
        names=(sidecar.contract.source, str(artifact)),
        images=f"golden images in the sidecar ({sidecar.golden.origin})",
        outputs=outputs,
        policy=parity.policy_of(scheme, golden=True),
    )
    if not report.passed:
        raise InvalidArtifact(
            f"{artifact} does not give the logits in its sidecar: {'; '.join(report.failures)}"
        )


def _describe(sidecar: Sidecar, outputs: np.ndarray, session: Session) -> ModelDescription:
    """Returns the description of a model whose sidecar ``_sidecar_problem`` accepts."""
    contract, (output,) = sidecar.contract, session.outputs
    assert contract.input is not None
    (scale, zero_point) = (*session.output_quantizations, None)[0] or (None, None)
    policy = parity.policy_of(contract.scheme, golden=True)
    model = f"model{SUFFIXES[contract.format]}"
    beside = weights_path(Path(model))
    return ModelDescription(
        model=model,
        weights=beside.name if beside else None,
        format=contract.format,
        scheme=contract.scheme,
        source=contract.source,
        source_sha256=contract.source_sha256,
        sha256=sidecar.artifact.sha256,
        input=contract.input,
        versions=contract.versions,
        output=OutputDescription(
            name=output.name,
            dtype=str(outputs.dtype),
            classes=outputs.shape[1],
            shape=outputs.shape[1:],
            activation=activation_of(sidecar.golden.logits, output),
            scale=scale,
            zero_point=zero_point,
        ),
        labels=output.class_names(contract.labels),
        golden=GoldenDescription(
            **asdict(policy),
            images=len(outputs),
            origin=sidecar.golden.origin,
            computed_by=" ".join(session.engine),
            computed_on=platform.machine(),
        ),
    )
