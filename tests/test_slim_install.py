"""The wheel in a clean environment, with no more than a Raspberry Pi needs."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cct_export
from cct_export.bench.doctor import PROBES

ROOT = Path(__file__).parent.parent
HEAVY = (
    "tensorflow", "keras", "onnx", "onnxruntime", "matplotlib", "sklearn", "scipy", "tf2onnx",
    "jax", "h5py", "torch",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "demo", "runs")
    )
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def slim(wheel, tmp_path_factory):
    """The Python of a clean venv in which the wheel was installed with ``[litert]``."""
    folder = tmp_path_factory.mktemp("slim")
    _run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    pinned = ["--constraint", ROOT / "constraints.txt"]
    _run(python, "-m", "pip", "install", "--quiet", *pinned, f"cct-export[litert] @ file://{wheel}")
    return python


def _run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_wheel_measures_and_bundles_a_tflite_file_without_any_converter(slim, tmp_path):
    artifact = tmp_path / "cct.tflite"
    exported = cct_export.export_tflite(
        "cct_keras_io", output=artifact, scheme="int8", parity_samples=64
    )
    assert exported.parity.passed
    environment = {"PATH": os.environ["PATH"]}
    program = slim.with_name("cct-bench")
    done = _run(program, "tflite", artifact, "--json", "-", cwd=tmp_path, env=environment)
    (result,) = json.loads(done.stdout)["results"]
    assert result["parity"]["passed"]
    assert result["latency_ms"]["count"] >= 50
    _run(program, "compare", artifact, "--html", "page.html", cwd=tmp_path, env=environment)
    assert "<svg" in (tmp_path / "page.html").read_text("utf-8")
    bundle = ("bundle", artifact, "--target", "raspberry-pi", "-o", "bundle")
    _run(slim.with_name("cct-export"), *bundle, cwd=tmp_path, env=environment)
    said = _run(slim, tmp_path / "bundle" / "selftest.py", cwd=tmp_path, env=environment)
    assert said.stdout.splitlines()[-1] == "PASSED"
    Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(tmp_path / "grey.png")
    classify = (slim, tmp_path / "bundle" / "classify.py", "grey.png")
    assert "grey.png: " in _run(*classify, cwd=tmp_path, env=environment).stdout
    found = _run(
        slim,
        "-c",
        f"import importlib.util as u; print([n for n in {HEAVY} if u.find_spec(n)])",
        cwd=tmp_path,
        env=environment,
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_holds_the_shipped_models_and_no_tests(wheel):
    files = zipfile.ZipFile(wheel).namelist()
    assert "cct_export/model/weights/cct_2_3x2_32.keras" in files
    assert "cct_export/model/weights/cct_keras_io.keras" in files
    assert "cct_export/model/weights/cct_keras_io.md" in files
    assert "cct_export/bundles/templates/raspberry_pi/classify.py" in files
    assert not [name for name in files if "tests/" in name or name.endswith("cli.py")]


@pytest.mark.slow
def test_a_command_that_needs_more_names_the_extra(slim, tmp_path):
    done = subprocess.run(
        [slim.with_name("cct-export"), "tflite"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
    assert "cct-export[tensorflow]" in done.stderr
    done = subprocess.run(
        [slim.with_name("cct-bench"), "onnx", PROBES["onnxruntime"]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 6
    assert "pip install 'cct-export[onnxruntime]'" in done.stderr
