"""``cct-export bundle`` writes a complete folder, or nothing and one line that says why."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from cct_export import bundles
from cct_export.bundles import folder as bundle_folder
from cct_export.errors import InvalidRequest, OutputError

FILES = {
    "model.tflite", "labels.txt", "model.json", "golden.npz", "model.py", "classify.py",
    "selftest.py", "cct-watch.service", "requirements.txt", "README.md", "SHA256SUMS",
}  # fmt: skip
FLOAT_INPUT = {
    "layout": "NHWC", "shape": [1, 32, 32, 3], "dtype": "float32", "preprocessing": "raw pixels",
}  # fmt: skip


@pytest.fixture
def artifact(exports, tmp_path):
    """An artifact with its sidecar that the test may change."""
    source = exports("tflite", "int8", "uint8").path
    for path in (source, source.with_name(source.name + ".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / source.name


@pytest.fixture
def sidecar(artifact):
    """Changes the artifact's sidecar: ``edit`` gets and changes its content."""

    def change(edit):
        path = artifact.with_name(artifact.name + ".json")
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


@pytest.fixture
def make(in_process, tmp_path):
    """Runs ``cct-export bundle``; ``-o`` is ``tmp_path/bundle``."""

    def run(artifact, *arguments, target="raspberry-pi", output=tmp_path / "bundle"):
        options = ("--target", target, "-o", output)
        return in_process("export", "bundle", artifact, *options, *arguments)

    return run


def _error(ended, code):
    assert ended.code == code, ended.err
    (line,) = ended.err.strip().splitlines()
    return line


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_record_names_every_file(make, artifact, tmp_path):
    ended = make(artifact, "--json", "-")
    assert ended.code == 0, ended.err
    record = ended.record["bundle"]
    folder = tmp_path / "bundle"
    assert record["path"] == str(folder)
    assert record["target"] == "raspberry-pi"
    assert set(record["files"]) == FILES == set(_names(folder))
    assert record["size_bytes"] == sum((folder / name).stat().st_size for name in FILES)


def test_sha256sum_accepts_the_checksums(make, artifact, tmp_path):
    assert make(artifact).code == 0
    process = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path / "bundle", capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout
    assert process.stdout.count(": OK") == len(FILES) - 1


def test_the_same_artifact_gives_the_same_bytes(make, artifact, tmp_path):
    assert make(artifact).code == 0
    assert make(artifact, output=tmp_path / "again" / "bundle").code == 0
    for name in FILES:
        first, again = (tmp_path / part / name for part in ("bundle", "again/bundle"))
        assert first.read_bytes() == again.read_bytes(), name


def test_the_folder_is_named_after_file_and_target(in_process, artifact, monkeypatch):
    odd = artifact.with_name("it's a \"b;rm -rf {{ x }}'.tflite")
    artifact.rename(odd)
    artifact.with_name(artifact.name + ".json").rename(odd.with_name(odd.name + ".json"))
    monkeypatch.chdir(odd.parent)
    ended = in_process("export", "bundle", odd.name, "--target", "Raspberry_Pi", "--json", "-")
    assert ended.code == 0, ended.err
    folder = Path(ended.record["bundle"]["path"])
    assert folder.name == f"{odd.stem}-raspberry-pi"
    assert (folder / "SHA256SUMS").is_file()


def test_an_artifact_without_its_sidecar_is_refused(make, artifact, tmp_path):
    artifact.with_name(artifact.name + ".json").unlink()
    line = _error(make(artifact), 1)
    assert f"has no {artifact.name}.json" in line
    assert "export it again" in line
    assert _names(tmp_path) == [artifact.name]


def test_the_sidecar_of_another_file_counts_as_none(make, artifact, exports):
    shutil.copy(exports("tflite").path, artifact)
    assert "export it again" in _error(make(artifact), 1)


def test_a_sidecar_with_other_logits_is_refused(make, artifact, sidecar, tmp_path):
    sidecar(lambda content: content["golden"]["logits"].reverse())
    assert "does not give the logits in its sidecar" in _error(make(artifact), 1)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("labels", ["a"], "1 labels"),
        ("labels", ["a"] * 10_000, "10000 labels"),
        ("first label", "0\n1", "not text of one line"),
        ("first label", "0\u20281", "not text of one line"),
        ("first label", "\x1b[31mred", "not text of one line"),
        ("first label", "\ud800", "export it again"),  # no file can hold it
        ("format", "../x", "is of the format '../x'"),
        ("input", "float32", "export it again"),
        ("input", FLOAT_INPUT, "does not say that an image is"),
        ("input", FLOAT_INPUT | {"shape": [1, 9, 9, 3]}, "does not say that an image is"),
        ("input", FLOAT_INPUT | {"dtype": "uint8", "preprocessing": ""}, "does not describe"),
        ("output", None, "does not describe"),
    ],
)
def test_a_sidecar_that_no_program_could_use_is_refused(
    make, artifact, sidecar, tmp_path, key, value, reason
):
    def edit(content):
        if key == "first label":
            content["labels"][0] = value
        else:
            content[key] = value

    sidecar(edit)
    assert reason in _error(make(artifact), 1)
    assert not (tmp_path / "bundle").exists()


def test_labels_in_any_script_are_kept(make, artifact, sidecar, tmp_path):
    labels = ["猫", "soft\u00a0drink", 'it\'s "$(id)" <b>', "", "{{ 7 * 7 }}", *"56789"]
    sidecar(lambda content: content.update(labels=labels))
    assert make(artifact).code == 0
    assert (tmp_path / "bundle" / "labels.txt").read_text().splitlines() == labels
    assert json.loads((tmp_path / "bundle" / "model.json").read_text())["labels"] == labels


