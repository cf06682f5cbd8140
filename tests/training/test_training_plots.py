"""Pictures of a run: learning curves, and the architecture against the model that Keras builds."""

import math
from dataclasses import replace

import pytest
from PIL import Image

from cct_export.errors import InvalidModel, OutputError
from cct_export.model.cct import CCT
from cct_export.model.presets import preset
from cct_export.model.sizes import parameters_by_part
from cct_export.specs import ModelSpec
from cct_export.training.plots import boxes, curves, draw_architecture, plot_curves

SPECS = [
    preset("cct_keras_io"),
    replace(preset("cct_keras_io"), layers=3, head_dim=48, mlp_units=(32, 64, 128), channels=1),
    preset("cct_2_3x2_32"),
    replace(preset("cct_2_3x2_32_sine"), image_size=45, classes=3),
    replace(preset("cct_6_3x1_32"), positional="none"),
]


@pytest.fixture(params=SPECS, ids=lambda spec: f"{spec.name}-{spec.image_size}-{spec.positional}")
def spec(request):
    return request.param


def _parameters(model, *names):
    """Returns the number of parameters in weights whose path starts with one of ``names``."""
    return sum(math.prod(w.shape) for w in model.weights if w.path.startswith(names))


def test_every_part_has_the_number_of_parameters_that_keras_has(spec):
    model, counts = CCT(spec), parameters_by_part(spec)
    for stage in range(len(spec.filters)):
        assert counts[f"convolution {stage + 1}"] == _parameters(model, f"tokenizer/conv_{stage}/")
    attention = ("attention_norm/", "attention/", "qkv/", "projection/")
    assert counts["attention"] == _parameters(model, *(f"block_0/{name}" for name in attention))
    assert counts["mlp"] == _parameters(model, "block_0/mlp_")
    assert counts["positions"] == _parameters(model, "position_embedding/")
    for name in ("norm", "pooling", "logits"):
        assert counts[name] == _parameters(model, f"{name}/"), name


def test_the_boxes_have_the_shapes_and_all_the_parameters_of_the_model(spec):
    model, diagram = CCT(spec), boxes(spec)
    inside = [box for box in diagram if box.group == "block"]
    outside = [box for box in diagram if box.group != "block"]
    block = sum(box.parameters for box in inside)
    assert sum(box.parameters for box in outside) + spec.layers * block == model.count_params()
    tokens = tuple(model.get_layer("tokenizer").output.shape[1:])
    shapes = {box.title: box.shape for box in diagram}
    assert shapes["Image"] == tuple(model.inputs[0].shape[1:])
    assert shapes["Tokens"] == tokens
    assert {box.shape for box in inside} == {tokens}
    rows, columns, channels = shapes[f"Convolution {len(spec.filters)}"]
    assert (rows * columns, channels) == tokens
    assert shapes["Sequence pooling"] == tuple(model.get_layer("pooling").output.shape[1:])
    assert shapes["Logits"] == tuple(model.outputs[0].shape[1:])


def test_the_boxes_of_a_block_name_its_operations():
    keras_io = [
        (box.title, box.detail, box.residual) for box in boxes(SPECS[0]) if box.group == "block"
    ]
    assert keras_io == [
        ("Norm, self-attention", "2 heads of 128", True),
        ("Norm, MLP", "128 → 128 → 128, GELU (tanh)", True),
    ]
    relu = replace(SPECS[0], activation="relu")
    assert boxes(relu)[-4].detail == "128 → 128 → 128, ReLU"
    paper = [(box.title, box.residual) for box in boxes(SPECS[2]) if box.group == "block"]
    assert paper == [
        ("Norm, self-attention", True), ("Layer normalization", False), ("MLP", True)
    ]  # fmt: skip


def test_the_diagram_has_the_colour_of_every_group(tmp_path):
    spec = SPECS[2]
    draw_architecture(spec, tmp_path / "model.png")
    with Image.open(tmp_path / "model.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.height > picture.width / 2 > 300
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert colours >= {(0xEE,) * 3, (0xDB, 0xE6, 0xF1), (0xF6, 0xDF, 0xE3), (0xDF, 0xEC, 0xD8)}


def test_equal_architectures_have_equal_diagrams(tmp_path):
    for name, spec in (("a", SPECS[0]), ("b", SPECS[0]), ("c", replace(SPECS[0], layers=3))):
        draw_architecture(spec, tmp_path / f"{name}.png")
    first, second, other = (
        Image.open(tmp_path / f"{name}.png").convert("RGB").tobytes() for name in "abc"
    )
    assert first == second != other


@pytest.mark.parametrize("name", ["$\\frac{$", "a" * 200, "{}%s\n"])
def test_any_name_can_be_drawn(tmp_path, name):
    draw_architecture(ModelSpec(name=name), tmp_path / "model.png")
    with Image.open(tmp_path / "model.png") as picture:
        assert picture.width == 954


def test_a_failed_diagram_leaves_no_file(tmp_path):
    with pytest.raises(InvalidModel, match="too small"):
        draw_architecture(replace(SPECS[0], kernel=40), tmp_path / "model.png")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        draw_architecture(SPECS[0], tmp_path / "file" / "model.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_curves_are_a_picture_of_training_and_validation(finished):
    with Image.open(finished.run.curves_file) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > picture.height > 200
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert colours >= {(0x44, 0x77, 0xAA), (0xCC, 0x66, 0x77)}


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30, 200])
def test_the_ticks_of_the_curves_are_whole_epochs(epochs):
    metrics = [
        {"epoch": epoch, "loss": 1, "accuracy": 0.5, "val_loss": 1 / epoch, "val_accuracy": 0.4}
        for epoch in range(1, epochs + 1)
    ]
    for axes in curves(metrics).axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert all(tick == round(tick) for tick in ticks)
        assert min(2, epochs) <= len(ticks) <= 11


def test_the_curves_of_one_epoch_have_a_visible_point(tmp_path):
    values = {"loss": 2.0, "val_loss": 1.5, "accuracy": 0.3, "val_accuracy": 0.4}
    plot_curves([{"epoch": 1, **values}], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        colours = {colour: count for count, colour in picture.convert("RGB").getcolors(1 << 20)}
    # Two points and their two entries in the legends.
    assert min(colours[(0x44, 0x77, 0xAA)], colours[(0xCC, 0x66, 0x77)]) > 4 * 20
