"""Images that do not fit in memory: training gives the same result, also resumed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import train_tiny

from cct_export import data
from cct_export.data.recompressed import recompressed
from cct_export.errors import InvalidData
from cct_export.model import checkpoint
from cct_export.training import batches
from cct_export.training.run import RunDirectory

# Trains a run, and resumes a copy of it as of the first epoch.
SCRIPT = """
import sys
from pathlib import Path
from tiny_run import copying_after_first_epoch, train_tiny
from cct_export.training import batches

data, folder, batches._MEMORY_BYTES = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
broken = folder.with_name(f"{folder.name}-broken")

try:
    train_tiny(folder, data, ema=0.9, progress=copying_after_first_epoch(folder, broken))
    train_tiny(broken, data, ema=0.9, resume=True)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def photos(tmp_path):
    """Gray images whose class is their brightness, in folders."""
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 6)):
        for shade, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 100, (8, 8)) + 120 * shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    return tmp_path / "photos"


def _corrupt(photos):
    path = photos / "train/light/11.png"
    path.write_bytes(path.read_bytes()[:60])


def test_a_run_resumed_with_streamed_images_has_the_same_state_as_one_in_memory(
    photos, tmp_path, monkeypatch, resumed, same_state
):
    def stream():
        monkeypatch.setattr(batches, "_MEMORY_BYTES", 0)

    same_state(*resumed(tmp_path, str(photos), ema=0.9, before_resume=stream))


def test_test_images_are_compressed_as_jpeg_while_they_are_read(photos, tmp_path):
    trained = train_tiny(tmp_path / "run", str(photos), epochs=1)
    model = checkpoint.load(trained.best)
    read = data.read(str(photos), (8, 8, 1)).test
    images = np.stack([recompressed(image) for image in read.images(range(12))])
    logits = np.asarray(model(images.astype(np.float32), training=False))
    assert trained.jpeg_top1 == pytest.approx((logits.argmax(axis=1) == read.labels).mean())


def test_an_image_found_corrupt_while_training_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_MEMORY_BYTES", 0)
    _corrupt(photos)
    with pytest.raises(InvalidData, match=r"light/11\.png is not a readable image.*--skip-corrupt"):
        train_tiny(tmp_path / "run", str(photos))


def _train_on_jax(photos, folder, memory=0):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(photos), str(folder), str(memory)],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        cwd=Path(__file__).parent,
    )


@pytest.mark.slow
def test_on_jax_streamed_images_train_to_the_same_result(photos, tmp_path, same_state):
    for name, memory in (("memory", 10**9), ("streamed", 0)):
        done = _train_on_jax(photos, tmp_path / name, memory)
        assert not done.returncode, done.stderr
    for name in ("streamed", "streamed-broken"):
        same_state(RunDirectory(tmp_path / name), RunDirectory(tmp_path / "memory"))


@pytest.mark.slow
def test_on_jax_an_image_found_corrupt_while_training_is_named(photos, tmp_path):
    _corrupt(photos)
    done = _train_on_jax(photos, tmp_path / "run")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("InvalidData: ")
    assert "light/11.png is not a readable image" in line
    assert "--skip-corrupt" in line
