"""Images that are too many for memory: what is learned is the same, and resumed, and refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import sys
from pathlib import Path
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training import batches
from cct_export.training.loop import train

data, folder, most, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
batches._RESIDENT = most

def progress(epoch, done, of, metrics):
    if (epoch, done) == (stop, 2):
        raise KeyboardInterrupt

tiny = ModelSpec(
    image_size=8, channels=1, filters=(4, 8), layers=1, heads=1, head_dim=4, mlp_units=(8, 8)
)
recipe = TrainSpec(data, epochs=3, batch=8, ema=0.9)
try:
    train(tiny, recipe, folder, (folder / "state.npz").exists(), progress)
except KeyboardInterrupt:
    pass
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def photos(tmp_path):
    """Grey images whose class is their brightness, in folders."""
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 6)):
        for shade, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 100, (8, 8)) + 120 * shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    return tmp_path / "photos"


def _train(backend, data, folder, most=0, stop=0):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(data), str(folder), str(most), str(stop)],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": backend},
    )


def _state(folder):
    with np.load(folder / "state.npz") as state:
        return dict(state)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_images_read_while_training_teach_what_those_in_memory_do(backend, photos, tmp_path):
    runs = {"held": (10**9, 0), "streamed": (0, 0), "broken": (0, 2)}
    for name, (most, stop) in runs.items():
        ended = _train(backend, photos, tmp_path / name, most, stop)
        assert not ended.returncode, ended.stderr
    assert len((tmp_path / "broken/metrics.csv").read_text().splitlines()) == 1 + 1
    ended = _train(backend, photos, tmp_path / "broken")
    assert not ended.returncode, ended.stderr
    held, streamed, broken = (_state(tmp_path / name) for name in runs)
    assert held.keys() == streamed.keys() == broken.keys()
    for name, value in held.items():
        assert np.array_equal(value, streamed[name]), name
        assert np.array_equal(value, broken[name]), name


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_an_image_found_corrupt_while_training_is_named(backend, photos, tmp_path):
    broken = photos / "train/light/11.png"
    broken.write_bytes(broken.read_bytes()[:60])
    ended = _train(backend, photos, tmp_path / "run")
    assert ended.returncode == 1
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("InvalidData: ")
    assert "light/11.png is not a readable image" in line
    assert "--skip-corrupt" in line
