"""LiteRT's GPU accelerator on a software Vulkan: the engine is real, only the GPU is not."""

import json

import pytest

from cct_export.evaluation import parity

pytestmark = [
    pytest.mark.vulkan,
    pytest.mark.usefixtures("vulkan"),  # first: nothing is exported where it is skipped
]

BRIEFLY = ("--min-runs", "10", "--min-seconds", "0.1", "--warmup-seconds", "0", "--json", "-")


@pytest.fixture
def on_gpu(cct_bench, vulkan):
    """Runs ``cct-bench tflite --delegate gpu`` where a Vulkan driver is found."""

    def run(path, *arguments):
        return cct_bench("tflite", path, "--delegate", "gpu", *BRIEFLY, *arguments, **vulkan)

    return run


def _result(done):
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    return found


def _error(done):
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_the_shipped_model_runs_on_the_gpu_and_its_output_is_waited_for(
    on_gpu, cct_export, tmp_path
):
    path = tmp_path / "shipped.tflite"
    exported = cct_export("tflite", "--samples", "50", "-o", path)
    assert exported.returncode == 0, exported.stderr
    found = _result(on_gpu(path))
    assert found["runtime"]["accelerator"] == found["runtime"]["delegate"] == "gpu"
    assert found["parity"]["failures"] == []
    assert found["parity"]["sqnr_db"] >= parity.POLICIES["none"].sqnr_db
    # A run that is only queued comes back in a tenth of this; software takes ten times as long.
    assert found["latency_ms"]["p50"] > 2


def test_a_quantized_file_runs_on_the_gpu_too(on_gpu, exports):
    found = _result(on_gpu(exports("tflite", "int8-dynamic").path))
    assert found["runtime"]["accelerator"] == "gpu"
    assert found["parity"]["failures"] == []
    assert found["parity"]["scheme"] == "int8-dynamic"


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_precision_decides_what_parity_demands(on_gpu, exports, precision):
    path = exports("tflite").path
    found = _result(on_gpu(path, "--delegate-option", f"precision={precision}"))
    assert found["runtime"]["options"] == {"precision": precision}
    assert found["parity"]["scheme"] == ("fp16" if precision == "fp16" else "none")
    assert found["parity"]["failures"] == []


@pytest.mark.parametrize("option", ["precision=fp8", "speed=high"])
def test_an_option_that_there_is_not_is_refused(on_gpu, exports, option):
    done = on_gpu(exports("tflite").path, "--delegate-option", option)
    assert done.returncode == 2
    assert option in _error(done)


def test_a_file_that_would_start_on_the_cpu_is_never_one_of_the_gpu(on_gpu, exports):
    path = exports("tflite", "int16x8").path
    for fallback in ([], ["--allow-fallback"]):
        done = on_gpu(path, *fallback)
        assert done.returncode == 6
        assert "INT16" in _error(done)


@pytest.fixture(scope="module")
def stumbling(tmp_path_factory):
    """A file of which the GPU takes the beginning only."""
    import tensorflow as tf

    def function(image):
        rows = tf.reshape(tf.nn.relu(image * 2 + 1), (1, 48)) @ tf.ones((48, 5))
        return tf.nn.tanh(tf.one_hot(tf.argmax(rows, 1), 5) @ tf.ones((5, 3)))

    traced = tf.function(function, input_signature=[tf.TensorSpec((1, 4, 4, 3))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [traced.get_concrete_function()], tf.Module()
    )
    path = tmp_path_factory.mktemp("stumbling") / "stumbling.tflite"
    path.write_bytes(converter.convert())
    return path


def test_operators_that_the_gpu_lacks_are_told(on_gpu, stumbling):
    done = on_gpu(stumbling)
    assert done.returncode == 6
    assert "ARG_MAX" in _error(done)


def test_a_fallback_is_allowed_and_reported(on_gpu, stumbling):
    found = _result(on_gpu(stumbling, "--allow-fallback"))
    runtime = found["runtime"]
    assert runtime["allow_fallback"]
    assert 0 < runtime["delegated_nodes"] < runtime["total_nodes"]
    assert any("were not taken by gpu" in warning for warning in found["warnings"])


def test_the_last_words_of_an_engine_that_ends_itself_are_told(on_gpu, exports):
    # A product of a tensor with itself, which int8-full has, is one input too many for LiteRT.
    done = on_gpu(exports("tflite", "int8-full", "uint8").path)
    assert done.returncode == 1
    assert "Check failed" in _error(done)


def test_the_doctor_finds_the_gpu(cct_export, vulkan):
    done = cct_export("doctor", "--json", "-", **vulkan)
    assert done.returncode == 0, done.stderr
    found = {(one["engine"], one["delegate"]): one for one in json.loads(done.stdout)["delegates"]}
    assert found["litert", "gpu"]["works"] is True
