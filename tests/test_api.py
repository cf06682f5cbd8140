"""The Python API: light to import, documented, and good for a model in memory."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

import cct_export
from cct_export import api
from cct_export.errors import InvalidModel, UnsupportedScheme


def test_importing_the_package_loads_nothing_heavy():
    code = "import cct_export, cct_export.api, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert "cct_export.api" in modules
    assert not modules & {"numpy", "keras", "tensorflow", "onnx", "onnxruntime", "click", "PIL"}


@pytest.mark.parametrize("name", api.__all__)
def test_every_function_of_the_api_says_what_it_takes_and_gives(name):
    function = getattr(cct_export, name)
    text = inspect.getdoc(function)
    assert text
    for section in ("Args:", "Returns:", "Raises:", "Example:"):
        assert section in text, section
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}:" in text, parameter


@pytest.mark.parametrize("name", api.__all__)
def test_every_function_of_the_api_takes_options_by_keyword_only(name):
    parameters = list(inspect.signature(getattr(cct_export, name)).parameters.values())
    by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    assert all(parameter.kind in by_keyword for parameter in parameters[1:])


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'export_coreml'"):
        _ = cct_export.export_coreml


def test_a_keras_model_in_memory_is_exported(tmp_path, digits_model):
    import keras

    from cct_export.runtimes import litert, session

    model = keras.saving.load_model(digits_model)
    path = tmp_path / "m.tflite"
    exported = cct_export.export_tflite(model, output=path, data="digits", parity_samples=32)
    assert exported.parity.passed
    assert exported.artifact.path == path
    assert exported.artifact.contract.source == model.name
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = session.run(litert.open_session(path), pixels)
    np.testing.assert_allclose(found, model.predict_on_batch(pixels.astype("float32")), atol=1e-4)


def test_the_checksum_of_a_model_in_memory_is_that_of_its_weights(digits_model):
    import keras

    model = keras.saving.load_model(digits_model)
    before = cct_export.load(model).sha256
    assert cct_export.load(keras.saving.load_model(digits_model)).sha256 == before
    model.weights[0].assign_add(keras.ops.ones_like(model.weights[0]))
    assert cct_export.load(model).sha256 != before


def test_what_is_no_image_classifier_in_memory_is_refused():
    import keras

    with pytest.raises(InvalidModel, match="is not an image classifier"):
        cct_export.load(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))


def test_an_unknown_scheme_is_refused_before_the_model_is_read(tmp_path):
    with pytest.raises(UnsupportedScheme):
        cct_export.export_onnx(tmp_path / "missing.keras", scheme="int3")


def test_no_room_of_the_package_takes_the_name_of_a_function():
    import importlib.util

    for name in api.__all__:
        assert importlib.util.find_spec(f"cct_export.{name}") is None, name


def test_verify_and_bench_return_what_the_commands_print(exports):
    report = cct_export.verify(exports("tflite").path, samples=8)
    assert report.passed
    (result,) = cct_export.benchmark(
        "onnx", sources=[exports("onnx").path], warmup_s=0, min_runs=3, min_s=0
    )
    assert len(result.times_ns) == 3
    assert result.parity.passed


def test_a_file_can_be_judged_by_another_scheme_than_its_own(exports):
    path = exports("tflite", "int8").path
    own, strict = (cct_export.verify(path, data="digits", scheme=s) for s in (None, "none"))
    assert (own.scheme, strict.scheme) == ("int8", "none")
    assert own.passed and not strict.passed
    assert own.sqnr_db == strict.sqnr_db
    assert own.decided < strict.decided


def test_a_scheme_to_judge_by_that_does_not_exist_is_refused(exports):
    from cct_export.errors import InvalidRequest

    with pytest.raises(InvalidRequest, match="no quantization scheme is called 'int3'"):
        cct_export.verify(exports("tflite").path, scheme="int3")


def test_artifacts_are_timed_together(exports):
    paths = [exports("tflite").path, exports("onnx", "int8").path]
    times = cct_export.time_together(paths, rounds=3, burst=4, warmup=1)
    assert [len(runs) for runs in times] == [12, 12]
    assert all(nanoseconds > 0 for runs in times for nanoseconds in runs)


@pytest.mark.parametrize(
    ("artifacts", "options"),
    [([], {}), (["m.keras"], {}), (["m.tflite"], {"rounds": 0}), (["m.tflite"], {"threads": 0})],
)
def test_nothing_to_time_is_refused(artifacts, options):
    from cct_export.errors import InvalidRequest

    with pytest.raises(InvalidRequest):
        cct_export.time_together(artifacts, **options)
