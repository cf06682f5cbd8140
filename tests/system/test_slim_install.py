"""What a Raspberry Pi gets: the base and one engine, in an environment of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slim

ROOT = Path(__file__).parents[2]
PIP_S = 300
# What converts, trains or draws, and takes hundreds of megabytes.
HEAVY = ("tensorflow", "keras", "onnx", "tf2onnx", "matplotlib", "sklearn", "scipy", "jax", "h5py")


@pytest.fixture(scope="module")
def slim(tmp_path_factory):
    """A folder with an environment that has the base and ``[litert]``; returns its programs."""
    folder = tmp_path_factory.mktemp("slim")
    # A copy, because building leaves files beside the sources.
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cct_export", source / "cct_export", ignore=hidden)
    _made(sys.executable, "-m", "venv", folder / "venv")
    pip = (folder / "venv/bin/python", "-m", "pip", "install", "--quiet")
    _made(*pip, "--constraint", ROOT / "constraints.txt", f"{source}[litert]")
    return folder / "venv" / "bin"


def _made(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[2]} took over {PIP_S} s")
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        if "No matching distribution" in said or "ConnectionError" in said:
            pytest.skip(f"no package index: {said}")
        pytest.fail(f"{command[2]} failed: {said}")


@pytest.fixture
def run(slim, tmp_path):
    """Runs a program of the environment elsewhere; returns the ended process."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def program(name, *arguments):
        return subprocess.run(
            [slim / name, *map(str, arguments)],
            cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return program


@pytest.mark.parametrize("module", HEAVY)
def test_nothing_heavy_is_there(run, module):
    ended = run("python", "-c", f"import {module}")
    assert ended.returncode == 1
    assert f"No module named '{module}'" in ended.stderr


def test_a_file_is_measured_and_proven(run, exports):
    path = exports("tflite", "int8").path
    ended = run("cct-bench", "tflite", path, "--min-seconds", "0.1", "--json", "-")
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout)["results"]
    assert found["parity"]["passed"]
    assert len(found["times_ns"]) >= 50


def test_what_is_not_there_is_named_with_the_extra_that_brings_it(run, exports):
    ended = run("cct-bench", "onnx", exports("onnx").path)
    assert ended.returncode == 6
    assert "pip install 'cct-export[onnxruntime]'" in ended.stderr
    ended = run("cct-export", "tflite")
    assert ended.returncode == 6
    assert "cct-export[" in ended.stderr


def test_a_bundle_is_made_and_proves_itself(run, exports, tmp_path, digit_images):
    from PIL import Image

    path = exports("tflite", "int8", "uint8").path
    ended = run("cct-export", "bundle", path, "--target", "raspberry-pi", "-o", "pi")
    assert ended.returncode == 0, ended.stderr
    ended = run("python", "pi/selftest.py")
    assert ended.returncode == 0, ended.stderr
    Image.fromarray(digit_images[0][0]).save(tmp_path / "digit.png")
    ended = run("python", "pi/classify.py", "digit.png")
    assert ended.returncode == 0, ended.stderr
    assert "digit.png" in ended.stdout
