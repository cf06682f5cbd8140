"""``cct-export inspect`` of presets and models: layers, parameters, multiply-accumulates."""

import subprocess
import sys

import keras
import pytest

import cct_export
from cct_export.graph.lower import lower
from cct_export.model.cct import CCT
from cct_export.model.presets import PRESETS, preset
from cct_export.specs import ModelSpec

SMALL = [name for name, spec in PRESETS.items() if spec.layers < 6]


@pytest.mark.parametrize("name", [*SMALL, "cct_7_7x2_224_sine"])
def test_the_layers_of_a_preset_add_up_to_the_keras_model_and_its_plan(name):
    report = cct_export.inspect_model(name)
    model = CCT(preset(name))
    fixed = sum(weight.shape.num_elements() for weight in model.non_trainable_weights)
    assert report.trainable + report.fixed == model.count_params()
    assert report.fixed == fixed
    assert (fixed > 0) == ("sine" in name)
    plan = lower(model)
    assert [layer.name for layer in report.layers] == [step.output for step in plan.steps]
    assert report.macs == plan.total_macs
    assert report.image_shape == model.input_shape[1:]
    assert report.classes == preset(name).classes
    assert report.folded.macs <= report.macs


def test_the_layers_of_a_preset_are_known_without_keras():
    code = (
        "import sys, cct_export; print(cct_export.inspect_model('cct_7_3x1_32').trainable, "
        "any(name in sys.modules for name in ('keras', 'tensorflow', 'jax')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "3760139 False\n"


@pytest.mark.parametrize("name", SMALL)
def test_a_preset_has_the_layers_and_cost_of_a_model_in_keras(name):
    model = CCT(preset(name))
    assert cct_export.inspect_model(name) == cct_export.inspect_model(model)


@pytest.mark.parametrize("name", ["cct_keras_io_example", "cct-keras-io-example"])
def test_weights_with_a_name_of_their_own_are_inspected_as_a_model(name):
    report = cct_export.inspect_model(name)
    assert report.layers == cct_export.inspect_model("cct_keras_io").layers
    assert report.labels[:2] == ("airplane", "automobile")


def test_every_layer_has_as_many_weights_as_in_keras():
    layers = {layer.name: layer for layer in cct_export.inspect_model("cct_2_3x2_32").layers}
    width = 128
    assert layers["tokenizer/1/conv"].trainable == 9 * 64 * width
    assert layers["block_1/attention"].trainable == 4 * width * width + width
    assert layers["block_1/attention"].macs == 64 * 4 * width * width + 2 * 64 * 64 * width
    assert layers["block_0/mlp_norm"].trainable == 2 * width
    assert layers["pooling"].trainable == width + 1
    assert layers["logits"].trainable == 10 * width + 10
    assert layers["logits"].shape == (10,)
    assert layers["tokenizer/tokens"].shape == (64, width)


def test_the_attention_of_the_published_example_is_one_layer():
    layers = {layer.name: layer for layer in cct_export.inspect_model("cct_keras_io").layers}
    assert layers["block_0/attention"].trainable == 3 * (128 * 256 + 256) + 256 * 128 + 128
    assert layers["position_embedding"].trainable == 64 * 128


def test_a_preset_is_shown_as_table_and_as_json(in_process):
    ended = in_process("export", "inspect", "cct_2_3x2_32_sine", "--json", "-")
    assert ended.code == 0, ended.err
    record = ended.record["model"]
    assert record["totals"] == {
        "trainable": 275_531, "fixed": 8_192, "parameters": 283_723, "macs": 35_341_568,
    }  # fmt: skip
    assert ModelSpec(**record["spec"]) == preset("cct_2_3x2_32_sine")
    assert record["layers"][1] == {
        "name": "tokenizer/0/conv", "kind": "Conv", "shape": [32, 32, 64],
        "trainable": 1_728, "fixed": 0, "macs": 1_769_472,
    }  # fmt: skip
    lines = in_process("export", "inspect", "cct_2_3x2_32_sine").out.splitlines()
    assert lines[0] == "cct_2_3x2_32_sine: images of 32×32×3 to 10 logits"
    rows = [line.split() for line in lines]
    assert ["tokenizer/0/conv", "Conv", "32×32×64", "1,728", "–", "1,769,472"] in rows
    assert ["position_embedding", "AddConstant", "64×128", "–", "8,192", "–"] in rows
    assert ["total", "275,531", "8,192", "35,341,568"] in rows
    assert lines[-1].startswith("as exported, folded: ")


def test_a_run_directory_is_shown_with_its_labels(in_process, digits_run):
    ended = in_process("export", "inspect", digits_run)
    assert ended.code == 0, ended.err
    assert "32×32×3 to 10 logits (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)" in ended.out


def test_a_model_that_is_no_cct_is_shown_without_cost(in_process, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.save(tmp_path / "cnn.keras")
    ended = in_process("export", "inspect", tmp_path / "cnn.keras", "--json", "-")
    assert ended.code == 0, ended.err
    record = ended.record["model"]
    fixed = sum(weight.shape.num_elements() for weight in model.non_trainable_weights)
    assert record["totals"] == {
        "trainable": model.count_params() - fixed, "fixed": fixed, "macs": None,
        "parameters": model.count_params(),
    }  # fmt: skip
    assert record["spec"] is None
    assert record["folded"]["steps"] < 5
    assert [layer["kind"] for layer in record["layers"]][-4:] == [
        "Conv2D", "BatchNormalization", "Flatten", "Dense",
    ]  # fmt: skip
    ended = in_process("export", "inspect", tmp_path / "cnn.keras")
    assert "as exported, folded: " in ended.out
    total = next(line.split() for line in ended.out.splitlines() if line.startswith("total"))
    assert total == ["total", "338", "8", "?"]


def test_a_model_that_is_traced_names_where_its_cost_is(in_process, tmp_path):
    stack = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "elu")]
    keras.Sequential(stack).save(tmp_path / "elu.keras")
    ended = in_process("export", "inspect", tmp_path / "elu.keras", "--json", "-")
    assert ended.record["model"]["folded"] is None
    ended = in_process("export", "inspect", tmp_path / "elu.keras")
    assert "is traced as a whole: inspect the exported file for its cost" in ended.err


@pytest.mark.parametrize("more", [("--against", "m.tflite"), ("--tensors",)])
def test_options_for_files_are_refused_for_models(in_process, more):
    ended = in_process("export", "inspect", "cct_2_3x2_32", *more)
    assert ended.code == 2
    assert "--against and --tensors are for .tflite and .onnx files" in ended.err


def test_an_unknown_preset_is_refused_and_the_presets_are_listed(in_process):
    ended = in_process("export", "inspect", "vit_huge")
    assert ended.code == 2
    assert "no preset is called 'vit_huge': choose from cct_keras_io, cct_2_3x2_32, " in ended.err
    assert "-v shows" not in ended.err
    assert "..." not in ended.err
    assert len(ended.err.splitlines()) == 1
