"""LiteRT's GPU accelerator on a software Vulkan: the engine is real, the GPU is emulated."""

import json

import pytest

from cct_export.evaluation import parity

pytestmark = [
    pytest.mark.vulkan,
    pytest.mark.usefixtures("vulkan"),  # first, so that nothing is exported where it is skipped
]

BRIEF = ("--min-runs", "10", "--min-seconds", "0.1", "--warmup-seconds", "0", "--json", "-")


@pytest.fixture
def on_gpu(cct_bench, vulkan):
    """Runs ``cct-bench tflite --delegate gpu`` with a Vulkan driver."""

    def run(path, *arguments):
        return cct_bench("tflite", path, "--delegate", "gpu", *BRIEF, *arguments, **vulkan)

    return run


def _result(process):
    assert process.returncode == 0, process.stderr
    (result,) = json.loads(process.stdout)["results"]
    assert result["parity"]["failures"] == []
    return result


def _error_line(process, code):
    assert process.returncode == code
    assert process.stdout == ""
    (line,) = process.stderr.strip().splitlines()
    return line


def test_the_shipped_model_runs_on_the_gpu_until_its_output_is_complete(
    on_gpu, cct_export, tmp_path
):
    path = tmp_path / "shipped.tflite"
    exported = cct_export("tflite", "--samples", "50", "-o", path)
    assert exported.returncode == 0, exported.stderr
    result = _result(on_gpu(path))
    assert result["runtime"]["accelerator"] == result["runtime"]["delegate"] == "gpu"
    assert result["parity"]["sqnr_db"] >= parity.POLICIES["none"].sqnr_db
    # Queuing a run takes a tenth of this, and the run ten times as long on a software GPU.
    assert result["latency_ms"]["p50"] > 2


def test_a_quantized_file_runs_on_the_gpu_too(on_gpu, exports):
    result = _result(on_gpu(exports("tflite", "int8-dynamic").path))
    assert result["runtime"]["accelerator"] == "gpu"
    assert result["parity"]["scheme"] == "int8-dynamic"


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_parity_is_that_of_the_precision(on_gpu, exports, precision):
    path = exports("tflite").path
    result = _result(on_gpu(path, "--delegate-option", f"precision={precision}"))
    assert result["runtime"]["options"] == {"precision": precision}
    assert result["parity"]["passed"]


@pytest.mark.parametrize("option", ["precision=fp8", "speed=high"])
def test_an_unknown_option_is_refused(on_gpu, exports, option):
    process = on_gpu(exports("tflite").path, "--delegate-option", option)
    assert option in _error_line(process, 2)


def test_a_file_that_would_start_on_the_cpu_is_refused(on_gpu, exports):
    path = exports("tflite", "int16x8").path
    for fallback in ([], ["--allow-fallback"]):
        assert "INT16" in _error_line(on_gpu(path, *fallback), 6)


@pytest.fixture(scope="module")
def partly_supported(tmp_path_factory):
    """A file of which the GPU runs only the first operators."""
    import tensorflow as tf

    def function(image):
        rows = tf.reshape(tf.nn.relu(image * 2 + 1), (1, 48)) @ tf.ones((48, 5))
        return tf.nn.tanh(tf.one_hot(tf.argmax(rows, 1), 5) @ tf.ones((5, 3)))

    traced = tf.function(function, input_signature=[tf.TensorSpec((1, 4, 4, 3))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [traced.get_concrete_function()], tf.Module()
    )
    path = tmp_path_factory.mktemp("partly") / "partly.tflite"
    path.write_bytes(converter.convert())
    return path


def test_operators_that_the_gpu_does_not_support_are_named(on_gpu, partly_supported):
    assert "ARG_MAX" in _error_line(on_gpu(partly_supported), 6)


def test_a_fallback_is_allowed_and_reported(on_gpu, partly_supported):
    process = on_gpu(partly_supported, "--allow-fallback")
    assert process.returncode == 0, process.stderr
    (result,) = json.loads(process.stdout)["results"]
    runtime = result["runtime"]
    assert runtime["allow_fallback"]
    assert 0 < runtime["delegated_nodes"] < runtime["total_nodes"]
    assert any("were not taken by gpu" in warning for warning in result["warnings"])


def test_the_last_log_line_of_an_engine_that_aborts_is_the_error(on_gpu, exports):
    # int8-full multiplies a tensor by itself, on which LiteRT's GPU accelerator aborts.
    process = on_gpu(exports("tflite", "int8-full", "uint8").path)
    assert "Check failed" in _error_line(process, 1)


def test_the_doctor_finds_the_gpu(cct_export, vulkan):
    process = cct_export("doctor", "--json", "-", **vulkan)
    assert process.returncode == 0, process.stderr
    delegates = json.loads(process.stdout)["delegates"]
    works = {(row["engine"], row["delegate"]): row["works"] for row in delegates}
    assert works["litert", "gpu"] is True
