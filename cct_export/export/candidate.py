"""A file that is finished and verified, but not yet in its place."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cct_export import memory
from cct_export.bounds import falls_short
from cct_export.errors import ConversionError, InvalidRequest
from cct_export.evaluation import parity
from cct_export.export import running, traced_tuning, tuning
from cct_export.export.contracts import contract_of, metadata_of
from cct_export.export.draft import Draft
from cct_export.export.traced_draft import TracedDraft
from cct_export.export.tuning import quantize_within, raise_bits
from cct_export.export.workspace import Workspace
from cct_export.formats import FORMATS, onnx, tflite_metadata, tflite_micro, weights_of
from cct_export.graph.quantized import QuantizedPlan
from cct_export.importers.source import LoadedModel
from cct_export.quantize.ptq import four_bit_steps
from cct_export.quantize.schemes import choose_io, scheme_of
from cct_export.records import (
    Artifact,
    Contract,
    MixedPrecision,
    ParityReport,
    checksum,
)
from cct_export.records.layout import in_layout, layout_of
from cct_export.runtimes.session import Logits
from cct_export.specs import (
    BEST,
    CalibrationSpec,
    ExportRequest,
    ExportSpec,
    QuantScheme,
)


@dataclass(frozen=True)
class CandidateFile:
    """A file and how close it is to its model.

    Attributes:
        artifact: what it is, and where it is to go.
        content: its bytes.
        weights: those of its weights, where the format has them in another file.
        parity: how close it is to the Keras model.
        agrees: for each image of parity whether it decides as the model, bool ``(N,)``.
        bound: what a bound on the SQNR cost; None without one.
        engine_operators: see ``Exported``.
    """

    artifact: Artifact
    content: bytes
    parity: ParityReport
    agrees: NDArray[np.bool_]
    bound: MixedPrecision | None = None
    engine_operators: tuple[str, ...] = ()
    weights: bytes = b""

    def write(self, path: Path) -> None:
        """Writes its bytes, and those of its weights beside them."""
        running.write(path, self.content, self.weights)


def build(
    workspace: Workspace, request: ExportRequest, *, mixed_precision: bool = True
) -> CandidateFile:
    """Converts and quantizes a model, and verifies the file with its own engine.

    Args:
        workspace: the model, with what its exports share.
        request: its scheme is one of the format's.
        mixed_precision: whether steps may stay in float to pass parity and ``min_sqnr_db``; else a
            file that misses them is as the scheme makes it, and fails parity.

    Raises:
        CCTExportError: any of its kinds.
    """
    spec = request.spec
    scheme = scheme_of(spec.scheme, spec.format)
    choose_io(spec.io, scheme, spec.format)
    _check_layout(workspace.loaded, spec)
    if workspace.lowering.plan is not None:
        return _planned(workspace, request, scheme, mixed_precision)
    if spec.format == "ncnn":
        raise ConversionError(
            f"{workspace.loaded.source} is no plan of steps that ncnn has layers for "
            f"({workspace.lowering.reason}): export it as tflite or onnx"
        )
    content, contract, bound = _traced(workspace, request, scheme, mixed_precision)
    written = _finished(workspace, request.spec, content, contract)
    return _verified(workspace, request, written, bound)


class _Written(NamedTuple):
    """A file that is not verified yet, its contract, and weights that are in another file."""

    content: bytes
    contract: Contract
    weights: bytes = b""


def _planned(
    workspace: Workspace, request: ExportRequest, scheme: QuantScheme, mixed_precision: bool
) -> CandidateFile:
    """Writes and verifies a plan; its worst steps stay in float where the file else misses parity.

    Where that does not help either, or leaves no integers, the file is as the scheme makes it.
    """
    draft = workspace.draft(request.spec, scheme)
    bound_db = request.constraints.min_sqnr_db
    calibration = _with_methods(workspace, draft, request.calibration)
    can_mix = mixed_precision and scheme.quantizes_weights and not scheme.integers_only
    if can_mix and bound_db is not None:
        quantized, calibration, cost = quantize_within(workspace, draft, calibration, bound_db)
        contract = _contract(workspace, draft, calibration)
        written = _written(workspace, request.spec, quantized, contract)
        return _verified(workspace, request, written, cost)
    quantized = draft.quantized(calibration, workspace.counted("quantizing step"))
    contract = _contract(workspace, draft, calibration)
    # The plan is larger than the file, and writer and engine take memory too: it is made again
    # where it is needed.
    del draft
    memory.give_back()
    written = _written(workspace, request.spec, quantized, contract)
    del quantized
    memory.give_back()
    plain = _verified(workspace, request, written)
    if plain.parity.passed or not can_mix:
        return plain
    draft = workspace.draft(request.spec, scheme)
    return _mixed(workspace, request, draft, calibration) or plain


def _mixed(
    workspace: Workspace, request: ExportRequest, draft: Draft, calibration: CalibrationSpec
) -> CandidateFile | None:
    """Returns a file with more precision that passes parity, if there is one with integers."""
    if draft.scheme.weights == "int4":
        quantized, raised, cost = raise_bits(workspace, draft, calibration)
        written = _written(workspace, draft.spec, quantized, _contract(workspace, draft, raised))
        mixed = _verified(workspace, request, written)
        if mixed.parity.passed:
            _note_eight_bits(workspace, draft, cost)
            return mixed
    quantized, calibration, cost = quantize_within(workspace, draft, calibration, None)
    if not any(quantized.config(step).has_integers for step in draft.plan.steps):
        return None
    contract = _contract(workspace, draft, calibration)
    written = _written(workspace, draft.spec, quantized, contract)
    mixed = _verified(workspace, request, written)
    if not mixed.parity.passed:
        return None
    _note_floats(workspace, draft.scheme, cost)
    return mixed


def _contract(workspace: Workspace, draft: Draft, calibration: CalibrationSpec) -> Contract:
    return contract_of(workspace, draft.spec, draft.origin, draft.summary(calibration))


def _written(
    workspace: Workspace, spec: ExportSpec, quantized: QuantizedPlan, contract: Contract
) -> _Written:
    """Writes a plan with its contract."""
    beside = weights_of(quantized, spec)
    if beside:
        contract = replace(contract, weights_sha256=hashlib.sha256(beside).hexdigest())
    content = FORMATS[spec.format].emit(quantized, spec, metadata_of(contract))
    return _finished(workspace, spec, content, contract, beside)


def _finished(
    workspace: Workspace, spec: ExportSpec, content: bytes, contract: Contract, beside: bytes = b""
) -> _Written:
    """Adds labels and checksum to a file."""
    if spec.target == "tflm":
        tflite_micro.check(content, workspace.loaded.source)
    if spec.format == "tflite":
        content = tflite_metadata.with_labels(content, contract.labels)
    memory.give_back()  # what writing took
    content = checksum.sealed(content)
    return _Written(content, replace(contract, content_sha256=checksum.carried(content)), beside)


def _note_eight_bits(workspace: Workspace, draft: Draft, cost: MixedPrecision) -> None:
    """Says which layers got 8-bit weights, and how many weights have 4."""
    sizes = four_bit_steps(draft.plan, draft.scheme)
    share = sum(size for step, size in sizes.items() if step not in cost.floats)
    workspace.note(
        f"{draft.scheme.name} alone has {cost.before_db:.1f} dB: {', '.join(cost.floats)} with "
        f"8-bit weights, {cost.after_db:.1f} dB; {share / sum(sizes.values()):.0%} of the weights "
        "of dense layers have 4 bits"
    )


def _note_floats(workspace: Workspace, scheme: QuantScheme, cost: MixedPrecision) -> None:
    """Says what stayed in float although no bound was set."""
    workspace.note(
        f"{scheme.name} alone has {cost.before_db:.1f} dB: {', '.join(cost.in_float)} "
        f"kept in float, {cost.after_db:.1f} dB"
    )


def _verified(
    workspace: Workspace,
    request: ExportRequest,
    written: _Written,
    bound: MixedPrecision | None = None,
) -> CandidateFile:
    """Compares a file with the model."""
    content, contract, beside = written
    size, digest = len(content) + len(beside), hashlib.sha256(content).hexdigest()
    artifact = Artifact(request.output, contract, size, digest)
    logits = running.logits_of(workspace, request.spec, contract, content, beside)
    report = _verify(workspace, artifact, logits, request.constraints.min_sqnr_db)
    agrees = parity.agreeing(workspace.reference, logits, workspace.loaded.outputs)
    own = onnx.engine_operators(content) if request.spec.format == "onnx" else ()
    return CandidateFile(artifact, content, report, agrees, bound, own, beside)


def _check_layout(loaded: LoadedModel, spec: ExportSpec) -> None:
    """Refuses channels first where no engine could tell: its sizes would be those of the other."""
    if spec.format == "ncnn":
        return  # it has no other layout
    layout = spec.layout.upper()
    if layout_of((1, *in_layout(loaded.image_shape, layout))) != layout:
        raise InvalidRequest(
            f"{loaded.source} takes images {loaded.image_shape[1]} wide, which could be the "
            f"channels: leave --layout {spec.layout} out"
        )


def _of_its_batch(workspace: Workspace, spec: ExportSpec) -> ExportSpec:
    """Returns ``spec`` for as many images as the model takes, which its graph may say."""
    source, batch = workspace.loaded.source, workspace.loaded.model.inputs[0].shape[0]
    if batch not in (None, 1):
        raise ConversionError(
            f"{source} takes exactly {batch} images at a time, which its graph says, and a file "
            "takes one or any number: build it without a batch size"
        )
    if batch == 1 and spec.dynamic_batch:
        workspace.note(
            f"{source} takes one image at a time, which its graph says: so does the file"
        )
        return replace(spec, dynamic_batch=False)
    return spec


def _traced(
    workspace: Workspace, request: ExportRequest, scheme: QuantScheme, mixed_precision: bool
) -> tuple[bytes, Contract, MixedPrecision | None]:
    """Converts a model that is not lowered by the libraries' own tools.

    Operators stay in float where the file else misses the policy of its scheme, or the bound.

    Returns:
        The file, its contract, and what a bound that the user set cost.
    """
    reason, calibration = workspace.lowering.reason, request.calibration
    if request.spec.no_fold:
        raise InvalidRequest(
            f"nothing is folded in {workspace.loaded.source}, which is traced ({reason}): leave "
            f"--no-fold {request.spec.no_fold[0]} out"
        )
    workspace.note(f"traced as it is, not folded: {reason}")
    spec = _of_its_batch(workspace, request.spec)
    samples = workspace.calibration_images if scheme.calibrated else None
    workspace.progress("converting")
    draft = TracedDraft(
        workspace.loaded, spec, scheme, samples, workspace.counted("calibrating, image")
    )
    if calibration.methods == BEST:
        method = CalibrationSpec.default_method
        if scheme.calibrated:
            method = traced_tuning.best_method(workspace, draft)
        calibration = replace(calibration, methods=method)
    bound = None
    if scheme.quantizes_weights and not scheme.integers_only and mixed_precision:
        content, calibration, bound = traced_tuning.quantize_within(
            workspace, draft, calibration, request.constraints.min_sqnr_db or 0
        )
        if bound.floats and request.constraints.min_sqnr_db is None:
            _note_floats(workspace, scheme, bound)
    else:
        content = draft.written(str(calibration.methods), draft.operators)
    origin = "" if samples is None else samples.origin
    contract = contract_of(workspace, spec, origin, draft.summary(calibration))
    given = request.constraints.min_sqnr_db is not None
    return draft.finished(content, metadata_of(contract)), contract, bound if given else None


def _with_methods(
    workspace: Workspace, draft: Draft, calibration: CalibrationSpec
) -> CalibrationSpec:
    """Returns how to calibrate, with the best method of each tensor where that is asked for."""
    if calibration.methods == BEST:
        methods: str | dict[str, str] = CalibrationSpec.default_method
        if draft.scheme.quantizes_weights:
            methods = tuning.best_methods(
                draft,
                workspace.ranking_images.images,
                progress=workspace.counted("choosing calibration methods, step"),
            )
        calibration = replace(calibration, methods=methods)
    return calibration


def _verify(
    workspace: Workspace, artifact: Artifact, logits: Logits, min_sqnr_db: float | None
) -> ParityReport:
    """Compares the logits of the file with those of the Keras model."""
    images = workspace.parity_images
    report = parity.compare(
        workspace.reference,
        candidate=logits,
        scheme=artifact.scheme,
        names=(workspace.loaded.source, str(artifact.path)),
        images=images.origin,
        outputs=workspace.loaded.outputs,
    )
    if min_sqnr_db is not None and falls_short(report.sqnr_db, min_sqnr_db):
        missed = f"SQNR {report.sqnr_db:.1f} dB is below the {min_sqnr_db:g} dB of --min-sqnr"
        report = replace(report, failures=(*report.failures, missed))
    return report
