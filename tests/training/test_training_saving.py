"""Files of an epoch: written beside the next one, whole after any end, and only where they fit."""

import threading
import time
from collections import namedtuple

import pytest
from tiny_run import gray_images, train_tiny

from cct_export.errors import OutputError
from cct_export.training import saving
from cct_export.training.run import RunDirectory
from cct_export.training.saving import BackgroundWriter

Usage = namedtuple("Usage", "free")


@pytest.fixture
def data(tmp_path):
    return gray_images(tmp_path / "gray.npz", 20)


@pytest.fixture
def write_state(monkeypatch):
    """Calls a function before every state that is written."""

    def before(action):
        write = RunDirectory.save_state

        def save_state(run, variables, metrics):
            action(len(metrics))
            write(run, variables, metrics)

        monkeypatch.setattr(RunDirectory, "save_state", save_state)

    return before


def _fail(epoch):
    if epoch == 1:
        raise OutputError("cannot write state.npz: No space left on device")


def test_the_state_is_written_while_the_next_epoch_is_trained(tmp_path, data, write_state):
    second_epoch_began = threading.Event()
    waited = []

    def before(epoch):
        if epoch == 1:
            waited.append(second_epoch_began.wait(timeout=60))

    def progress(epoch, step, steps, metrics):
        if (epoch, step) == (2, 1):
            second_epoch_began.set()

    write_state(before)
    train_tiny(tmp_path / "run", data, progress=progress)
    assert waited == [True]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_state_that_cannot_be_written_ends_the_run_within_the_next_epoch(
    tmp_path, data, write_state, epochs
):
    write_state(_fail)
    seen = []
    with pytest.raises(OutputError, match="No space left"):
        train_tiny(tmp_path / "run", data, epochs=epochs, progress=lambda *step: seen.append(step))
    assert max(epoch for epoch, *_ in seen) <= 2
    assert (2, 0) not in {(epoch, step) for epoch, step, *_ in seen}
    assert not (tmp_path / "run/state.npz").exists()


def test_an_interrupted_run_has_written_the_epoch_before(tmp_path, data, write_state):
    write_state(lambda epoch: time.sleep(0.5))

    def interrupt(epoch, step, steps, metrics):
        if (epoch, step) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "run", data, progress=interrupt)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "run.json", "best.keras", "state.npz", "metrics.csv", "curves.png", ".lock",
    }  # fmt: skip
    resumed = train_tiny(tmp_path / "run", data, resume=True)
    assert resumed.epochs == 2


def test_after_another_error_what_could_not_be_written_is_logged(caplog):
    with pytest.raises(ValueError, match="other"), BackgroundWriter() as writer:
        writer.submit(lambda: _fail(1))
        raise ValueError("other")
    assert caplog.messages == ["cannot write state.npz: No space left on device"]


def _state_bytes(run):
    return run.state_file.stat().st_size + run.best_file.stat().st_size


def test_a_folder_without_room_for_two_states_is_refused(
    tmp_path, data, finished, copied, monkeypatch
):
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: Usage(_state_bytes(finished.run)))
    message = r"cannot write .*run: state and weights need 1\.\d MB, and 0\.\d MB are free: make"
    with pytest.raises(OutputError, match=message):
        train_tiny(tmp_path / "new" / "run", data)
    assert {path.name for path in (tmp_path / "new/run").iterdir()} == {"run.json", ".lock"}
    before = copied.state_file.read_bytes()
    with pytest.raises(OutputError, match="MB are free: make room"):
        train_tiny(copied.path, finished.data, resume=True, epochs=3, seed=5)
    assert copied.state_file.read_bytes() == before


def test_a_resumed_run_needs_room_for_one_more_state(copied, finished, monkeypatch):
    room = _state_bytes(copied) + saving._SMALL_FILES_BYTES + 100_000
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: Usage(room))
    train_tiny(copied.path, finished.data, resume=True, epochs=3, seed=5)
    assert len(copied.metrics_file.read_text().splitlines()) == 4


@pytest.fixture
def small_disk(mounted):
    """A file system of 512 kB."""
    return mounted(512)


def test_a_small_disk_is_refused_before_the_first_step(small_disk, data):
    seen = []
    with pytest.raises(OutputError, match=r"need 1\.\d MB, and 0\.5 MB are free: make room"):
        train_tiny(small_disk / "run", data, progress=lambda *step: seen.append(step))
    assert not seen
