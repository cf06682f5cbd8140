"""A CCT that was changed is still lowered, with its attention and its pooling."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from changed import WIDTH, changed_example, kinds, lowered, stages, trained
from keras import layers, ops
from published import published_example

from cct_export.graph.fold import fold
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec


def adapted():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3)).astype("float32"))
    return normalization


CHANGES = {
    "nothing": {},
    "softmax": {"outputs": "softmax"},
    "sigmoid": {"outputs": "sigmoid"},
    "another dense layer": {"head": (12,)},
    "ReLU": {"activation": "relu"},
    "SiLU": {"activation": "silu"},
    "exact GELU": {"activation": "gelu"},
    "a function of the user's": {"activation": lambda x: ops.gelu(x, approximate=False)},
    "a wider MLP": {"mlp": (40, WIDTH)},
    "a deeper MLP": {"mlp": (40, 20, WIDTH)},
    "a single dense layer": {"mlp": (WIDTH,)},
    "epsilon": {"epsilon": 1e-3},
    "three heads of another size": {"heads": 3, "key_dim": 5},
    "values of another size": {"value_dim": 7},
    "attention without bias": {"attention_bias": False},
    "no positions": {"positional": False},
    "no blocks": {"blocks": 0},
    "a bias in the convolution": {"tokenizer": lambda: stages(bias=True)},
    "a larger kernel and stride": {"tokenizer": lambda: stages(5, 2, "same")},
    "average pooling": {"tokenizer": lambda: stages(pool=layers.AveragePooling2D)},
    "BatchNormalization": {"tokenizer": lambda: stages(norm=True)},
    "24×48 pixels": {"shape": (24, 48, 3)},
    "grey": {"shape": (16, 16, 1)},
    "64 pixels": {"shape": (64, 64, 3)},
    "100 classes": {"classes": 100},
    "-1 to 1": {"front": lambda: [layers.Rescaling(1 / 127.5, -1)]},
    "rescaling by channel": {"front": lambda: [layers.Rescaling([0.1, 0.2, 0.3], [1, 2, 3])]},
    "given normalization": {
        "front": lambda: [layers.Normalization(mean=[120, 110, 90], variance=[900, 800, 700])]
    },
    "one mean and variance": {
        "front": lambda: [layers.Normalization(axis=None, mean=120, variance=900)]
    },
    "adapted normalization": {"front": lambda: [adapted()]},
    "normalization after rescaling": {
        "front": lambda: [
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.1, 0.2, 0.3]),
        ]
    },
    "resizing": {
        "shape": (20, 30, 3),
        "front": lambda: [layers.Resizing(16, 16), layers.Rescaling(1 / 255)],
    },
    "augmentation": {
        "front": lambda: [
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.1),
            layers.RandomTranslation(0.1, 0.1),
            layers.Rescaling(1 / 255),
        ]
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_example_is_lowered_with_attention_and_pooling(name):
    changes = {
        key: value() if callable(value) and key in ("front", "tokenizer") else value
        for key, value in CHANGES[name].items()
    }
    found = kinds(lowered(changed_example(**changes)))
    assert found.count("Attention") == changes.get("blocks", 2)
    assert found.count("SequencePool") == 1
    assert not {"MatMul", "Transpose"} & set(found)


def test_mean_pooling_is_one_step():
    found = kinds(lowered(changed_example(pooling=layers.GlobalAveragePooling1D)))
    assert found[-2:] == ["GlobalPool", "Dense"]


def test_the_front_is_folded_into_the_first_convolution():
    model = changed_example(front=[layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6])])
    assert kinds(lowered(model))[0] == "Scale"
    assert kinds(fold(lowered(model)))[0] == "Conv"


def test_the_published_example_has_the_folds_of_a_cct_and_the_names_of_its_layers():
    model = published_example()
    plan = lowered(model)
    assert fold(plan).total_macs == 32_800_768
    names = [step.output for step in plan.steps]
    assert names[1] == "cct_tokenizer/sequential/conv2d" or "conv2d" in names[1]
    attentions = [layer.name for layer in model.layers if "attention" in layer.name]
    assert [step.output for step in plan.steps if step.kind == "Attention"] == attentions
    assert names[-2].startswith("sequence_pooling")


@pytest.mark.parametrize("block", ["keras", "paper"])
def test_layers_of_this_package_in_another_model_are_lowered_as_in_its_own(block):
    spec = ModelSpec(filters=(6, 16), mlp_units=(24, 16), heads=2, head_dim=8, block=block)
    cct = CCT(replace(spec, gelu="exact" if block == "paper" else "tanh"))
    probabilities = layers.Softmax()(cct.outputs[0])
    plan = lowered(trained(keras.Model(cct.inputs[0], probabilities)))
    own = lowered(cct)
    assert kinds(plan) == [*kinds(own), "Softmax"]
    assert fold(plan).total_macs == fold(own).total_macs


def test_names_do_not_depend_on_what_the_process_built_before():
    def names():
        keras.backend.clear_session()
        plan = lowered(changed_example(blocks=1))
        return [step.output for step in plan.steps]

    first = names()
    for _ in range(3):
        layers.Conv2D(2, 3)(keras.Input((8, 8, 3)))
    assert [name for name in names() if "/" in name] == [name for name in first if "/" in name]
