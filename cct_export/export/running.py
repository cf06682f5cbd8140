"""Running a file that is not yet in its place, in the engine that it is for."""

import tempfile
from contextlib import closing
from pathlib import Path

from cct_export import memory
from cct_export.errors import ConversionError, InvalidArtifact, NotAvailable
from cct_export.export.workspace import Workspace
from cct_export.quantize.schemes import scheme_of
from cct_export.records import Contract, weights
from cct_export.runtimes import ENGINE_NAMES, ENGINES, engine_for_target, engine_name, session
from cct_export.runtimes.session import Logits, Session
from cct_export.specs import SUFFIXES, ExportSpec
from cct_export.stock_tools import not_run

_TITLES = {
    "litert": "LiteRT", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn",
}  # fmt: skip


def write(path: Path, content: bytes, beside: bytes) -> None:
    """Writes a file, and its weights where the format has them in another one."""
    path.write_bytes(content)
    if other := weights.path_of(path):
        other.write_bytes(beside)


def logits_of(
    workspace: Workspace, spec: ExportSpec, contract: Contract, content: bytes, beside: bytes
) -> Logits:
    """Returns the logits of a file for the images of parity.

    Args:
        workspace: the model, with what its exports share.
        spec: what file it is.
        contract: what it says about itself.
        content: its bytes.
        beside: those of its weights, where the format has them in another file.

    Raises:
        ConversionError: its engine cannot run it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"candidate{SUFFIXES[spec.format]}")
        write(path, content, beside)
        try:
            return _run(workspace, spec, path)
        except (InvalidArtifact, NotAvailable) as error:
            reason = str(error).replace(str(path), "the file")
            reason = not_run(_TITLES[engine_name(spec)], error, _advice(spec)) or reason
            raise ConversionError(
                f"{contract.source} as {spec.format} {spec.scheme}: {reason}"
            ) from error


def _run(workspace: Workspace, spec: ExportSpec, path: Path) -> Logits:
    engine = ENGINES[spec.engine] if spec.engine else engine_for_target(spec.format, spec.target)
    # Engines check integer graphs less, and can crash on a scale that is out of range. An engine
    # that the writers were not made for may fail while it runs.
    trusted = not _has_integers_only(spec) and engine_name(spec) == ENGINE_NAMES[spec.format]
    with closing(engine.open_session(path, trusted=trusted)) as opened:
        if spec.target == "tflm":
            workspace.note(_about_micro(opened))
        images = workspace.parity_images.images
        logits = session.run(opened, images, progress=workspace.counted("verifying"))
    memory.give_back()  # what the engine took
    return logits


def _advice(spec: ExportSpec) -> str:
    return "use int8 or fp16" if _has_integers_only(spec) else "compute it of other operations"


def _has_integers_only(spec: ExportSpec) -> bool:
    return scheme_of(spec.scheme, spec.format).integers_only


def _about_micro(engine: Session) -> str:
    """Returns what verifies a file for TFLite Micro."""
    name, version = engine.engine
    if engine.arena_bytes is None:
        return (
            f"verified with {name} {version}: tflite-micro is not installed, "
            "pip install 'cct-export[tflm]' brings it"
        )
    return f"verified with tflite-micro {version}: arena {engine.arena_bytes:,} bytes"
