"""Training on one device with JAX: rows in place of images, several steps in a dispatch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.data.dataset import ArraySplit
from cct_export.training import device_jax
from cct_export.training.batches import Batches, Subset
from cct_export.training.callbacks import ProgressReport, StopOnNaN, TrainingDiverged
from cct_export.training.device_jax import DeviceBatches, JaxDevice, dispatch_steps, keep_compiled
from cct_export.training.run import RunDirectory

# Trains on batches from the host, on the device in dispatches of three steps, and resumes a copy of
# the latter as of the first epoch.
SCRIPT = """
import sys
from pathlib import Path
from tiny_run import TINY, copying_after_first_epoch, gray_images
from cct_export.specs import TrainSpec
from cct_export.training.device_jax import JaxDevice
from cct_export.training.distribution_base import Distribution
from cct_export.training.loop import TrainingJob, train

here = Path(sys.argv[1])
recipe = TrainSpec(
    gray_images(here / "gray.npz"), epochs=2, batch=8, learning_rate=3e-3, optimizer="muon",
    ema=0.9, clip_norm=1.0, cutmix=0.5, mix_probability=0.5,
)
seen = []
def progress(*step):
    seen.append(step[:3])
    copy(*step)

copy = copying_after_first_epoch(here / "device", here / "resumed")
train(TrainingJob(TINY, recipe, here / "host"), distribution=Distribution())
train(TrainingJob(TINY, recipe, here / "device"), progress, JaxDevice(3))
train(TrainingJob(TINY, recipe, here / "resumed", resume=True), distribution=JaxDevice(3))
print(seen)
"""


def _batches(kind=Batches, *arguments, total=23, size=5, seed=0, epoch=0):
    pixels = np.arange(total, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    split = ArraySplit(pixels, np.arange(total) % 3)
    return kind(*arguments, Subset(split, np.arange(1, total), 3), size, seed, epoch)


def _rows(batches):
    return [row for index in range(len(batches)) for row in batches[index][0]["rows"]]


@given(steps=st.integers(0, 500), most=st.integers(1, 100))
def test_a_dispatch_takes_about_as_many_steps_as_asked_and_leaves_few(steps, most):
    count = dispatch_steps(steps, most)
    asked = max(1, min(most, steps))
    assert asked / 4 <= count <= asked
    assert all(steps % count <= steps % other for other in range(-(-asked // 4), asked + 1))


def test_the_steps_of_an_epoch_of_cifar10_leave_none_over():
    assert 351 % dispatch_steps(351, 85) == 0


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("total", [4, 21, 23])
def test_rows_are_those_of_the_images_that_the_host_would_copy(total, seed):
    host = _batches(total=total, seed=seed)
    device = _batches(DeviceBatches, None, None, 3, total=total, seed=seed)
    for _ in range(2):
        images = [host[step][0]["image"][:, 0, 0, 0] for step in range(len(host))]
        assert list(map(list, _rows(device))) == list(map(list, images))
        host.on_epoch_end()
        device.on_epoch_end()


def test_progress_and_nan_are_told_by_step(tmp_path):
    batches = _batches(DeviceBatches, None, None, 3)
    assert [len(batches[index][0]["rows"]) for index in range(len(batches))] == [2, 2, 1]
    seen = []
    report = ProgressReport(lambda *step: seen.append(step[:3]), batches)
    nan = StopOnNaN(RunDirectory(tmp_path), [], batches)
    for callback in (report, nan):
        callback.on_epoch_begin(0)
    for index in range(len(batches)):
        report.on_train_batch_end(index, {"loss": 1.0})
    assert seen == [(1, 2, 5), (1, 4, 5), (1, 5, 5)]
    with pytest.raises(TrainingDiverged, match=r"loss became nan in epoch 1, step 4: "):
        nan.on_train_batch_end(1, {"loss": np.nan})


class _Device:
    def __init__(self, platform, **memory):
        self.platform = platform
        self.memory_stats = lambda: memory or None


@pytest.mark.parametrize(
    ("device", "is_on_device"),
    [
        (_Device("gpu", bytes_limit=300, bytes_in_use=100), True),
        (_Device("gpu", bytes_limit=300, bytes_in_use=150), False),
        (_Device("cpu"), True),
    ],
    ids=["room", "no room", "cpu"],
)
def test_images_are_on_the_device_if_they_take_half_of_its_free_memory_at_most(
    monkeypatch, device, is_on_device
):
    pytest.importorskip("jax", reason="jax is not installed")
    monkeypatch.setattr(device_jax, "_device", lambda: device)
    monkeypatch.setattr(device_jax, "keep_compiled", lambda: None)
    made = _batches(JaxDevice().batches)  # 23 images of 4 bytes
    assert isinstance(made, DeviceBatches) == is_on_device
    if device.platform == "cpu":
        assert [len(made[index][0]["rows"]) for index in range(len(made))] == [1] * 5


@pytest.fixture
def jax_config(monkeypatch):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield jax.config
    jax.config.update("jax_compilation_cache_dir", before)


def test_what_xla_compiles_is_kept_in_the_cache_of_this_program(tmp_path, monkeypatch, jax_config):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled()
    assert jax_config.jax_compilation_cache_dir == str(tmp_path / "cct-export/jax")


def test_a_folder_that_the_user_named_stays(tmp_path, monkeypatch, jax_config):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax_config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    keep_compiled()
    assert jax_config.jax_compilation_cache_dir == str(tmp_path / "mine")


def test_a_folder_that_cannot_be_made_or_that_others_write_is_not_used(
    tmp_path, monkeypatch, jax_config
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cct-export/jax").mkdir(parents=True)
    (tmp_path / "cct-export/jax").chmod(0o777)
    keep_compiled()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled()
    assert jax_config.jax_compilation_cache_dir is None


@pytest.mark.slow
def test_several_steps_in_a_dispatch_train_as_steps_from_the_host_and_resume_bit_by_bit(
    tmp_path, same_state, rows
):
    pytest.importorskip("jax", reason="jax is not installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    steps = [3, 6, 7, 0]
    assert done.stdout.splitlines()[-1] == str([(e, s, 7) for e in (1, 2) for s in steps])
    host, device, resumed = (RunDirectory(tmp_path / n) for n in ("host", "device", "resumed"))
    same_state(resumed, device)
    for one, other in zip(rows(host), rows(device), strict=True):
        for column, value in one.items():
            assert float(other[column]) == pytest.approx(float(value), abs=1e-4), column
    assert any((tmp_path / "cache/cct-export/jax").glob("*train_step*"))
