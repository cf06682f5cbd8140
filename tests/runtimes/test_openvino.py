"""OpenVINO as an engine: both formats, its precisions, and what it refuses."""

import sys
from contextlib import closing

import numpy as np
import onnx
import pytest

from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency, NotAvailable
from cct_export.runtimes import engine_of, isolated, openvino, session
from cct_export.specs import Delegation

QUICK = ("--min-runs", 2, "--min-seconds", 0, "--warmup-seconds", 0)


def _logits(engine, path, images, **options):
    with closing(engine.open_session(path, trusted=True, **options)) as opened:
        return session.run(opened, images)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("scheme", "io", "tolerance"),
    [("none", "float32", 1e-4), ("none", "uint8", 1e-4), ("fp16", "float32", 1e-2)],
)
def test_its_logits_are_those_of_the_formats_own_engine(
    exports, digit_images, format, scheme, io, tolerance
):
    path = exports(format, scheme, io).path
    images = digit_images[0][:5]
    own = _logits(engine_of(format), path, images)
    np.testing.assert_allclose(_logits(openvino, path, images), own, atol=tolerance)


def test_an_int8_file_of_standard_operators_is_as_close_as_in_onnx_runtime(exports, digit_images):
    path = exports("onnx", "int8", "uint8", "--pure-onnx").path
    images = digit_images[0][:20]
    own = _logits(engine_of("onnx"), path, images)
    assert np.abs(_logits(openvino, path, images) - own).max() < 0.1 * np.abs(own).max()


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_session_in_another_process_is_like_one_in_this(exports, digit_images, format):
    path = exports(format).path
    here, there = openvino.open_session(path, trusted=True), openvino.open_session(path)
    for name in isolated.Description.__dataclass_fields__:
        assert getattr(there, name) == getattr(here, name), name
    assert (here.engine[0], here.delegate, here.image_shape) == ("openvino", "cpu", (32, 32, 3))
    assert here.batch == (1 if format == "tflite" else None)
    assert here.contract.labels
    images = digit_images[0][:5]
    np.testing.assert_array_equal(session.run(there, images), session.run(here, images))
    for opened in (here, there):
        opened.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_float32_are_what_is_asked_for(exports, digit_images, threads):
    path, images = exports("onnx").path, digit_images[0][:5]
    with closing(openvino.open_session(path, trusted=True, threads=threads)) as opened:
        compiled = opened._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
        own = _logits(engine_of("onnx"), path, images)
        np.testing.assert_allclose(session.run(opened, images), own, atol=1e-4)


def test_a_baseline_of_it_is_checked(exports, in_process, tmp_path):
    baseline = tmp_path / "both.json"
    engines = ("--engine", "onnxruntime,openvino")
    measured = in_process("bench", "onnx", exports("onnx").path, *engines, "--json", baseline)
    assert measured.code == 0, measured.err
    quick = (*QUICK, "--repeats", 1, "--max-regression", "10000%")
    ended = in_process("bench", "check", "--baseline", baseline, *quick, "--json", "-")
    assert "is not for openvino" not in ended.err
    assert [row["runtime"]["name"] for row in ended.record["results"]] == [
        "onnxruntime",
        "openvino",
    ]


def test_one_command_measures_a_file_on_both_engines(exports, in_process):
    path = exports("onnx").path
    engines = ("--engine", "onnxruntime,openvino")
    ended = in_process("bench", "onnx", path, *engines, *QUICK, "--json", "-")
    assert ended.code == 0, ended.err
    rows = ended.record["results"]
    assert [row["runtime"]["name"] for row in rows] == ["onnxruntime", "openvino"]
    assert all(row["parity"]["passed"] and row["latency_ms"]["count"] >= 2 for row in rows)
    shown = in_process("bench", "onnx", path, *engines, *QUICK)
    assert "engine" in shown.out.splitlines()[1]
    assert f"{path} in openvino: " in shown.err


def test_a_lower_precision_has_a_policy_of_its_own(exports, in_process):
    arguments = ("--engine", "openvino", "--delegate-option", "precision=BF16", *QUICK)
    ended = in_process("bench", "tflite", exports("tflite").path, *arguments, "--json", "-")
    assert ended.code == 0, ended.err
    (row,) = ended.record["results"]
    assert row["runtime"]["options"] == {"precision": "BF16"}
    assert row["parity"]["passed"]


def test_a_model_is_exported_in_operators_that_it_has(digits_run, in_process):
    ended = in_process(
        "bench", "onnx", digits_run, "--engine", "openvino", "--quantize", "int8", *QUICK
    )
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("com.microsoft", r"it has no com\.microsoft\.Unheard: .*--pure-onnx leaves them out$"),
        ("org.example", r"it has no org\.example\.Unheard$"),
    ],
)
def test_an_operator_that_it_does_not_have_is_named(tmp_path, domain, message):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Unheard", ["image"], ["logits"], domain=domain)],
        "unheard",
        [helper.make_tensor_value_info("image", kind, [1, 4, 4, 3])],
        [helper.make_tensor_value_info("logits", kind, [1, 10])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    path = tmp_path / "unheard.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(InvalidArtifact, match=message):
        openvino.open_session(path, trusted=True)


def test_a_file_of_another_format_under_the_name_of_onnx_is_refused(exports, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(exports("tflite").path.read_bytes())
    with pytest.raises(InvalidArtifact, match="OpenVINO cannot read"):
        openvino.open_session(other)


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_broken_file_is_refused_in_one_line(exports, tmp_path, suffix):
    broken = tmp_path / f"broken.{suffix}"
    broken.write_bytes(exports(suffix).path.read_bytes()[:2000])
    with pytest.raises(InvalidArtifact) as error:
        openvino.open_session(broken)
    assert str(broken) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("default", {"precision": "fp8"}, InvalidRequest, "fp32, fp16, bf16"),
        ("default", {"SPEED": "high"}, InvalidRequest, "no option 'SPEED'"),
        ("default", {"SUPPORTED_PROPERTIES": "x"}, InvalidRequest, "no option"),
        ("default", {"INFERENCE_NUM_THREADS": "2"}, InvalidRequest, "no option"),
        ("default", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "many"}, InvalidRequest, "not take"),
        ("npu", {}, NotAvailable, "finds no NPU here"),
        ("cuda", {}, InvalidRequest, "delegate of OpenVINO"),
    ],
)
def test_what_it_does_not_have_is_refused(exports, name, options, kind, message):
    delegation = Delegation(name, tuple(options.items()))
    with pytest.raises(kind, match=message):
        openvino.open_session(exports("onnx").path, trusted=True, delegation=delegation)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("tflite", "--engine", "openvino,tflm"), "name it by itself"),
        (("tflite", "--engine", "opnvino"), "did you mean openvino"),
        (("onnx", "--engine", "litert"), "choose from onnxruntime, openvino"),
        (("onnx", "--engine", "openvino", "--device", "adb"), "no program for openvino"),
        (("onnx", "--engine", "openvino", "--profile-ops"), "no times of operators"),
        (
            ("onnx", "--engine", "onnxruntime,openvino", "--delegate-option", "precision=bf16"),
            "of one engine",
        ),
    ],
)
def test_engines_that_cannot_measure_are_refused(exports, in_process, command, words):
    format, *options = command
    ended = in_process("bench", format, exports(format).path, *options)
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1


def test_without_the_package_the_error_says_what_brings_it(exports, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r"cct-export\[openvino\]"):
        openvino.open_session(exports("onnx").path, trusted=True)
