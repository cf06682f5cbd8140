"""``cct-export bundle``: all of a folder, or nothing, and one line that says why."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kinds import FAST

from cct_export import bundles
from cct_export.bundles import making
from cct_export.errors import InvalidRequest, OutputError

FILES = {
    "model.tflite", "labels.txt", "model.json", "golden.npz", "model.py", "classify.py",
    "selftest.py", "cct-watch.service", "requirements.txt", "README.md", "SHA256SUMS",
}  # fmt: skip


@pytest.fixture
def artifact(exports, tmp_path):
    """An artifact with its sidecar that the test may change."""
    made = exports(*FAST).path
    for path in (made, made.with_name(made.name + ".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / made.name


@pytest.fixture
def bundled(in_process, tmp_path):
    """Runs ``cct-export bundle``; ``-o`` is ``tmp_path/bundle``."""

    def run(artifact, *arguments, target="raspberry-pi", output=tmp_path / "bundle"):
        options = ("--target", target, "-o", output)
        return in_process("export", "bundle", artifact, *options, *arguments)

    return run


def _error(ended, code):
    assert ended.code == code, ended.err
    (line,) = ended.err.strip().splitlines()
    return line


def _left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_record_names_every_file(bundled, artifact, tmp_path):
    ended = bundled(artifact, "--json", "-")
    assert ended.code == 0, ended.err
    record = ended.record["bundle"]
    made = tmp_path / "bundle"
    assert record["path"] == str(made)
    assert record["target"] == "raspberry-pi"
    assert set(record["files"]) == FILES == set(_left(made))
    assert record["size_bytes"] == sum((made / name).stat().st_size for name in FILES)


def test_sha256sum_agrees(bundled, artifact, tmp_path):
    assert bundled(artifact).code == 0
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path / "bundle", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(": OK") == len(FILES) - 1


def test_the_same_artifact_gives_the_same_bytes(bundled, artifact, tmp_path):
    assert bundled(artifact).code == 0
    assert bundled(artifact, output=tmp_path / "again" / "bundle").code == 0
    for name in FILES:
        first, again = (tmp_path / part / name for part in ("bundle", "again/bundle"))
        assert first.read_bytes() == again.read_bytes(), name


def test_the_folder_is_named_after_file_and_target(cct_export, artifact):
    odd = artifact.with_name("it's a \"b;rm -rf x'.tflite")
    artifact.rename(odd)
    artifact.with_name(artifact.name + ".json").rename(odd.with_name(odd.name + ".json"))
    done = cct_export("bundle", odd.name, "--target", "raspberry_pi")
    assert done.returncode == 2  # a target is no option
    done = cct_export("bundle", odd.name, "--target", "raspberry-pi", "--json", "-")
    assert done.returncode == 0, done.stderr
    made = Path(json.loads(done.stdout)["bundle"]["path"])
    assert made.name == f"{odd.stem}-raspberry-pi"
    assert (odd.parent / made / "SHA256SUMS").is_file()


def test_without_its_sidecar_nothing_could_be_proven(bundled, artifact, tmp_path):
    artifact.with_name(artifact.name + ".json").unlink()
    line = _error(bundled(artifact), 1)
    assert f"has no {artifact.name}.json" in line
    assert "export it again" in line
    assert _left(tmp_path) == [artifact.name]


def test_a_sidecar_of_another_file_counts_as_none(bundled, artifact, exports):
    shutil.copy(exports("tflite").path, artifact)
    assert "export it again" in _error(bundled(artifact), 1)


def test_a_sidecar_with_other_answers_is_no_proof(bundled, artifact, tmp_path):
    path = artifact.with_name(artifact.name + ".json")
    record = json.loads(path.read_text())
    record["golden"]["logits"].reverse()
    path.write_text(json.dumps(record))
    assert "does not give the logits in its sidecar" in _error(bundled(artifact), 1)
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_target_is_a_wrong_word(bundled, artifact):
    line = _error(bundled(artifact, target="toaster"), 2)
    assert "no target 'toaster'" in line
    assert "raspberry-pi" in line


def test_a_keras_model_is_no_artifact(bundled, digits_model):
    line = _error(bundled(digits_model), 2)
    assert "neither a .tflite nor an .onnx file" in line


def test_a_file_that_is_not_there_is_said(bundled, tmp_path):
    assert "no such file" in _error(bundled(tmp_path / "m.tflite"), 1)


@pytest.mark.parametrize("taken", ["folder", "file"])
def test_what_is_there_stays(bundled, artifact, tmp_path, taken):
    place = tmp_path / "bundle"
    if taken == "folder":
        place.mkdir()
    kept = place / "mine.txt" if taken == "folder" else place
    kept.write_text("mine")
    before = _left(tmp_path)
    assert "is there already" in _error(bundled(artifact), 1)
    assert _left(tmp_path) == before
    assert kept.read_text() == "mine"


def test_an_empty_folder_is_filled(bundled, artifact, tmp_path):
    (tmp_path / "bundle").mkdir()
    assert bundled(artifact).code == 0
    assert set(_left(tmp_path / "bundle")) == FILES


def test_a_full_disk_leaves_nothing(artifact, tmp_path, monkeypatch):
    written = Path.write_bytes

    def full(path, content):
        if path.name == "selftest.py":
            written(path, content[:10])
            raise OSError(28, os.strerror(28))
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    before = _left(tmp_path)
    with pytest.raises(OutputError, match="No space left"):
        bundles.make(artifact, "raspberry-pi", tmp_path / "bundle")
    assert _left(tmp_path) == before


def test_a_place_that_is_no_folder_is_said(bundled, artifact, tmp_path):
    (tmp_path / "file").touch()
    line = _error(bundled(artifact, output=tmp_path / "file" / "bundle"), 1)
    assert "cannot write" in line


def test_the_target_is_asked_before_the_model_runs(tmp_path):
    with pytest.raises(InvalidRequest, match="no target"):
        bundles.make(tmp_path / "missing.tflite", "toaster", tmp_path / "bundle")


def test_checksums_are_in_the_order_of_names():
    text = making.sums({"b": b"2", "a/c": b"1"}).decode()
    assert [line[66:] for line in text.splitlines()] == ["a/c", "b"]
