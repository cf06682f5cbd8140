"""The cache of data sets that are downloaded, and processes that share it."""

import os
import subprocess
import sys

import pytest

from cct_export import data
from cct_export.errors import OutputError

SHAPE = (32, 32, 3)
# In place of Keras: counts its downloads, and takes long enough for another process to come.
STAND_IN = """
import pathlib, time, types
import numpy
def load_data():
    with open({counter!r}, "a") as counter:
        counter.write("download\\n")
    time.sleep(2)
    images, labels = numpy.zeros((20, 32, 32, 3), "uint8"), numpy.arange(20).reshape(-1, 1) % 10
    return (images, labels), (images, labels)
datasets = types.SimpleNamespace(cifar10=types.SimpleNamespace(load_data=load_data))
"""
READ = "from cct_export import data; print(len(data.read('cifar10', (32, 32, 3)).train.labels))"


def test_two_processes_download_a_data_set_once(tmp_path):
    (tmp_path / "keras.py").write_text(STAND_IN.format(counter=str(tmp_path / "counter")))
    packages = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": packages, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert [reader.communicate(timeout=120) for reader in readers] == [("20\n", "")] * 3
    assert (tmp_path / "counter").read_text() == "download\n"
    assert [path.name for path in (tmp_path / "cache/cct-export").iterdir()] == ["cifar10.npz"]


def test_a_cache_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot write .*cifar10\.npz: .*file is not a folder"):
        data.read("cifar10", SHAPE)
