"""``cct-export push`` with the real client, against a stand-in of the Hub on loopback."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from hub_stand_in import DROP, HANG, TOKEN, StandIn

from cct_export import api
from cct_export.errors import CCTExportError, MissingDependency, OutputError
from cct_export.records import Artifact, sidecar
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training.hub import client as hub_client

library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

ID = "somebody/tiny-cct"
SENT = {
    "README.md", "best.keras", "run.json", "metrics.csv", "curves.png", "model.png",
    "calibration.npz",
}  # fmt: skip
TINY = ModelSpec(
    name="tiny", image_size=8, channels=1, filters=(4, 8), layers=1, heads=1, head_dim=4,
    mlp_units=(8, 8), classes=3, labels=("red", "green", "blue"),
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run directory as a finished run leaves it, with random weights; do not change it."""
    from cct_export.model import checkpoint
    from cct_export.model.cct import CCT
    from cct_export.training import card, curves
    from cct_export.training.run import RunDirectory

    run = RunDirectory(tmp_path_factory.mktemp("pushed") / "run")
    run.begin(TINY, TrainSpec("./my data"), resume=False)
    checkpoint.save(CCT(TINY), run.best_file)
    keys = ("loss", "accuracy", "val_loss", "val_accuracy", "val_top5")
    history = [{"epoch": epoch} | dict.fromkeys(keys, 0.5) for epoch in (1, 2)]
    run.write_metrics(history)
    curves.plot(history, run.curves_file)
    np.savez(run.calibration_file, histogram=np.arange(9))
    run.state_file.write_bytes(b"optimizer" * 1000)
    run.add_to_record(
        test={"top1": 0.8312, "top5": 0.99, "samples": 5000}, environment={"backend": "jax"}
    )
    card.write(run, history)
    return run.path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of ``finished`` that may be changed."""
    copy = tmp_path / "run"
    copy.mkdir()
    for path in finished.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def hub():
    stand_in = StandIn()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def surroundings(hub, tmp_path):
    """The environment of a process that takes the stand-in for the Hub."""
    return {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip


@pytest.fixture
def push(cct_export, surroundings, finished):
    """Runs ``cct-export push``, by default of ``finished``, in a process of its own."""

    def pushed(*arguments, hub_id=ID, run=finished, **environment):
        return cct_export("push", hub_id, "--run", run, *arguments, **(surroundings | environment))

    return pushed


@pytest.fixture
def here(hub, monkeypatch, surroundings):
    """Points huggingface_hub in this process to the stand-in."""
    monkeypatch.setattr(library.constants, "ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, surroundings[name])
    library.utils.close_session()
    yield
    library.utils.close_session()


def _artifact(folder, made_of, name="tiny.tflite"):
    """Writes a file and its sidecar, as an export of ``made_of`` would be called."""
    path = folder / name
    path.write_bytes(b"TFL3" + os.urandom(2000))
    artifact = Artifact(
        path=path, format="tflite", scheme="int8", io="float32", source="runs/cct",
        source_sha256=hashlib.sha256((made_of / "best.keras").read_bytes()).hexdigest(),
        image_shape=(8, 8, 1), batch=1, classes=3, labels=TINY.labels, calibration="",
        versions={}, size_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip
    golden = sidecar.Golden(np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 3), np.float32), "a set")
    sidecar.write(artifact, golden)
    return path


@pytest.mark.parametrize("large", [(), (".keras", ".png", ".npz")], ids=["regular", "lfs"])
def test_every_file_but_the_state_arrives_byte_by_byte(push, hub, finished, large):
    hub.large = large
    ended = push()
    assert ended.returncode == 0, ended.stderr
    ((message, files),) = hub.repositories[ID].commits
    assert set(files) == SENT
    for name in SENT - {"README.md"}:
        assert files[name] == (finished / name).read_bytes(), name
    assert bool(hub.objects) == bool(large)
    assert message == "Add tiny, top-1 83.12% on 5,000 test images"
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"{hub.url}/{ID}/commit/")
    assert "best.keras" not in ended.stderr  # no bars


def test_the_card_there_names_its_repository_and_license_and_the_one_here_stays(
    push, hub, finished
):
    before = (finished / "README.md").read_bytes()
    ended = push("--license", "apache-2.0")
    assert ended.returncode == 0, ended.stderr
    text = hub.repositories[ID].branches["main"]["README.md"].decode()
    assert f"`hf:{ID}` takes the place of the dot" in text
    card, local = library.ModelCard(text), library.ModelCard(before.decode())
    assert (card.data.license, local.data.license) == ("apache-2.0", None)
    assert card.data.to_dict() == local.data.to_dict() | {"license": "apache-2.0"}
    assert card.text == local.text.replace("hf:OWNER/NAME", f"hf:{ID}")
    assert (finished / "README.md").read_bytes() == before


def test_a_license_in_the_card_is_replaced_and_a_card_without_a_head_gets_one(push, hub, run):
    (run / "README.md").write_text("---\nlicense: mit\ntags:\n- a\n---\nlicense: in the text\n")
    assert push("--license", "apache-2.0", run=run).returncode == 0
    text = hub.repositories[ID].branches["main"]["README.md"].decode()
    assert text == '---\nlicense: "apache-2.0"\ntags:\n- a\n---\nlicense: in the text\n'
    (run / "README.md").write_text("Mine.\n")
    assert push("--license", "mit", run=run).returncode == 0
    text = hub.repositories[ID].branches["main"]["README.md"].decode()
    assert library.ModelCard(text).data.license == "mit"
    assert text.endswith("\nMine.\n")


def test_a_repository_that_is_there_gets_another_commit(push, hub, run):
    assert push().returncode == 0
    (run / "metrics.csv").write_text("epoch\n1\n")
    ended = push(run=run)
    assert ended.returncode == 0, ended.stderr
    assert len(hub.repositories[ID].commits) == 2
    assert hub.repositories[ID].branches["main"]["metrics.csv"] == b"epoch\n1\n"


def test_a_branch_is_made_and_main_stays_as_it_is(push, hub):
    ended = push("--revision", "next")
    assert ended.returncode == 0, ended.stderr
    assert set(hub.repositories[ID].branches["next"]) == SENT | {".gitattributes"}
    assert set(hub.repositories[ID].branches["main"]) == {".gitattributes"}
    assert push("--revision", "next", "--license", "mit").returncode == 0
    assert len(hub.repositories[ID].commits) == 2


def test_private_makes_it_private_and_nothing_private_gets_into_a_public_one(push, hub):
    assert push("--private").returncode == 0
    assert hub.repositories[ID].private
    assert push("--private").returncode == 0
    hub.repositories[ID].private = False
    ended = push("--private")
    assert ended.returncode == 1
    assert "somebody/tiny-cct is there already, and public" in ended.stderr
    assert len(hub.repositories[ID].commits) == 2


def test_artifacts_go_along_with_their_sidecars(push, hub, tmp_path, finished):
    path = _artifact(tmp_path, finished)
    ended = push("--artifact", path, "--json", "-")
    assert ended.returncode == 0, ended.stderr
    files = hub.repositories[ID].branches["main"]
    for one in (path, sidecar.path_of(path)):
        assert files[one.name] == one.read_bytes()
    assert "tiny.tflite.json holds 2 images, of a set" in ended.stderr
    record = json.loads(ended.stdout)["pushed"]
    assert record["url"] == f"{hub.url}/{ID}/commit/{record['commit']}"
    assert (record["repository"], record["revision"], record["private"]) == (ID, "main", False)
    assert {file["name"] for file in record["files"]} == SENT | {path.name, f"{path.name}.json"}
    for file in record["files"]:
        content = files[file["name"]]
        assert file["size_bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(push, hub, finished):
    ended = push("--dry-run", "--private", HF_TOKEN="")
    assert ended.returncode == 0, ended.stderr
    assert hub.requests == []
    listed = [line.split() for line in ended.stdout.splitlines()]
    assert {words[1] for words in listed[:-1]} == SENT
    assert ended.stdout.splitlines()[-1].startswith("7 files, ")
    assert "would be sent to the private repository somebody/tiny-cct, main" in ended.stdout
    record = json.loads(push("--dry-run", "--json", "-").stdout)["pushed"]
    assert (record["commit"], record["url"]) == (None, None)


def test_what_was_pushed_is_a_model_with_its_calibration_record(push, surroundings, finished):
    assert push().returncode == 0
    code = (
        "import sys; from cct_export.importers import load_model\n"
        "loaded = load_model(sys.argv[1])\n"
        "print(loaded.sha256, loaded.model.name, loaded.calibration_file.read_bytes() == "
        "open(sys.argv[2], 'rb').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"hf:{ID}", finished / "calibration.npz"],
        env=os.environ | surroundings, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    checksum = hashlib.sha256((finished / "best.keras").read_bytes()).hexdigest()
    assert done.stdout.split() == [checksum, "tiny", "True"]


@pytest.fixture
def refused(push, hub):
    """Runs a push that must end in one line, with one attempt and no commit; returns the line."""

    def run(*arguments, code=1, **how):
        ended = push(*arguments, **how)
        assert ended.returncode == code, ended.stderr
        assert ended.stdout == ""
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert "this is a bug" not in line and TOKEN not in ended.stderr
        assert all(note.startswith(("error: ", "run/")) for note in ended.stderr.splitlines())
        assert not any(repository.commits for repository in hub.repositories.values())
        posted = [request for request in hub.requests if request[0] in ("POST", "PUT")]
        assert len(posted) == len(set(posted)), "tried again"
        return line

    return run


def test_without_a_token_nothing_is_asked(refused, hub):
    assert "no token for the Hugging Face Hub: log in with" in refused(HF_TOKEN="")
    assert hub.requests == []


def test_a_token_that_the_hub_does_not_take_is_said(refused):
    assert "the Hub does not take the token (401)" in refused(HF_TOKEN="hf_another")


@pytest.mark.parametrize("token", ["hf_secret\tpart", "hf_ünder", "hf_two words"])
def test_a_token_that_is_none_is_refused_and_not_shown(refused, hub, token):
    line = refused(HF_TOKEN=token)
    assert "holds characters that no token has" in line
    assert "hf_" not in line
    assert hub.requests == []


@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_token_that_may_not_write_is_said(refused, hub, where):
    hub.answers[where] = (403, {"error": "You don't have the rights to create a model"})
    line = refused()
    assert "the token may not write to somebody/tiny-cct (403)" in line
    assert "You don't have the rights" in line


@pytest.mark.parametrize(
    ("where", "status"),
    [("/api/repos/create", 429), ("/preupload/", 408), ("/preupload/", 503), ("/commit/", 500)],
)
def test_a_hub_in_trouble_is_asked_once(refused, hub, where, status):
    hub.answers[where] = (status, b"<html>busy</html>")
    assert f"127.0.0.1 answered {status} (" in refused()


@pytest.mark.parametrize("where", ["/objects/batch", "/objects/"])
def test_a_large_file_that_is_not_taken_ends_the_push(refused, hub, where):
    hub.large = (".keras", ".npz")
    hub.answers[where] = (503, b"")
    assert "127.0.0.1 answered 503" in refused()


def test_metadata_that_the_hub_refuses_is_said_in_its_words(refused):
    line = refused("--license", "no-such-license")
    assert '"license" must be one of [apache-2.0, mit]' in line


@pytest.mark.parametrize(
    "where", ["/api/repos/create", "/validate-yaml", "/preupload/", "/commit/"]
)
def test_something_else_than_the_hub_is_told(refused, hub, where):
    hub.answers[where] = (200, b"<html>Welcome to the wireless of the hotel</html>")
    assert "what answered is not the Hugging Face Hub" in refused()


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("/api/repos/create", "what answered is not the Hugging Face Hub"),
        ("/preupload/", "could not send to somebody/tiny-cct: "),
        ("/commit/", "what answered is not the Hugging Face Hub"),
    ],
)
def test_an_answer_of_another_kind_is_told(refused, hub, where, reason):
    hub.answers[where] = (200, {"welcome": True})
    assert reason in refused()


def test_a_revision_that_is_no_branch_is_refused(refused):
    assert "the Hub refused somebody/tiny-cct (404)" in refused("--revision", "refs/pr/7")


def test_nobody_there_is_said_at_once(refused):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        started = time.monotonic()
        line = refused(HF_ENDPOINT=f"http://127.0.0.1:{port}")
    assert "127.0.0.1 could not be reached: " in line
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_connection_that_breaks_is_said_and_not_taken_up_again(refused, hub, where):
    hub.answers[where] = DROP
    assert "the connection to 127.0.0.1 broke: " in refused()


def test_offline_mode_is_said(refused, hub):
    assert "offline mode is enabled" in refused(HF_HUB_OFFLINE="1")
    assert hub.requests == []


@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/", "/objects/", "/commit/"])
def test_a_hub_that_does_not_answer_is_not_waited_for(here, hub, finished, monkeypatch, where):
    monkeypatch.setattr(hub_client, "ANSWER_S", 0.5)
    hub.large = (".keras",)
    hub.answers[where] = HANG
    with pytest.raises(OutputError, match=r"127\.0\.0\.1 did not answer within 0\.5 s: look there"):
        api.push(ID, run=finished)
    assert sum(where in path for _, path in hub.requests) == 1
    assert not any(repository.commits for repository in hub.repositories.values())


@pytest.mark.parametrize("fails", [False, True])
def test_the_librarys_client_is_afterwards_what_it_was(here, hub, finished, fails):
    client = library.utils.get_session()
    before = client.timeout
    bars = library.utils.are_progress_bars_disabled()
    if fails:
        hub.answers["/commit/"] = (500, b"")
        with pytest.raises(OutputError):
            api.push(ID, run=finished)
    else:
        assert api.push(ID, run=str(finished), artifacts=[]).url.startswith(hub.url)
    assert library.utils.get_session() is client
    assert client.timeout == before
    assert "send" not in vars(client)
    assert library.utils.are_progress_bars_disabled() == bars


@pytest.mark.parametrize(
    "hub_id", ["a b/c", "datasets/a/b", "a--b", "-x", "a/b.git", "", "../b", "alone"]
)
def test_a_name_that_no_repository_can_have_is_refused(in_process, finished, hub_id):
    ended = in_process("export", "push", "--run", finished, "--", hub_id)
    assert ended.code == 1, ended.err
    (line,) = ended.err.splitlines()
    assert f"error: {hub_id!r} cannot be a repository of the Hub, write OWNER/NAME: " in line


def test_the_library_that_is_not_here_is_named_with_its_extra(in_process, monkeypatch, finished):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    ended = in_process("export", "push", ID, "--run", finished)
    assert ended.code == MissingDependency.exit_code
    assert "huggingface_hub is not installed: pip install 'cct-export[hub]'" in ended.err


def _change(record, **entries):
    record.write_text(json.dumps(json.loads(record.read_text()) | entries))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda run: (run / "run.json").unlink(), r"is not a run directory: no run\.json in it"),
        (lambda run: (run / "run.json").write_text("{"), "is not the record of a training run"),
        (lambda run: (run / "run.json").write_text("[1]"), "is not the record of a training run"),
        (lambda run: (run / "run.json").write_text('{"model": 1}'), "is not the record of"),
        (lambda run: _change(run / "run.json", test={"top1": "x"}), "is not the record of"),
        (lambda run: (run / "best.keras").unlink(), r"has no best\.keras, without which"),
        (lambda run: (run / "README.md").unlink(), r"has no README\.md, without which"),
    ],
)
def test_what_is_no_run_is_not_sent(run, harm, reason):
    harm(run)
    with pytest.raises(CCTExportError, match=reason) as error:
        api.push(ID, run=run, dry_run=True)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)


def test_a_run_that_is_not_finished_is_not_sent(run):
    record = json.loads((run / "run.json").read_text())
    del record["test"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(CCTExportError, match="is not finished: go on with `cct-export train --res"):
        api.push(ID, run=run, dry_run=True)


def test_files_that_an_older_run_did_not_write_are_named_and_left_out(run):
    (run / "model.png").unlink()
    (run / "calibration.npz").unlink()
    found = api.push(ID, run=run, dry_run=True)
    assert {file.name for file in found.files} == SENT - {"model.png", "calibration.npz"}
    assert found.notes == (f"{run} has no model.png, calibration.npz",)


def test_a_path_of_this_machine_in_the_record_is_said(run):
    record = json.loads((run / "run.json").read_text())
    start = {"source": "/home/me/secret.keras", "sha256": "0" * 64}
    _change(run / "run.json", train=record["train"] | {"data": "/home/me/faces"}, start=start)
    found = api.push(ID, run=run, dry_run=True)
    assert found.notes == tuple(
        f"README.md and run.json name /home/me/{name}, where it lies here"
        for name in ("faces", "secret.keras")
    )


def test_only_artifacts_of_the_run_are_sent(run, tmp_path):
    path = _artifact(tmp_path, run)
    other = tmp_path / "other"
    other.mkdir()
    again = _artifact(other, run)
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(b"x")
    for artifacts, reason in (
        ([path, again], r"are both called tiny\.tflite: rename one"),
        ([bare], r"bare\.onnx has no bare\.onnx\.json beside it"),
        ([tmp_path / "none.tflite"], r"is no \.tflite or \.onnx file that is here"),
        ([run / "state.npz"], r"is no \.tflite or \.onnx file that is here"),
    ):
        with pytest.raises(CCTExportError, match=reason):
            api.push(ID, run=run, artifacts=artifacts, dry_run=True)
    assert len(api.push(ID, run=run, artifacts=path, dry_run=True).files) == len(SENT) + 2
    (run / "best.keras").write_bytes(b"trained on")
    with pytest.raises(CCTExportError, match=r"was made of runs/cct, which is not .*best\.keras"):
        api.push(ID, run=run, artifacts=[path], dry_run=True)
    path.write_bytes(b"changed")
    with pytest.raises(CCTExportError, match="beside it that belongs to it"):
        api.push(ID, run=run, artifacts=[path], dry_run=True)


@pytest.mark.parametrize("license", ["Apache 2.0", "mit\ntags: [x]", ""])
def test_a_license_that_is_no_identifier_is_refused(run, license):
    with pytest.raises(OutputError, match="the Hub has identifiers for them"):
        api.push(ID, run=run, license=license, dry_run=True)
