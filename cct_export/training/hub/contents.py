"""What of a training run is sent, and that it belongs together."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cct_export.errors import InvalidArtifact, InvalidModel, OutputError
from cct_export.records import sidecar
from cct_export.training.front_matter import REPOSITORY

CARD, WEIGHTS, RECORD = "README.md", "best.keras", "run.json"
# What a run leaves but for state.npz, which is ten times as large and helps nobody but the run.
_NEEDED = (CARD, WEIGHTS, RECORD)
_WANTED = ("metrics.csv", "curves.png", "model.png", "calibration.npz")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FRONT = "---\n"


def record_of(run: Path) -> dict[str, Any]:
    """Returns the record of a finished run.

    Args:
        run: the run directory.

    Raises:
        InvalidModel: it is none, or not finished.
    """
    path = run / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        name, data = record["model"]["name"], record["train"]["data"]
        test = record.get("test", {"top1": 0.0, "samples": 0})
        known = (
            isinstance(name, str)
            and isinstance(data, str)
            and isinstance(test["top1"], float)
            and isinstance(test["samples"], int)
        )
    except FileNotFoundError:
        raise InvalidModel(f"{run} is not a run directory: no {RECORD} in it") from None
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InvalidModel(f"{path} is not the record of a training run")
    if "test" not in record:
        raise InvalidModel(
            f"the run in {run} is not finished: go on with `cct-export train --resume` and the "
            "same options"
        )
    return record


def gather(
    run: Path, artifacts: Sequence[Path], hub_id: str, license: str | None
) -> tuple[dict[str, bytes], list[str]]:
    """Returns what is sent, by its name in the repository, and what there is to know of it.

    Args:
        run: the directory of a finished run.
        artifacts: exported files of its model, each with a sidecar.
        hub_id: what the card calls the repository.
        license: identifier for the card, None to leave it as it is.

    Raises:
        InvalidModel: a file that the run must have is not there.
        InvalidArtifact: an artifact is not of this model, or has no sidecar.
        OutputError: the license is no identifier.
    """
    files, notes = _of_run(run)
    files[CARD] = _card(files[CARD], hub_id, license)
    made_of = hashlib.sha256(files[WEIGHTS]).hexdigest()
    for path in artifacts:
        for name, content in _of_artifact(path, made_of, run):
            if name in files:
                raise InvalidArtifact(f"{path} and another file are both called {name}: rename one")
            files[name] = content
        notes.append(_golden(path))
    return files, notes


def _of_run(run: Path) -> tuple[dict[str, bytes], list[str]]:
    files, absent = {}, []
    for name in (*_NEEDED, *_WANTED):
        try:
            files[name] = (run / name).read_bytes()
        except FileNotFoundError:
            if name in _NEEDED:
                raise InvalidModel(f"{run} has no {name}, without which nothing is sent") from None
            absent.append(name)
        except OSError as error:
            raise InvalidModel(f"{run / name} cannot be read: {error.strerror}") from error
    return files, [f"{run} has no {', '.join(absent)}"] if absent else []


def _of_artifact(path: Path, made_of: str, run: Path) -> Iterator[tuple[str, bytes]]:
    """Yields an artifact and its sidecar if they belong to each other and to the model."""
    if path.suffix not in (".tflite", ".onnx") or not path.is_file():
        raise InvalidArtifact(f"{path} is no .tflite or .onnx file that is here")
    found = sidecar.read(path)
    if found is None:
        raise InvalidArtifact(f"{path} has no {path.name}.json beside it that belongs to it")
    if found.contract.source_sha256 != made_of:
        raise InvalidArtifact(
            f"{path} was made of {found.contract.source}, which is not {run / WEIGHTS}: export it "
            "again"
        )
    for one in (path, sidecar.path_of(path)):
        yield one.name, one.read_bytes()


def _golden(path: Path) -> str:
    found = sidecar.read(path)
    assert found is not None
    golden = found.golden
    return f"{path.name}.json holds {len(golden.images)} images, of {golden.origin}"


def _card(content: bytes, hub_id: str, license: str | None) -> bytes:
    """Returns the card with the name of its repository, and its license."""
    text = content.decode(errors="replace").replace(REPOSITORY, f"hf:{hub_id}")
    if license is None:
        return text.encode()
    if not _LICENSE.fullmatch(license):
        raise OutputError(
            f"license {license!r}: the Hub has identifiers for them, such as apache-2.0 or mit"
        )
    head, body = "", text
    if text.startswith(_FRONT) and "\n---" in text[3:]:
        head, _, body = text[len(_FRONT) :].partition(f"\n{_FRONT[:3]}")
        head = re.sub(r"^license:.*\n?", "", f"{head}\n", flags=re.MULTILINE)
    else:
        body = f"\n\n{text}"
    return f"{_FRONT}license: {json.dumps(license)}\n{head}---{body}".encode()
