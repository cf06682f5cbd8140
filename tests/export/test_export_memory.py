"""An export takes no more memory than twice the model's weights and a gigabyte."""

import subprocess
import sys

import numpy as np
import psutil
import pytest

from cct_export import memory
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec

# Keras with TensorFlow, the engines and the images take about two thirds of it.
LIBRARIES_BYTES = 10**9
# 12 million parameters in layers as wide as those of CCT-14, on small images: seconds to run.
WIDE = ModelSpec(
    name="wide", filters=(64, 384), kernel=7, stride=2, padding=3, block="paper", image_size=64,
    layers=8, heads=6, head_dim=64, mlp_units=(1152, 384), classes=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model with many weights: its file, and their bytes."""
    path = tmp_path_factory.mktemp("wide") / "wide.keras"
    model = CCT(WIDE)
    model.save(path)
    return path, 4 * model.count_params()


# A new process begins with the peak of the one that starts it: a small one, not that of the tests.
STARTER = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "cct_export", *sys.argv[1:]]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_bytes(arguments):
    """Runs a command; returns the most memory that one of its processes had."""
    starter = [sys.executable, "-c", STARTER, *map(str, arguments)]
    done = subprocess.run(starter, capture_output=True, text=True, check=True)
    code, kilobytes = map(int, done.stdout.split()[-2:])
    assert code in (0, 3), done.stderr  # with random weights integers may miss parity
    return 1024 * kilobytes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the libraries take other memory elsewhere")
@pytest.mark.parametrize(
    ("format", "scheme"),
    [("tflite", "none"), ("tflite", "int8-dynamic"), ("tflite", "int8"), ("onnx", "none")],
)
def test_an_export_takes_twice_the_weights_and_a_gigabyte(wide, tmp_path, format, scheme):
    path, weights = wide
    few = ["--calibration-samples", "16", "--samples", "32"]
    peak = peak_bytes(
        [format, path, "--quantize", scheme, "-q", "-o", tmp_path / f"m.{format}", *few]
    )
    assert peak <= 2 * weights + LIBRARIES_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it")
def test_freed_memory_can_be_given_back():
    # Below the size that glibc maps by itself, between blocks that stay: 64 MB of holes.
    blocks = [np.ones(2**13) for _ in range(2000)]
    kept = blocks[::2]
    del blocks
    before = psutil.Process().memory_info().rss
    memory.give_back()
    assert before - psutil.Process().memory_info().rss > 32 * 2**20
    assert all(block[0] == 1 for block in kept)
