"""The picture of an architecture: its boxes against the model that Keras builds."""

import math
from dataclasses import replace

import pytest
from PIL import Image

from cct_export.errors import InvalidModel, OutputError
from cct_export.model.cct import CCT
from cct_export.model.presets import preset
from cct_export.model.sizes import parameters_by_part
from cct_export.specs import ModelSpec
from cct_export.training.diagram import draw, steps

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


def _of(model, *names):
    """Returns the numbers in the weights whose path begins with one of ``names``."""
    return sum(math.prod(w.shape) for w in model.weights if w.path.startswith(names))


def test_the_parts_have_as_many_numbers_as_keras_has_for_them(spec):
    model, found = CCT(spec), parameters_by_part(spec)
    for stage in range(len(spec.filters)):
        assert found[f"convolution {stage + 1}"] == _of(model, f"tokenizer/conv_{stage}/")
    attention = ("attention_norm/", "attention/", "qkv/", "projection/")
    assert found["attention"] == _of(model, *(f"block_0/{name}" for name in attention))
    assert found["mlp"] == _of(model, "block_0/mlp_")
    assert found["positions"] == _of(model, "position_embedding/")
    for name in ("norm", "pooling", "logits"):
        assert found[name] == _of(model, f"{name}/"), name


def test_the_boxes_have_the_shapes_and_all_the_numbers_of_the_model(spec):
    model, boxes = CCT(spec), steps(spec)
    inside = [box for box in boxes if box.group == "block"]
    outside = [box for box in boxes if box.group != "block"]
    each = sum(box.parameters for box in inside)
    assert sum(box.parameters for box in outside) + spec.layers * each == model.count_params()
    tokens = tuple(model.get_layer("tokenizer").output.shape[1:])
    shapes = {box.title: box.shape for box in boxes}
    assert shapes["Image"] == tuple(model.inputs[0].shape[1:])
    assert shapes["Tokens"] == tokens
    assert {box.shape for box in inside} == {tokens}
    rows, columns, channels = shapes[f"Convolution {len(spec.filters)}"]
    assert (rows * columns, channels) == tokens
    assert shapes["Sequence pooling"] == tuple(model.get_layer("pooling").output.shape[1:])
    assert shapes["Logits"] == tuple(model.outputs[0].shape[1:])


def test_what_the_blocks_are_called_says_what_they_are():
    told = [
        (box.title, box.detail, box.residual) for box in steps(SPECS[0]) if box.group == "block"
    ]
    assert told == [
        ("Norm, self-attention", "2 heads of 128", True),
        ("Norm, MLP", "128 → 128 → 128, GELU (tanh)", True),
    ]
    paper = [(box.title, box.residual) for box in steps(SPECS[2]) if box.group == "block"]
    assert paper == [
        ("Norm, self-attention", True), ("Layer normalization", False), ("MLP", True)
    ]  # fmt: skip


def test_the_picture_is_drawn_with_every_colour_of_its_boxes(spec, tmp_path):
    draw(spec, tmp_path / "model.png")
    with Image.open(tmp_path / "model.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.height > picture.width / 2 > 300
        found = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert found >= {(0xEE,) * 3, (0xDB, 0xE6, 0xF1), (0xF6, 0xDF, 0xE3), (0xDF, 0xEC, 0xD8)}


def test_the_same_architecture_gives_the_same_picture_and_another_another(tmp_path):
    for name, spec in (("a", SPECS[0]), ("b", SPECS[0]), ("c", replace(SPECS[0], layers=3))):
        draw(spec, tmp_path / f"{name}.png")
    first, second, other = (
        Image.open(tmp_path / f"{name}.png").convert("RGB").tobytes() for name in "abc"
    )
    assert first == second != other


@pytest.mark.parametrize("name", ["$\\frac{$", "a" * 200, "{}%s\n"])
def test_any_name_can_be_drawn(tmp_path, name):
    draw(ModelSpec(name=name), tmp_path / "model.png")
    with Image.open(tmp_path / "model.png") as picture:
        assert picture.width == 954


def test_what_cannot_be_drawn_leaves_no_picture(tmp_path):
    with pytest.raises(InvalidModel, match="too small"):
        draw(replace(SPECS[0], kernel=40), tmp_path / "model.png")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        draw(SPECS[0], tmp_path / "file" / "model.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
