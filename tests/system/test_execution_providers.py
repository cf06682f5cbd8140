"""Other builds of ONNX Runtime, each in its own environment: only one can be installed."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.provider

ROOT = Path(__file__).parents[2]
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
PIP_S = 300
BRIEF = ("--min-runs", "10", "--min-seconds", "0.1", "--warmup-seconds", "0", "--json", "-")


@pytest.fixture(scope="module")
def with_wheel(tmp_path_factory):
    """Creates an environment with a wheel; returns a function that runs our commands there."""

    def create(wheel):
        folder = tmp_path_factory.mktemp("wheel")
        python = folder / "venv" / "bin" / "python"
        _run_or_skip(sys.executable, "-m", "venv", folder / "venv")
        pinned = "--constraint", ROOT / "constraints.txt"
        _run_or_skip(python, "-m", "pip", "install", "--quiet", *pinned, wheel, *DEPENDENCIES)

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

    return create


def _run_or_skip(*command):
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[2]} took over {PIP_S} s")
    if process.returncode:
        pytest.skip(f"{command[2]} failed: {' '.join(process.stderr.split())[-300:]}")


@pytest.fixture(scope="module")
def openvino(with_wheel):
    """Runs the commands with a build of ONNX Runtime that includes OpenVINO."""
    return with_wheel("onnxruntime-openvino==1.24.1")


@pytest.fixture(scope="module")
def webgpu(vulkan, with_wheel):
    """Runs the commands with a build that includes WebGPU, on a software Vulkan."""
    run = with_wheel("onnxruntime-webgpu==1.27.0")
    return lambda *arguments: run(*arguments, **vulkan)


def _runtime(process):
    assert process.returncode == 0, process.stderr
    (result,) = json.loads(process.stdout)["results"]
    assert result["parity"]["failures"] == []
    return result["runtime"]


def _works(process):
    assert process.returncode == 0, process.stderr
    delegates = json.loads(process.stdout)["delegates"]
    return {row["delegate"]: row["works"] for row in delegates if row["engine"] == "onnxruntime"}


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_openvino_runs_every_node(openvino, exports, scheme):
    path = exports("onnx", scheme, "float32", "--pure-onnx").path
    runtime = _runtime(openvino("bench", "onnx", path, "--delegate", "openvino", *BRIEF))
    assert (runtime["delegate"], runtime["accelerator"]) == ("openvino", "cpu")
    assert runtime["delegated_nodes"] == runtime["total_nodes"] > 50


def test_the_doctor_finds_openvino(openvino):
    works = _works(openvino("export", "doctor", "--json", "-"))
    assert works["openvino"] is works["cpu"] is True
    assert works["webgpu"] is False


@pytest.mark.vulkan
def test_webgpu_runs_on_a_software_vulkan(webgpu, exports):
    arguments = "bench", "onnx", exports("onnx").path, "--delegate", "webgpu", *BRIEF
    runtime = _runtime(webgpu(*arguments))
    assert (runtime["delegate"], runtime["accelerator"]) == ("webgpu", "gpu")
    assert runtime["total_nodes"] is runtime["delegated_nodes"] is None  # not reported


@pytest.mark.vulkan
def test_webgpu_is_refused_where_it_does_not_report_what_fell_back(webgpu, exports):
    path = exports("onnx").path
    process = webgpu("bench", "onnx", path, "--delegate", "webgpu", "--allow-fallback", *BRIEF)
    assert process.returncode == 6
    assert "does not report which nodes" in process.stderr
