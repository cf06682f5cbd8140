"""``cct-export push`` with the real client, against a stand-in of the Hub on loopback."""

import hashlib
import json
import os

import numpy as np
import pytest

from cct_export import api
from cct_export.errors import CCTExportError, InvalidRequest, OutputError
from cct_export.files import sha256
from cct_export.importers.source import load_model
from cct_export.records import Artifact, Contract, sidecar

library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

ID = "somebody/tiny-cct"
PUSHED = {
    "README.md", "best.keras", "run.json", "metrics.csv", "curves.png", "model.png",
    "calibration.npz",
}  # fmt: skip


def _artifact(folder, run, name="tiny.tflite"):
    """Writes a file and its sidecar, as if it had been exported from ``run``."""
    path = folder / name
    path.write_bytes(b"TFL3" + os.urandom(2000))
    contract = Contract(
        format="tflite", scheme="int8", io="float32", source="runs/cct",
        source_sha256=sha256(run.best_file), image_shape=(8, 8, 1), labels=("0", "1", "2"),
    )  # fmt: skip
    artifact = Artifact(path, contract, path.stat().st_size, sha256(path))
    golden = sidecar.Golden(np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 3), np.float32), "a set")
    sidecar.write(artifact, golden)
    return path


@pytest.mark.parametrize("large", [(), (".keras", ".png", ".npz")], ids=["regular", "lfs"])
def test_every_file_but_the_training_state_is_pushed(push, hub, pushable, finished, large):
    hub.large = large
    ended = push()
    assert ended.code == 0, ended.err
    ((message, files),) = hub.repositories[ID].commits
    assert set(files) == PUSHED
    for name in PUSHED - {"README.md"}:
        assert files[name] == (pushable.path / name).read_bytes(), name
    assert bool(hub.objects) == bool(large)
    assert message == f"Add tiny, top-1 {finished.trained.top1:.2%} on 30 test images"
    (line,) = ended.out.splitlines()
    assert line.startswith(f"{hub.url}/{ID}/commit/")
    assert "best.keras" not in ended.err  # no progress bars


def test_the_pushed_card_has_repository_and_license_and_the_local_card_is_not_changed(
    push, hub, pushable
):
    before = pushable.card_file.read_bytes()
    assert push("--license", "apache-2.0").code == 0
    text = hub.repositories[ID].branches["main"]["README.md"].decode()
    assert f"From the Hugging Face Hub, write `hf:{ID}`" in text
    card, local = library.ModelCard(text), library.ModelCard(before.decode())
    assert (card.data.license, local.data.license) == ("apache-2.0", None)
    assert (card.data.model_name, local.data.model_name) == (ID, "run")
    local.data.license, local.data.model_name = "apache-2.0", ID
    assert card.data.to_dict() == local.data.to_dict()
    titled = local.text.replace("# run\n", f"# {ID}\n", 1)
    assert card.text == titled.replace("hf:OWNER/NAME", f"hf:{ID}")
    assert pushable.card_file.read_bytes() == before


def test_a_license_replaces_that_of_the_card_and_a_card_without_front_matter_gets_one(
    push, hub, pushable
):
    card = pushable.card_file
    card.write_text("---\nlicense: mit\ntags:\n- a\n---\nlicense: in the text\n")
    assert push("--license", "apache-2.0").code == 0
    text = hub.repositories[ID].branches["main"]["README.md"].decode()
    assert text == '---\nlicense: "apache-2.0"\ntags:\n- a\n---\nlicense: in the text\n'
    card.write_text("Mine.\n")
    assert push("--license", "mit").code == 0
    text = hub.repositories[ID].branches["main"]["README.md"].decode()
    assert library.ModelCard(text).data.license == "mit"
    assert text.endswith("\nMine.\n")


def test_an_existing_repository_gets_another_commit(push, hub, pushable):
    assert push().code == 0
    pushable.metrics_file.write_text("epoch\n1\n")
    assert push().code == 0
    assert len(hub.repositories[ID].commits) == 2
    assert hub.repositories[ID].branches["main"]["metrics.csv"] == b"epoch\n1\n"


def test_a_branch_is_created_and_main_is_not_changed(push, hub):
    assert push("--revision", "next").code == 0
    assert set(hub.repositories[ID].branches["next"]) == PUSHED | {".gitattributes"}
    assert set(hub.repositories[ID].branches["main"]) == {".gitattributes"}
    assert push("--revision", "next", "--license", "mit").code == 0
    assert len(hub.repositories[ID].commits) == 2


def test_private_creates_a_private_repository_and_refuses_a_public_one(push, hub):
    assert push("--private").code == 0
    assert hub.repositories[ID].private
    assert push("--private").code == 0
    hub.repositories[ID].private = False
    ended = push("--private")
    assert ended.code == 1
    assert "somebody/tiny-cct is there already, and public" in ended.err
    assert len(hub.repositories[ID].commits) == 2