def test_a_link_to_an_empty_or_missing_folder_is_followed(make, artifact, tmp_path):
    (tmp_path / "empty").mkdir(mode=0o700)
    for name, target in (("link", "empty"), ("dangling", "new/folder")):
        link = tmp_path / name
        link.symlink_to(target)
        assert make(artifact, output=link).code == 0
        assert link.is_symlink()
        assert (tmp_path / target / "SHA256SUMS").is_file()
        assert "exists already" in _error(make(artifact, output=link), 1)
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_loop_of_links_and_what_is_no_folder_are_refused(make, artifact, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "pipe").symlink_to("fifo")
    os.mkfifo(tmp_path / "fifo")
    before = _names(tmp_path)
    assert "Too many levels" in _error(make(artifact, output=tmp_path / "loop"), 1)
    assert "exists already" in _error(make(artifact, output=tmp_path / "pipe"), 1)
    assert _names(tmp_path) == before


def test_a_bundle_removes_what_a_killed_bundle_left(make, artifact, tmp_path):
    left = tmp_path / ".tmp-cct-export-x"
    (left / "folder").mkdir(parents=True)
    (left / "folder/file").write_text("half")
    os.utime(left, (0, 0))
    assert make(artifact).code == 0
    assert not left.exists()


def test_a_folder_without_a_name_is_refused(make, artifact, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "name its folder" in _error(make(artifact, output="."), 1)
    assert _names(tmp_path / "empty") == []


def test_an_unknown_target_is_refused_with_the_known_ones(make, artifact):
    line = _error(make(artifact, target="toaster"), 2)
    assert "no target is called 'toaster'" in line
    assert "raspberry-pi" in line


def test_a_keras_model_is_not_an_artifact(make, digits_model):
    assert "is no .tflite, .onnx or .ncnn.param file" in _error(make(digits_model), 2)


def test_a_missing_artifact_is_reported(make, tmp_path):
    assert "no such file" in _error(make(tmp_path / "m.tflite"), 2)


@pytest.mark.parametrize("taken", ["folder", "file"])
def test_existing_files_are_not_overwritten(make, artifact, tmp_path, taken):
    place = tmp_path / "bundle"
    if taken == "folder":
        place.mkdir()
    kept = place / "mine.txt" if taken == "folder" else place
    kept.write_text("mine")
    before = _names(tmp_path)
    assert "exists already" in _error(make(artifact), 1)
    assert _names(tmp_path) == before
    assert kept.read_text() == "mine"


def test_an_empty_folder_is_filled(make, artifact, tmp_path):
    (tmp_path / "bundle").mkdir()
    assert make(artifact).code == 0
    assert set(_names(tmp_path / "bundle")) == FILES


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def write_half(path, content):
        write_bytes(path, content[: len(content) // 2])
        if path.name == "b":
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OutputError, match="No space left"):
        bundle_folder.write({"a": b"12", "b": b"34"}, tmp_path / "bundle")
    assert _names(tmp_path) == []


def test_a_file_in_place_of_the_parent_folder_is_reported(make, artifact, tmp_path):
    (tmp_path / "file").touch()
    line = _error(make(artifact, output=tmp_path / "file" / "bundle"), 1)
    assert "cannot write" in line


def test_the_target_is_checked_before_the_model_runs(tmp_path):
    with pytest.raises(InvalidRequest, match="no target"):
        bundles.make(tmp_path / "missing.tflite", target="toaster", output=tmp_path / "bundle")


def test_checksums_are_sorted_by_path():
    text = bundle_folder.checksums({"b": b"2", "a/c": b"1"}).decode()
    assert [line[66:] for line in text.splitlines()] == ["a/c", "b"]


@pytest.fixture
def templates(tmp_path, monkeypatch):
    """A folder of templates of the target ``watch``."""
    monkeypatch.setattr(bundle_folder, "TEMPLATES", tmp_path)
    folder = tmp_path / "watch"
    (folder / "src" / "{{name}}" / "__pycache__").mkdir(parents=True)
    (folder / "src" / "{{name}}" / "__pycache__" / "a.pyc").touch()
    return folder


def test_only_files_that_end_with_j2_are_rendered_and_all_paths_are(templates):
    (templates / "src" / "{{name}}" / "a.py").write_bytes(b"{{ name }}\r\n\xff")
    (templates / "src" / "{{name}}" / "b.kt.j2").write_text("${x} {{ name }} <{{ name|shell }}>\n")
    assert bundle_folder.render("watch", name="a&b") == {
        "src/a&b/a.py": b"{{ name }}\r\n\xff",
        "src/a&b/b.kt": b"${x} a&b <'a&b'>\n",
    }


def test_a_template_with_an_unknown_variable_is_an_error(templates):
    (templates / "a.j2").write_text("{{ nmae }}")
    with pytest.raises(UndefinedError, match="nmae"):
        bundle_folder.render("watch", name="a")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("runs/best.keras", "`runs/best.keras`"),
        ("a `b` ``c``", "``` a `b` ``c`` ```"),
        ("a\n# b", "`a # b`"),
        ("", "`  `"),
    ],
)
def test_inline_code_holds_any_text(text, code):
    assert bundle_folder.inline_code(text) == code
