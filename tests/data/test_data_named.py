"""``--data digits``, ``cifar10`` and ``cifar100``; no test uses the network."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from cct_export import data
from cct_export.data.named import CIFAR10_CLASSES, CIFAR100_CLASSES, cache_file
from cct_export.errors import InvalidData

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def digits():
    return data.read("digits", SHAPE)


def _all(split):
    return split.images(range(len(split.labels)))


def test_digits_are_ten_classes_of_colour_images_split_eighty_to_twenty(digits):
    assert digits.classes == tuple("0123456789")
    assert _all(digits.train).shape == (1437, *SHAPE)
    assert _all(digits.test).shape == (360, *SHAPE)
    assert _all(digits.train).dtype == np.uint8
    for split in (digits.train, digits.test):
        assert set(split.labels.tolist()) == set(range(10))


def test_digits_use_the_full_range_of_pixels(digits):
    assert (_all(digits.train).min(), _all(digits.train).max()) == (0, 255)


def test_a_digit_is_enlarged_four_times_by_repetition(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    enlarged = digits.train.images([0])[0]
    small = enlarged[::4, ::4, 0]
    for row in range(4):
        for column in range(4):
            assert np.array_equal(enlarged[row::4, column::4], np.dstack([small] * 3))
    alike = np.flatnonzero((np.round(original.images * 255 / 16) == small).all(axis=(1, 2)))
    assert original.target[alike].tolist() == [digits.train.labels[0]]


def test_digits_are_the_same_every_time_and_no_image_is_in_both_splits(digits):
    again = data.read("digits", SHAPE)
    assert np.array_equal(_all(again.train), _all(digits.train))
    assert np.array_equal(again.test.labels, digits.test.labels)
    train = {image.tobytes() for image in _all(digits.train)}
    assert not train & {image.tobytes() for image in _all(digits.test)}


@pytest.mark.parametrize("shape", [(28, 28, 3), (32, 32, 1), (8, 8, 1)])
def test_digits_refuse_another_size(shape):
    with pytest.raises(InvalidData, match=r"digits are \(32, 32, 3\)"):
        data.read("digits", shape)


def _cached(folder, name, images=4):
    pixels = np.random.default_rng(0).integers(0, 256, (images, *SHAPE), np.uint8)
    labels = np.arange(images).reshape(-1, 1).astype(np.uint8)
    path = folder / f"cct-export/{name}.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:2], y_test=labels[:2])
    return pixels


@pytest.mark.parametrize(
    ("name", "classes"), [("cifar10", CIFAR10_CLASSES), ("cifar100", CIFAR100_CLASSES)]
)
def test_cifar_is_read_from_the_cache(tmp_path, monkeypatch, name, classes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not data.is_available(name)
    pixels = _cached(tmp_path, name)
    assert data.is_available(name)
    dataset = data.read(name, SHAPE)
    assert dataset.name == name
    assert dataset.classes == classes
    assert np.array_equal(_all(dataset.train), pixels)
    assert dataset.test.labels.tolist() == [0, 1]


def test_cifar_has_its_ten_and_its_hundred_classes():
    assert len(set(CIFAR10_CLASSES)) == 10
    assert len(set(CIFAR100_CLASSES)) == 100
    # Labels of CIFAR-100 are numbered in alphabetical order, as in the meta file of its archive.
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)
    assert [CIFAR100_CLASSES[label] for label in (19, 29, 0, 11, 1)] == [
        "cattle", "dinosaur", "apple", "boy", "aquarium_fish",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_refuses_a_model_of_another_size(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _cached(tmp_path, name)
    with pytest.raises(InvalidData, match="the model takes"):
        data.read(name, (64, 64, 3))


def test_the_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_file("cifar10") == tmp_path / ".cache/cct-export/cifar10.npz"


def _closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_without_a_network_cifar_is_refused_within_seconds_and_leaves_no_file(
    tmp_path, monkeypatch
):
    closed = f"http://127.0.0.1:{_closed_port()}"
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, closed)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    start = time.monotonic()
    with pytest.raises(InvalidData) as refused:
        data.read("cifar10", SHAPE)
    # Most of it is the import of Keras; the limit is far above, and far below a hang.
    assert time.monotonic() - start < 120
    message = str(refused.value)
    assert "cifar10 is not on this machine and could not be downloaded" in message
    assert "give --data a folder" in message
    assert "\n" not in message
    assert list((tmp_path / "cache").rglob("*.npz")) == []
    assert list((tmp_path / "cache/cct-export").rglob("*")) == []
    assert not data.is_available("cifar10")


def test_reading_data_imports_neither_keras_nor_a_backend():
    code = """
import sys
from cct_export import data
from cct_export.data import sampling
data.read("digits", (32, 32, 3))
sampling.calibration(None, (8, 8, 3), 8)
print(sorted({"keras", "tensorflow", "jax", "torch", "h5py"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]", done.stderr