def test_artifacts_are_pushed_with_their_sidecars(push, hub, tmp_path, pushable):
    path = _artifact(tmp_path, pushable)
    ended = push("--artifact", path, "--json", "-")
    assert ended.code == 0, ended.err
    files = hub.repositories[ID].branches["main"]
    for file in (path, sidecar.path_of(path)):
        assert files[file.name] == file.read_bytes()
    assert "tiny.tflite.json holds 2 images, of a set" in ended.err
    record = ended.record["pushed"]
    assert record["url"] == f"{hub.url}/{ID}/commit/{record['commit']}"
    assert (record["repository"], record["revision"], record["private"]) == (ID, "main", False)
    assert {file["name"] for file in record["files"]} == PUSHED | {path.name, f"{path.name}.json"}
    for file in record["files"]:
        content = files[file["name"]]
        assert file["size_bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_dry_run_lists_the_files_and_sends_no_request(push, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    ended = push("--dry-run", "--private")
    assert ended.code == 0, ended.err
    assert hub.requests == []
    lines = [line.split() for line in ended.out.splitlines()]
    assert {words[1] for words in lines[:-1]} == PUSHED
    assert ended.out.splitlines()[-1].startswith("7 files, ")
    assert "would be sent to the private repository somebody/tiny-cct, main" in ended.out
    record = push("--dry-run", "--json", "-").record["pushed"]
    assert (record["commit"], record["url"]) == (None, None)


def test_a_pushed_run_can_be_loaded_with_its_calibration_statistics(push, pushable):
    assert push().code == 0
    loaded = load_model(f"hf:{ID}")
    assert loaded.sha256 == hashlib.sha256(pushable.best_file.read_bytes()).hexdigest()
    assert loaded.model.name == "tiny"
    assert loaded.calibration_file.read_bytes() == pushable.calibration_file.read_bytes()


def _change(record, **entries):
    record.write_text(json.dumps(json.loads(record.read_text()) | entries))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: run.record_file.write_text("{"), "is not the record of a training run"),
        (lambda run: run.record_file.write_text("[1]"), "is not the record of a training run"),
        (lambda run: run.record_file.write_text('{"model": 1}'), "is not the record of"),
        (lambda run: _change(run.record_file, test={"top1": "x"}), "is not the record of"),
        (lambda run: run.best_file.unlink(), r"has no best\.keras, without which"),
        (lambda run: run.card_file.unlink(), r"has no README\.md, without which"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(copied, damage, reason):
    damage(copied)
    with pytest.raises(CCTExportError, match=reason) as error:
        api.push(ID, run=copied.path, dry_run=True)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)


def test_a_folder_without_a_record_is_refused_as_wrong_use(copied):
    copied.record_file.unlink()
    with pytest.raises(InvalidRequest, match=r"is not a run directory: no run\.json in it"):
        api.push(ID, run=copied.path, dry_run=True)


def test_an_unfinished_run_is_refused(copied):
    record = json.loads(copied.record_file.read_text())
    del record["test"]
    copied.record_file.write_text(json.dumps(record))
    with pytest.raises(CCTExportError, match="is not finished: go on with `cct-export train --res"):
        api.push(ID, run=copied.path, dry_run=True)


def test_optional_files_that_are_missing_are_named(copied):
    copied.diagram_file.unlink()
    pushed = api.push(ID, run=copied.path, dry_run=True)
    assert {file.name for file in pushed.files} == PUSHED - {"model.png", "calibration.npz"}
    assert f"{copied.path} has no model.png, calibration.npz" in pushed.notes


def test_local_paths_in_the_record_are_named(pushable):
    record = json.loads(pushable.record_file.read_text())
    start = {"source": "/home/me/secret.keras", "sha256": "0" * 64}
    train = record["train"] | {"data": "/home/me/faces"}
    _change(pushable.record_file, train=train, start=start)
    pushed = api.push(ID, run=pushable.path, dry_run=True)
    assert pushed.notes == tuple(
        f"README.md and run.json show the path /home/me/{name} of this machine"
        for name in ("faces", "secret.keras")
    )


def test_artifacts_of_another_model_or_without_sidecar_are_refused(pushable, tmp_path):
    path = _artifact(tmp_path, pushable)
    other = tmp_path / "other"
    other.mkdir()
    same_name = _artifact(other, pushable)
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(b"x")
    for artifacts, reason in (
        ([path, same_name], r"are both called tiny\.tflite: rename one"),
        ([bare], r"bare\.onnx has no bare\.onnx\.json beside it"),
        ([tmp_path / "none.tflite"], r"no such file: .*none\.tflite"),
        ([pushable.state_file], r"state\.npz is no \.tflite, \.onnx or \.ncnn\.param file"),
    ):
        with pytest.raises(CCTExportError, match=reason):
            api.push(ID, run=pushable.path, artifacts=artifacts, dry_run=True)
    assert (
        len(api.push(ID, run=pushable.path, artifacts=path, dry_run=True).files) == len(PUSHED) + 2
    )
    pushable.best_file.write_bytes(b"trained on")
    with pytest.raises(
        CCTExportError, match=r"was exported from runs/cct, which is not .*best\.ke"
    ):
        api.push(ID, run=pushable.path, artifacts=[path], dry_run=True)
    path.write_bytes(b"changed")
    with pytest.raises(CCTExportError, match="beside it that belongs to it"):
        api.push(ID, run=pushable.path, artifacts=[path], dry_run=True)


@pytest.mark.parametrize("license", ["Apache 2.0", "mit\ntags: [x]", ""])
def test_a_license_that_is_no_identifier_is_refused(pushable, license):
    with pytest.raises(OutputError, match="write the identifier of the Hub"):
        api.push(ID, run=pushable.path, license=license, dry_run=True)
