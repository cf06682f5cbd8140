"""The folder of a run: whose it is, and what must be the same when the run goes on."""

import json

import numpy as np
import pytest
from tiny_run import grey_images, train_tiny

from cct_export.errors import CCTExportError, InvalidModel


def test_other_data_under_the_same_name_is_noticed_on_resume(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1)
    before = (tmp_path / "run/state.npz").read_bytes()
    for change, said in (
        ({"seed": 1}, "other training content, test content"),
        ({"count": 63}, "other training images, training labels, training content"),
    ):
        grey_images(tmp_path / "d.npz", **change)
        with pytest.raises(CCTExportError, match=f"d.npz is not what .*run was begun with: {said}"):
            train_tiny(tmp_path / "run", data, epochs=2, resume=True)
    assert (tmp_path / "run/state.npz").read_bytes() == before
    grey_images(tmp_path / "d.npz")
    assert train_tiny(tmp_path / "run", data, epochs=2, resume=True).epochs == 2


def test_a_run_of_another_backend_is_refused_and_told_how_to_go_on(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["backend"] == "tensorflow"
    (tmp_path / "run/run.json").write_text(json.dumps(record | {"backend": "jax"}))
    with pytest.raises(CCTExportError, match=r"was begun on jax.*resume with KERAS_BACKEND=jax"):
        train_tiny(tmp_path / "run", data, epochs=2, resume=True)


def test_the_record_of_an_older_version_is_gone_on_with(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1)
    record = json.loads((tmp_path / "run/run.json").read_text())
    for entry in ("data", "backend"):
        del record[entry]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    assert train_tiny(tmp_path / "run", data, epochs=2, resume=True).epochs == 2


def test_a_folder_that_another_process_trains_into_is_refused(tmp_path):
    data = grey_images(tmp_path / "d.npz")

    def second(epoch, step, steps, metrics):
        with pytest.raises(CCTExportError, match=r"another process trains into .*run: wait"):
            train_tiny(tmp_path / "run", data, resume=True)
        refused.append(epoch)

    refused = []
    train_tiny(tmp_path / "run", data, epochs=1, progress=second)
    assert refused


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1)
    left = tmp_path / "run/.tmp-abc.npz"
    left.write_bytes(b"half")
    train_tiny(tmp_path / "run", data, epochs=2, resume=True)
    assert not left.exists()


def test_what_others_have_in_the_folder_stays_there(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    (tmp_path / "run/.tmp-mine.npz").mkdir(parents=True)
    (tmp_path / "run/.tmp-letter.txt").write_text("mine")
    train_tiny(tmp_path / "run", data, epochs=1)
    train_tiny(tmp_path / "run", data, epochs=2, resume=True)
    assert (tmp_path / "run/.tmp-mine.npz").is_dir()
    assert (tmp_path / "run/.tmp-letter.txt").read_text() == "mine"


def test_where_nothing_can_be_locked_a_run_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    import errno
    import fcntl

    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    train_tiny(tmp_path / "run", grey_images(tmp_path / "d.npz"), epochs=1)
    assert "run cannot be locked (No locks available)" in caplog.text


def test_what_goes_wrong_meanwhile_is_not_taken_for_another_process(tmp_path):
    def progress(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with pytest.raises(BlockingIOError):
        train_tiny(tmp_path / "run", grey_images(tmp_path / "d.npz"), progress=progress)


def test_a_state_without_its_record_is_neither_begun_over_nor_gone_on_with(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1)
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(CCTExportError, match="already holds a run"):
        train_tiny(tmp_path / "run", data, epochs=2, seed=9)
    with pytest.raises(InvalidModel, match=r"no run\.json in it"):
        train_tiny(tmp_path / "run", data, epochs=2, resume=True)


def test_the_state_of_another_version_is_told_as_such(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1)
    state = tmp_path / "run/state.npz"
    with np.load(state) as kept:
        fewer = {name: kept[name] for name in kept if name != "model_3"}
    np.savez(state, **fewer)
    with pytest.raises(InvalidModel, match=r"state\.npz is another version's \(model: \d+ variab"):
        train_tiny(tmp_path / "run", data, epochs=2, resume=True)
