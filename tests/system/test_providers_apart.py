"""Other builds of ONNX Runtime, each in an environment of its own: two cannot share one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.provider

ROOT = Path(__file__).parents[2]
NEEDED = ("click", "numpy", "pillow", "psutil", "rich")
PIP_S = 300
BRIEFLY = ("--min-runs", "10", "--min-seconds", "0.1", "--warmup-seconds", "0", "--json", "-")


@pytest.fixture(scope="module")
def with_wheel(tmp_path_factory):
    """Makes an environment with a wheel; returns what runs our two commands there."""

    def make(wheel):
        folder = tmp_path_factory.mktemp("apart")
        python = folder / "venv" / "bin" / "python"
        _made(sys.executable, "-m", "venv", folder / "venv")
        pinned = "--constraint", ROOT / "constraints.txt"
        _made(python, "-m", "pip", "install", "--quiet", *pinned, wheel, *NEEDED)

        def run(name, *arguments, **environment):
            code = f"from cct_export.commands.program import {name}_main; {name}_main()"
            return subprocess.run(
                [python, "-c", code, *map(str, arguments)],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                capture_output=True,
                text=True,
                timeout=PIP_S,
            )

        return run

    return make


def _made(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[2]} took over {PIP_S} s")
    if done.returncode:
        pytest.skip(f"{command[2]} failed: {' '.join(done.stderr.split())[-300:]}")


@pytest.fixture(scope="module")
def openvino(with_wheel):
    """Runs the commands where ONNX Runtime has OpenVINO."""
    return with_wheel("onnxruntime-openvino==1.24.1")


@pytest.fixture(scope="module")
def webgpu(vulkan, with_wheel):
    """Runs the commands where ONNX Runtime has WebGPU, and that a software Vulkan."""
    run = with_wheel("onnxruntime-webgpu==1.27.0")
    return lambda *arguments: run(*arguments, **vulkan)


def _result(done):
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    assert found["parity"]["failures"] == []
    return found["runtime"]


def _works(done):
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["delegates"]
    return {one["delegate"]: one["works"] for one in found if one["engine"] == "onnxruntime"}


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_openvino_runs_every_node(openvino, exports, scheme):
    path = exports("onnx", scheme).path
    ran = _result(openvino("bench", "onnx", path, "--delegate", "openvino", *BRIEFLY))
    assert (ran["delegate"], ran["accelerator"]) == ("openvino", "cpu")
    assert ran["delegated_nodes"] == ran["total_nodes"] > 50


def test_the_doctor_finds_openvino(openvino):
    works = _works(openvino("export", "doctor", "--json", "-"))
    assert works["openvino"] is works["cpu"] is True
    assert works["webgpu"] is False


@pytest.mark.vulkan
def test_webgpu_runs_on_a_software_vulkan(webgpu, exports):
    arguments = "bench", "onnx", exports("onnx").path, "--delegate", "webgpu", *BRIEFLY
    ran = _result(webgpu(*arguments))
    assert (ran["delegate"], ran["accelerator"]) == ("webgpu", "gpu")
    assert ran["total_nodes"] is ran["delegated_nodes"] is None  # this build does not tell


@pytest.mark.vulkan
def test_webgpu_is_not_believed_where_it_cannot_tell_what_fell_back(webgpu, exports):
    path = exports("onnx").path
    done = webgpu("bench", "onnx", path, "--delegate", "webgpu", "--allow-fallback", *BRIEFLY)
    assert done.returncode == 6
    assert "does not tell which nodes" in done.stderr
