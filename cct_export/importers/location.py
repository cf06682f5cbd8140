"""What a MODEL is and where its weights are; nothing here needs Keras."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cct_export.data import OnCorrupt
from cct_export.errors import InvalidModel, InvalidRequest, MissingDependency
from cct_export.files import check_file, expand_user, similar
from cct_export.model import presets
from cct_export.names import closest, find
from cct_export.specs import SAVED_MODEL_FILE
from cct_export.training.run import RunDirectory

HUB_TIMEOUT_S = 10
SAFETENSORS = (".safetensors",)
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
_HUB_ID = re.compile(r"(?:hf:(\w[\w.-]*/\w[\w.-]*)|(keras-io/\w[\w.-]*))")
# The calibration record of a run that was pushed to the Hub.
_HUB_CALIBRATION = "calibration.npz"
# Nothing else of a repository (images, notes, Python code) is downloaded.
_HUB_SAVED_MODEL = (SAVED_MODEL_FILE, "variables/*")
_HUB_WEIGHTS = ("*.keras", "*.h5", "*.safetensors", "*.pth", "*.pt", "*.bin")
_EXPORTED = (".tflite", ".onnx")


def _is_saved_model(path: Path) -> bool:
    return (path / SAVED_MODEL_FILE).is_file()


def _is_file(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.name.lower().endswith(suffixes) and path.is_file()


# Kinds of MODEL by name, and what tells that a path is of this kind.
KINDS: dict[str, Callable[[Path], bool]] = {
    "SavedModel": _is_saved_model,
    ".weights.h5": _is_file(".weights.h5"),
    ".h5": _is_file(".h5", ".hdf5"),
    ".keras": _is_file(".keras"),
    "state dict": _is_file(*SAFETENSORS, *PICKLES),
}


@dataclass(frozen=True)
class Location:
    """Where the weights of a MODEL are, and how they were trained if that is recorded.

    Attributes:
        path: a file, or the folder of a SavedModel.
        kind: a key of ``KINDS``.
        data: the training data of a run directory; None for other sources.
        calibration_file: path of the calibration record, which may not exist; None for sources
            without one.
        on_corrupt: what the run did with images that cannot be decoded, see ``data.read``.
    """

    path: Path
    kind: str
    data: str | None = None
    calibration_file: Path | None = None
    on_corrupt: OnCorrupt = "refuse"


def check(source: str) -> str | None:
    """Refuses what cannot be a MODEL; a repository of the Hub is not asked for.

    Returns:
        The training data of a run directory; None for other sources.

    Raises:
        InvalidRequest: there is nothing of that name, or it is of another kind.
        InvalidModel: a run directory without a finished epoch.
        MissingDependency: a library that fetches or reads it is not installed.
    """
    if not is_hub_id(source):
        location = locate(source)
        if location.path.suffix.lower() in PICKLES and find_spec("torch") is None:
            raise MissingDependency.of("torch", "torch")
        return location.data
    if find_spec("huggingface_hub") is None:
        raise MissingDependency.of("huggingface_hub", "hub")
    return None


def locate(source: str) -> Location:
    """Returns where a MODEL is; fetches it if it is a repository of the Hub.

    Args:
        source: a preset with weights, a run directory, a file or folder of one of ``KINDS``, or a
            repository of the Hub.

    Raises:
        InvalidRequest: there is nothing of that name, or it is of another kind.
        InvalidModel: a run directory without a finished epoch, or a repository that cannot be used.
        MissingDependency: huggingface_hub is not installed.
    """
    path = expand_user(source)
    preset = source if source in presets.MODELS else None  # a folder of that name is ./NAME
    if preset is None and not path.exists():
        preset = find(source, presets.MODELS)
    if preset is not None:
        path = presets.shipped_checkpoint(preset)
        return Location(path, ".keras", calibration_file=path.with_suffix(".calibration.npz"))
    if is_hub_id(source):
        path = fetch_from_hub(source)
        record = path.with_name(_HUB_CALIBRATION) if path.is_file() else None
        return Location(path, _kind_of(path, source), calibration_file=record)
    if (path / "run.json").is_file() and not _is_saved_model(path):
        return _locate_in_run(RunDirectory(path), source)
    return Location(path, _kind_of(path, source))


def _locate_in_run(run: RunDirectory, source: str) -> Location:
    recipe = run.record().train
    if not run.best_file.is_file():
        name = run.best_file.name
        raise InvalidModel(f"{source} holds no finished epoch yet: no {name} in it")
    return Location(run.best_file, ".keras", recipe.data, run.calibration_file, recipe.on_corrupt)


def _kind_of(path: Path, source: str) -> str:
    """Returns the key in ``KINDS`` of what is at ``path``; raises ``InvalidRequest``."""
    for kind, is_of_kind in KINDS.items():
        if is_of_kind(path):
            return kind
    if not source:
        raise InvalidRequest(f"the name of the model is empty: MODEL is {_model_kinds()}")
    if path.is_dir():
        raise InvalidRequest(
            f"{source} is no model: it is a folder without run.json (a run directory) or "
            f"{SAVED_MODEL_FILE} (a SavedModel)"
        )
    if not path.exists():
        _refuse_missing(path, source)
    if path.suffix in _EXPORTED:
        raise InvalidRequest(
            f"{source} is an exported file already: name the model that it was made of; "
            f"`cct-bench {path.suffix[1:]} {source}` measures the file, `cct-export inspect` "
            "lists its operators, `cct-export verify` compares it with its model"
        )
    raise InvalidRequest(f"{source} is not a model that can be read: MODEL is {_model_kinds()}")


def _refuse_missing(path: Path, source: str) -> None:
    """Raises ``InvalidRequest`` for a MODEL that does not exist, with the closest name."""
    if path.suffix:
        check_file(path, "model file")
    shipped = [name for name in presets.MODELS if presets.ships(name)]
    close, kinds = closest(source, shipped) or similar(path), f"MODEL is {_model_kinds()}"
    hint = f"did you mean {close}? ({kinds})" if close else kinds
    raise InvalidRequest(f"there is no file, run directory or preset called {source}: {hint}")


def _model_kinds() -> str:
    """Returns everything that MODEL may be, for messages."""
    shipped = ", ".join(name for name in presets.MODELS if presets.ships(name))
    return (
        f"a .keras, .h5 or .weights.h5 file, a run directory, a preset with weights ({shipped}), a "
        "PyTorch state dict (.pth, .safetensors), a folder with a SavedModel, or hf:OWNER/NAME"
    )


def is_hub_id(source: str) -> bool:
    """Tells whether ``source`` names a repository of the Hub and not an existing path.

    Such a source is downloaded. Callers ask here to refuse one that only a file names.
    """
    return _hub_id(source) is not None and not Path(source).exists()


def _hub_id(source: str) -> re.Match[str] | None:
    # As a path, which it may be meanwhile: keras-io//cct becomes keras-io/cct.
    return _HUB_ID.fullmatch(str(Path(source)))


def fetch_from_hub(source: str) -> Path:
    """Returns the SavedModel's folder, or the file of weights, of a repository.

    If the Hub cannot be reached, its local cache is used.

    Args:
        source: see ``is_hub_id``.

    Raises:
        InvalidModel: no such repository, no network, or it holds no or several models.
        MissingDependency: huggingface_hub is not installed.
    """
    match = _hub_id(source)
    assert match is not None
    name = match[1] or match[2]
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependency.of("huggingface_hub", "hub") from error
    patterns = [*_HUB_SAVED_MODEL, *_HUB_WEIGHTS, _HUB_CALIBRATION]
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S))
    # The library raises its own errors, those of its HTTP client, and the system's.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidModel(f"{name} could not be fetched from the Hub: {reason}") from error
    if (folder / SAVED_MODEL_FILE).is_file():
        return folder
    files = [path for pattern in _HUB_WEIGHTS for path in sorted(folder.glob(pattern))]
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise InvalidModel(f"{name} does not hold a single model that can be read: {names}")
    return files[0]
