"""Training runs of a tiny model, and a stand-in of the Hugging Face Hub."""

import csv
import shutil
from typing import NamedTuple

import numpy as np
import pytest
from hub_stand_in import TOKEN, StandIn
from tiny_run import TINY, copying_after_first_epoch, gray_images, train_tiny

from cct_export.training.run import RunDirectory


class Finished(NamedTuple):
    """A finished run: its directory, result, data, and what it reported as progress."""

    run: RunDirectory
    trained: object
    data: str
    progress: list


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of two epochs; do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    data = gray_images(folder / "my data.npz")
    progress = []
    trained = train_tiny(folder / "run", data, progress=lambda *step: progress.append(step), seed=5)
    return Finished(RunDirectory(folder / "run"), trained, data, progress)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that may be changed."""
    shutil.copytree(finished.run.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.fixture(scope="session")
def rows():
    """Returns the rows of a run's ``metrics.csv``."""

    def read(run):
        with run.metrics_file.open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory):
    """A ``.keras`` file of the tiny model for three classes, with random weights."""
    from dataclasses import replace

    from cct_export.model import checkpoint
    from cct_export.model.cct import CCT

    path = tmp_path_factory.mktemp("checkpoint") / "tiny.keras"
    checkpoint.save(CCT(replace(TINY, classes=3)), path)
    return path


@pytest.fixture(scope="session")
def same_state():
    """Asserts that two runs have the same metrics and, bit by bit, the same training state."""

    def check(run, other):
        assert run.metrics_file.read_text() == other.metrics_file.read_text()
        with np.load(run.state_file) as one, np.load(other.state_file) as two:
            assert sorted(one) == sorted(two)
            for name in one:
                assert np.array_equal(one[name], two[name]), name

    return check


@pytest.fixture
def resumed():
    """Trains a run, and a copy of it as of the first epoch that is resumed; returns both."""

    def train(folder, data, before_resume=lambda: None, **recipe):
        whole, broken = folder / "whole", folder / "broken"
        train_tiny(whole, data, progress=copying_after_first_epoch(whole, broken), **recipe)
        assert len((broken / "metrics.csv").read_text().splitlines()) == 2
        before_resume()
        train_tiny(broken, data, resume=True, **recipe)
        return RunDirectory(whole), RunDirectory(broken)

    return train


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in of the Hub on loopback, to which huggingface_hub in this process is pointed."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from huggingface_hub import close_session, constants

    stand_in = StandIn()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, stand_in.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
    for name, value in (("HF_TOKEN", TOKEN), ("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    close_session()
    yield stand_in
    close_session()
    stand_in.stop()


@pytest.fixture
def pushable(copied):
    """A finished run with calibration statistics, as ``cct-export train`` leaves it."""
    np.savez(copied.calibration_file, histogram=np.arange(9))
    return copied


@pytest.fixture
def push(in_process, hub, pushable):
    """Runs ``cct-export push`` of the finished run to the stand-in."""

    def run(*arguments, hub_id="somebody/tiny-cct"):
        return in_process("export", "push", hub_id, "--run", pushable.path, *arguments)

    return run
