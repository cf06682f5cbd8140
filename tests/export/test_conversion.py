"""Which way a model goes to a file: folded if its steps are known, else traced, and said so."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from plans import random_model
from published import published_example

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.export.draft import prepared
from cct_export.formats import FORMATS
from cct_export.formats.traced import CONVERTERS
from cct_export.graph.fold import PASSES
from cct_export.graph.lowering import lower_model
from cct_export.specs import ExportSpec, ModelSpec

SMALL = ModelSpec(name="small", filters=(6, 16), mlp_units=(16, 16), heads=2, head_dim=16)


def convert(model, spec):
    """Returns the float32 file of a model, folded if its steps are known."""
    plan = lower_model(model).plan
    if plan is None:
        return CONVERTERS[spec.format](model, spec)
    return FORMATS[spec.format].emit(prepared(plan, spec), spec)


def sequential(activation="elu"):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation=activation, name="conv"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ],
        name="plain",
    )


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_sequential_model_is_traced_and_one_line_says_so(tmp_path, caplog, format):
    caplog.set_level("INFO", "cct_export")
    export = getattr(cct_export, f"export_{format}")
    exported = export(sequential(), output=tmp_path / f"m.{format}", parity_samples=64)
    assert exported.parity.passed
    said = [record.getMessage() for record in caplog.records if "fold" in record.getMessage()]
    assert said == ["traced as it is, not folded: conv: the activation elu is not known"]


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_sequential_model_with_known_steps_is_folded(tmp_path, caplog, format):
    caplog.set_level("INFO", "cct_export")
    export = getattr(cct_export, f"export_{format}")
    path = tmp_path / f"m.{format}"
    exported = export(sequential("relu"), output=path, parity_samples=64)
    assert exported.parity.passed
    assert "not folded" not in caplog.text
    kinds = [operator.kind for operator in cct_export.inspect(path).operators]
    assert {"CONV_2D", "Conv"} & set(kinds)
    assert not {"MUL", "Mul"} & set(kinds)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_mobilenet_is_exported_and_verified(tmp_path, caplog, format):
    caplog.set_level("INFO", "cct_export")
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=7)
    export = getattr(cct_export, f"export_{format}")
    exported = export(model, output=tmp_path / f"m.{format}", parity_samples=32)
    assert exported.parity.passed, exported.parity.failures
    assert exported.parity.samples == 32
    assert "not folded: expanded_conv_depthwise: DepthwiseConv2D is not known" in caplog.text


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_cct_is_not_said_to_be_traced(tmp_path, caplog, format):
    caplog.set_level("INFO", "cct_export")
    convert(random_model(SMALL, 0), ExportSpec(format))
    assert "not folded" not in caplog.text


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_weights_far_from_their_initial_values_pass_the_bound_of_float32(tmp_path, format):
    export = getattr(cct_export, f"export_{format}")
    exported = export(random_model(SMALL, 4), output=tmp_path / f"m.{format}", parity_samples=64)
    assert exported.parity.passed, exported.parity.failures
    assert exported.parity.sqnr_db > 90


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_checkpoint_of_the_published_example_is_folded(tmp_path, format):
    model = published_example()
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "x.weights.h5")
    export = getattr(cct_export, f"export_{format}")
    exported = export(
        tmp_path / "x.weights.h5", output=tmp_path / f"m.{format}", parity_samples=200
    )
    assert exported.parity.passed
    assert exported.parity.max_abs < 2e-5
    found = cct_export.inspect(exported.artifact.path)
    assert (found.macs, found.partitions) == (32_800_768, 1)
    assert found.delegated == found.nodes


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("name", ["query-key", "norm-affine"])
def test_a_fold_that_is_left_out_is_not_in_the_file(in_process, tmp_path, digits_run, name, format):
    path = tmp_path / f"m.{format}"
    arguments = (digits_run, "--no-fold", name, "-o", path, "--samples", 32, "--json", "-")
    ended = in_process("export", format, *arguments)
    assert ended.code == 0, ended.err
    found = cct_export.inspect(path)
    whole = cct_export.export_tflite(
        digits_run, output=tmp_path / "whole.tflite", parity_samples=32
    )
    folded = cct_export.inspect(whole.artifact.path)
    assert (found.macs > folded.macs) == (name == "query-key")
    assert found.parameters > folded.parameters + 32


def test_several_folds_can_be_left_out(in_process, tmp_path, digits_run):
    path = tmp_path / "m.tflite"
    without = [part for name in PASSES for part in ("--no-fold", name)]
    ended = in_process("export", "tflite", digits_run, *without, "-o", path, "--samples", 32)
    assert ended.code == 0, ended.err
    assert "Scale" not in ended.err
    assert cct_export.inspect(path).operators[0].kind == "MUL"


def test_an_unknown_fold_ends_with_2_and_writes_nothing(in_process, tmp_path):
    path = tmp_path / "m.tflite"
    ended = in_process("export", "tflite", "--no-fold", "magic", "-o", path)
    assert ended.code == 2
    assert ended.err == f"error: no fold is called 'magic': choose from {', '.join(PASSES)}\n"
    assert not path.exists()


def test_folds_cannot_be_left_out_of_a_traced_model(tmp_path):
    with pytest.raises(
        InvalidRequest,
        match=r"nothing is folded in plain, which is traced \(conv: the activation elu",
    ):
        cct_export.export_tflite(sequential(), output=tmp_path / "m.tflite", no_fold="query-key")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [12, 24])
def test_a_traced_model_has_the_opsets_of_plans(opset):
    with pytest.raises(InvalidRequest, match="choose 13 to 23"):
        convert(sequential(), ExportSpec("onnx", opset=opset))


@pytest.mark.parametrize("make", [sequential, lambda: random_model(SMALL, 0)])
def test_the_default_opset_is_the_same_on_both_ways(make):
    import onnx

    content = convert(make(), ExportSpec("onnx"))
    assert onnx.load_from_string(content).opset_import[0].version == 20


def test_help_names_every_fold(in_process):
    text = " ".join(in_process("export", "tflite", "--help").out.split())
    assert ", ".join(PASSES) in text.replace("- ", "-")


def test_small_heads_are_exported_with_one_product_for_query_key_and_value(tmp_path):
    model = random_model(replace(SMALL, heads=4, head_dim=4), 1)
    exported = cct_export.export_onnx(model, output=tmp_path / "m.onnx", parity_samples=32)
    assert exported.parity.passed
    kinds = {kind.name: kind.count for kind in cct_export.inspect(tmp_path / "m.onnx").kinds()}
    assert kinds["Slice"] == 6


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_cct_on_jax_is_exported_without_tensorflow(tmp_path, format):
    code = f"""
import sys, cct_export
exported = cct_export.export_{format}("cct_keras_io", output="m.{format}", parity_samples=32)
assert exported.parity.passed, exported.parity.failures
assert not {{"tensorflow", "tf2onnx"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
