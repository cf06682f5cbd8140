"""Weights taken over from another CCT, and parts that stay as they are."""

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
    Start,
    architecture,
    check_frozen,
    freeze,
    frozen_layers,
    take_over,
)

LABELS = ("a", "b", "c")
TINY = ModelSpec(
    name="tiny", image_size=16, filters=(4, 8), layers=3, heads=2, head_dim=4, mlp_units=(8, 8),
    classes=3, labels=LABELS,
)  # fmt: skip
PAPER = replace(TINY, block="paper", padding=1)


def _trained(spec):
    """A model none of whose weights is where it began."""
    model = CCT(spec)
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def _logits(model, size=16):
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize("spec", [TINY, PAPER, replace(PAPER, positional="sine")])
def test_the_same_architecture_takes_over_every_bit(spec):
    base, model = _trained(spec), CCT(spec)
    assert not np.allclose(_logits(base), _logits(model), atol=1e-3)
    assert take_over(base, model) == []
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
def test_other_classes_get_a_new_head_and_all_else_is_taken_over(changed):
    base, model = _trained(TINY), CCT(replace(TINY, **changed))
    fresh = model.get_layer("logits").get_weights()
    (line,) = take_over(base, model)
    assert line == f"a new head for {model.spec.classes} classes in place of 3"
    for layer in model.layers:
        wanted = fresh if layer.name == "logits" else base.get_layer(layer.name).get_weights()
        for one, other in zip(layer.get_weights(), wanted, strict=True):
            assert np.array_equal(one, other), layer.name


def test_labels_that_a_checkpoint_does_not_know_are_no_reason_for_a_new_head():
    base, model = _trained(replace(TINY, labels=())), CCT(TINY)
    assert take_over(base, model) == [
        "its head is kept: it names no classes, and the data has 3 too"
    ]
    assert np.array_equal(_logits(base), _logits(model))


@pytest.mark.parametrize("spec", [TINY, PAPER])
@pytest.mark.parametrize("size", [9, 32, 41])
def test_at_another_resolution_learned_positions_are_interpolated(spec, size):
    base, model = _trained(spec), CCT(architecture(spec, size))
    (line,) = take_over(base, model)
    (old,), (new,) = (m.get_layer("position_embedding").get_weights() for m in (base, model))
    side, before = int(len(new) ** 0.5), int(len(old) ** 0.5)
    assert line == f"positions of {before}×{before} tokens interpolated to {side}×{side}"
    wanted = interpolate_positions(old, (before, before), (side, side)).astype(np.float32)
    assert np.array_equal(new, wanted)
    kernels = (m.get_layer("block_2").get_weights() for m in (base, model))
    assert all(np.array_equal(*pair) for pair in zip(*kernels, strict=True))
    assert np.isfinite(_logits(model, size)).all()


def test_at_another_resolution_fixed_positions_follow_their_formula():
    spec = replace(PAPER, positional="sine")
    base, model = CCT(spec), CCT(architecture(spec, 32))
    assert take_over(base, model) == []
    (table,) = model.get_layer("position_embedding").get_weights()
    np.testing.assert_allclose(table, sine_table(64, 8), atol=1e-6)


def test_a_start_is_a_cct():
    cnn = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(InvalidModel) as refused:
        Start.of(cnn, "cnn.keras", "0" * 64)
    assert str(refused.value) == "cnn.keras is no CCT (Sequential): fine-tuning begins with one"


def test_every_part_is_a_layer_and_every_layer_with_weights_a_part():
    found = frozen_layers(tuple(PARTS), TINY)
    model = CCT(TINY)
    assert found == {layer.name for layer in model.layers if layer.weights}


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
def test_parts_are_these_layers(parts, frozen):
    assert frozen_layers(parts, TINY) == frozen


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("magic", "no part is called 'magic': there is tokenizer, positions, blocks, norm, "),
        ("", "no part is called ''"),
        ("head:1", "no part is called 'head:1'"),
        ("blocks:0", "'blocks:0' of 3 blocks: give blocks:1 or more"),
        ("blocks:4", "'blocks:4' of 3 blocks"),
        ("blocks:", "'blocks:' of 3 blocks"),
        ("blocks:-1", "'blocks:-1' of 3 blocks"),
        ("blocks:²", "'blocks:²' of 3 blocks"),
    ],
)
def test_what_is_no_part_is_refused(part, message):
    with pytest.raises(InvalidRequest, match=message):
        frozen_layers([part], TINY)


def test_positions_that_there_are_not_cannot_be_frozen():
    with pytest.raises(InvalidRequest, match="tiny has no positions to freeze"):
        frozen_layers(["positions"], replace(TINY, positional="none"))


@pytest.mark.parametrize("positional", ["learnable", "sine", "none"])
def test_freezing_everything_is_refused(positional):
    spec = replace(TINY, positional=positional)
    start = Start(CCT(spec), "base", "")
    parts = ["tokenizer", "blocks", "norm", "pooling", "head"]
    if positional == "learnable":
        check_frozen(parts, spec, start)
        parts.append("positions")
    with pytest.raises(InvalidRequest, match=r"--freeze tokenizer,.* leaves nothing to train"):
        check_frozen(parts, spec, start)
    check_frozen(parts[1:], spec, start)


def test_what_was_never_trained_cannot_be_frozen():
    with pytest.raises(InvalidRequest, match="only what was trained can be frozen"):
        check_frozen(["tokenizer"], TINY, None)
    other = replace(TINY, labels=("x", "y", "z"))
    with pytest.raises(InvalidRequest, match="the head cannot be frozen: it is new"):
        check_frozen(["head"], other, Start(CCT(TINY), "base", ""))


def test_frozen_layers_do_not_train_and_the_others_do():
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


def test_another_depth_mode_is_all_that_changes():
    changed = architecture(TINY, stochastic_depth_mode="batch")
    assert changed == replace(TINY, stochastic_depth_mode="batch")
    with pytest.raises(InvalidRequest, match="stochastic_depth_mode must be 'sample' or"):
        architecture(TINY, stochastic_depth_mode="sometimes")
