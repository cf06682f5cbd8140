"""Fine-tuning: pretrained weights in a new model, and parts that are not trained."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model.adapting import interpolate_positions
from cct_export.model.cct import CCT
from cct_export.model.layers import sine_table
from cct_export.specs import ModelSpec
from cct_export.training.transfer import (
    PARTS,
    Pretrained,
    architecture,
    check_frozen,
    freeze,
    frozen_layers,
    load_pretrained,
)

LABELS = ("a", "b", "c")
TINY = ModelSpec(
    name="tiny", image_size=16, filters=(4, 8), layers=3, heads=2, head_dim=4, mlp_units=(8, 8),
    classes=3, labels=LABELS,
)  # fmt: skip
PAPER = replace(TINY, block="paper", padding=1)


def _trained(spec):
    """Returns a model without any weight of its initialization."""
    model = CCT(spec)
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def _logits(model, size=16):
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize("spec", [TINY, PAPER, replace(PAPER, positional="sine")])
def test_all_weights_are_copied_to_the_same_architecture(spec):
    base, model = _trained(spec), CCT(spec)
    assert not np.allclose(_logits(base), _logits(model), atol=1e-3)
    assert load_pretrained(base, model) == []
    assert np.array_equal(_logits(base), _logits(model))


@pytest.mark.parametrize(
    "changed",
    [
        {"classes": 5, "labels": tuple("vwxyz")},
        {"classes": 2, "labels": ("a", "b")},
        {"labels": ("a", "b", "other")},
        {"labels": ("c", "b", "a")},
    ],
)
def test_other_classes_get_a_new_head_and_all_other_weights_are_copied(changed):
    base, model = _trained(TINY), CCT(replace(TINY, **changed))
    initial = model.get_layer("logits").get_weights()
    (line,) = load_pretrained(base, model)
    assert line == f"a new head for {model.spec.classes} classes in place of 3"
    for layer in model.layers:
        expected = initial if layer.name == "logits" else base.get_layer(layer.name).get_weights()
        for weight, expected_weight in zip(layer.get_weights(), expected, strict=True):
            assert np.array_equal(weight, expected_weight), layer.name


def test_the_head_of_a_model_without_labels_is_kept():
    base, model = _trained(replace(TINY, labels=())), CCT(TINY)
    assert load_pretrained(base, model) == [
        "its head is kept: it has no labels, and 3 classes like the data"
    ]
    assert np.array_equal(_logits(base), _logits(model))


@pytest.mark.parametrize("spec", [TINY, PAPER])
@pytest.mark.parametrize("size", [9, 32, 41])
def test_at_another_resolution_learned_positions_are_interpolated(spec, size):
    base, model = _trained(spec), CCT(architecture(spec, image_size=size))
    (line,) = load_pretrained(base, model)
    (old,), (new,) = (m.get_layer("position_embedding").get_weights() for m in (base, model))
    side, before = int(len(new) ** 0.5), int(len(old) ** 0.5)
    assert line == f"positions of {before}×{before} tokens interpolated to {side}×{side}"
    expected = interpolate_positions(old, (before, before), (side, side)).astype(np.float32)
    assert np.array_equal(new, expected)
    kernels = (m.get_layer("block_2").get_weights() for m in (base, model))
    assert all(np.array_equal(*pair) for pair in zip(*kernels, strict=True))
    assert np.isfinite(_logits(model, size)).all()


def test_at_another_resolution_sine_positions_are_computed():
    spec = replace(PAPER, positional="sine")
    base, model = CCT(spec), CCT(architecture(spec, image_size=32))
    assert load_pretrained(base, model) == []
    (table,) = model.get_layer("position_embedding").get_weights()
    np.testing.assert_allclose(table, sine_table(64, 8), atol=1e-6)


def test_a_model_that_is_no_cct_cannot_be_fine_tuned():
    cnn = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(InvalidModel) as refused:
        Pretrained.of(cnn, "cnn.keras", "0" * 64)
    assert str(refused.value) == "cnn.keras is no CCT (Sequential): only a CCT can be fine-tuned"


def test_every_part_is_a_layer_and_every_layer_with_weights_a_part():
    layers = {layer.name for layer in CCT(TINY).layers if layer.weights}
    assert frozen_layers(tuple(PARTS), TINY) == layers


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        (("tokenizer",), {"tokenizer"}),
        (("positions", "head"), {"position_embedding", "logits"}),
        (("blocks",), {"block_0", "block_1", "block_2"}),
        (("blocks:2",), {"block_0", "block_1"}),
        (("blocks:1", "blocks:3"), {"block_0", "block_1", "block_2"}),
        ((), set()),
    ],
)
def test_parts_stand_for_layers(parts, frozen):
    assert frozen_layers(parts, TINY) == frozen


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("magic", "no part is called 'magic': choose from tokenizer, positions, blocks, norm, "),
        ("", "no part is called ''"),
        ("head:1", "no part is called 'head:1'"),
        ("blocks:0", "'blocks:0' of 3 blocks: give blocks:1 or more"),
        ("blocks:4", "'blocks:4' of 3 blocks"),
        ("blocks:", "'blocks:' of 3 blocks"),
        ("blocks:-1", "'blocks:-1' of 3 blocks"),
        ("blocks:²", "'blocks:²' of 3 blocks"),
    ],
)
def test_an_unknown_part_is_refused(part, message):
    with pytest.raises(InvalidRequest, match=message):
        frozen_layers([part], TINY)


def test_positions_of_a_model_without_positions_cannot_be_frozen():
    with pytest.raises(InvalidRequest, match="tiny has no positions to freeze"):
        frozen_layers(["positions"], replace(TINY, positional="none"))


@pytest.mark.parametrize("positional", ["learnable", "sine", "none"])
def test_freezing_everything_is_refused(positional):
    spec = replace(TINY, positional=positional)
    parts = ["tokenizer", "blocks", "norm", "pooling", "head"]
    if positional == "learnable":
        check_frozen(parts, spec, spec)
        parts.append("positions")
    with pytest.raises(InvalidRequest, match=r"--freeze tokenizer,.* leaves nothing to train"):
        check_frozen(parts, spec, spec)
    check_frozen(parts[1:], spec, spec)


def test_random_weights_cannot_be_frozen():
    with pytest.raises(InvalidRequest, match="only pretrained weights can be frozen"):
        check_frozen(["tokenizer"], TINY, None)
    other = replace(TINY, labels=("x", "y", "z"))
    with pytest.raises(InvalidRequest, match="the head cannot be frozen: it is new"):
        check_frozen(["head"], other, TINY)


def test_only_layers_that_are_not_frozen_are_trained():
    model = _trained(TINY)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    freeze(model, ["tokenizer", "positions", "blocks:1"])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.float32)
    model.fit(images, np.eye(3)[np.arange(8) % 3], verbose=0)
    frozen = {"tokenizer", "position_embedding", "block_0"}
    for layer in model.layers:
        pairs = zip(before[layer.name], layer.get_weights(), strict=True)
        same = [np.array_equal(*pair) for pair in pairs]
        if same:
            assert all(same) if layer.name in frozen else not all(same), layer.name


def test_the_stochastic_depth_mode_can_be_changed():
    changed = architecture(TINY, stochastic_depth_mode="batch")
    assert changed == replace(TINY, stochastic_depth_mode="batch")
    with pytest.raises(InvalidRequest, match="stochastic_depth_mode must be 'sample' or"):
        architecture(TINY, stochastic_depth_mode="sometimes")
