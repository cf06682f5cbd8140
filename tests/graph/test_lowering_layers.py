"""Keras' own layers, in small classifiers of other kinds."""

import keras
import numpy as np
import pytest
from changed import kinds, lowered, sequential, trained
from keras import layers

from cct_export.graph.lowering import lower_model
from cct_export.graph.lowering.preprocessing import TRAINING_ONLY

SCALED = layers.Rescaling(1 / 255)


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Conv2D(6, 3, activation="relu"), layers.MaxPooling2D()],
        [layers.Conv2D(6, (2, 4), (1, 2), padding="same", use_bias=False)],
        [layers.Conv2D(6, 3), layers.BatchNormalization(), layers.Activation("relu")],
        [layers.Conv2D(6, 3), layers.BatchNormalization(scale=False, center=False)],
        [layers.Conv2D(6, 3), layers.ReLU(6), layers.AveragePooling2D(3, 2, "same")],
        [layers.ZeroPadding2D(((0, 1), (2, 0))), layers.Conv2D(6, 3, 2)],
        [layers.Cropping2D(((1, 2), (0, 3))), layers.MaxPooling2D(3, 1, "same")],
        [layers.CenterCrop(8, 7), layers.Conv2D(6, 3)],
        [layers.Conv2D(6, 3), layers.LayerNormalization(scale=False)],
        [layers.Conv2D(6, 3), layers.LayerNormalization(center=False, epsilon=0.1)],
        [layers.Conv2D(6, 3), layers.Softmax(axis=-2), layers.Permute((3, 1, 2))],
        [layers.Reshape((-1, 6)), layers.EinsumDense("bti,io->bto", (72, 7), bias_axes="o")],
        [layers.EinsumDense("abij,jkl->abikl", (12, 12, 2, 5), bias_axes="kl")],
        [layers.EinsumDense("...x,xy->...y", 7, bias_axes="y")],
        [layers.EinsumDense("abcd,bce->aed", (4, 3), bias_axes="e")],
        [layers.EinsumDense("abcd,de->aecb", (5, 12, 12), bias_axes="e", activation="tanh")],
        [layers.Conv2D(6, 3), layers.RMSNormalization()],
        [layers.Resizing(7, 9), layers.Resizing(20, 12), layers.Conv2D(6, 3)],
        [layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6], invert=True)],
        [layers.Dense(5, activation="tanh"), layers.Identity()],
    ],
    ids=lambda stack: "-".join(layer.name for layer in stack),
)
def test_a_small_classifier_is_lowered(stack):
    lowered(sequential(SCALED, *stack, layers.Flatten(), layers.Dense(3)))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("kind", ["Average", "Max"])
def test_global_pooling_is_lowered(kind, keepdims):
    maps = getattr(layers, f"Global{kind}Pooling2D")(keepdims=keepdims)
    tokens = getattr(layers, f"Global{kind}Pooling1D")(keepdims=keepdims)
    for stack in ([maps], [layers.Reshape((-1, 6)), tokens]):
        lowered(sequential(SCALED, layers.Conv2D(6, 3), *stack, layers.Flatten(), layers.Dense(3)))


def test_an_affine_front_in_several_layers_is_one_step():
    front = [
        layers.Rescaling(1 / 127.5, -1),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.4, 0.5, 0.6]),
        layers.BatchNormalization(),
    ]
    found = kinds(lowered(sequential(*front, layers.Conv2D(4, 3), layers.Flatten())))
    assert found == ["Scale", "Conv", "Reshape"]


def test_branches_of_a_functional_model_are_merged():
    image = keras.Input((12, 12, 3))
    a = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image))
    b = layers.Conv2D(4, 3, activation="silu")(layers.Rescaling(1 / 127.5, -1)(image))
    merged = layers.Multiply()([layers.Add()([a, b, a]), layers.Subtract()([b, a])])
    lowered(trained(keras.Model(image, layers.Dense(3)(layers.Flatten()(merged)))))


def test_models_inside_models_are_lowered():
    inner = keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(4, 3)], name="inner")
    image = keras.Input((12, 12, 3))
    middle = keras.Model(image, {"features": inner(image) + inner(image)}, name="middle")
    image = keras.Input((12, 12, 3))
    x = middle(layers.Rescaling(1 / 255)(image))["features"]
    plan = lowered(trained(keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))))
    conv, again, total = [step.output for step in plan.steps][1:4]
    assert conv.startswith("middle/inner/conv2d")
    assert again.startswith(conv)
    assert total.startswith("middle/add")


def test_a_layer_that_is_used_twice_has_two_steps():
    dense = layers.Dense(6, activation="relu", name="shared")
    image = keras.Input((12, 12, 3))
    x = layers.Dense(6)(layers.Flatten()(layers.Rescaling(1 / 255)(image)))
    plan = lowered(trained(keras.Model(image, dense(dense(x)))))
    names = [step.output for step in plan.steps]
    assert names[-4:] == ["shared", "shared/relu", "shared_1", "logits"]


@pytest.mark.parametrize("name", TRAINING_ONLY)
def test_layers_of_training_return_their_input(name):
    arguments = {"rate": 0.3, "factor": 0.3, "l2": 0.1, "stddev": 0.3, "height_factor": 0.3}
    arguments |= {"width_factor": 0.3} | ({"factor": 4} if name == "RandomPosterization" else {})
    kind = getattr(layers, name)
    taken = kind.__init__.__code__.co_varnames
    layer = kind(**{key: value for key, value in arguments.items() if key in taken})
    shape = {"SpatialDropout1D": (4, 5), "SpatialDropout3D": (2, 3, 4, 5)}.get(name, (12, 12, 3))
    x = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)


def test_random_layers_in_front_leave_nothing_in_the_plan():
    front = [
        layers.RandomCrop(12, 12),
        layers.RandomFlip(),
        layers.RandomShear(0.1),
        layers.RandAugment((0, 255)),
        layers.GaussianNoise(0.1),
    ]
    stack = [SCALED, layers.Conv2D(4, 3), layers.SpatialDropout2D(0.3), layers.Flatten()]
    assert kinds(lowered(sequential(*front, *stack))) == ["Scale", "Conv", "Reshape"]


def test_a_model_for_batches_of_four_is_lowered():
    image = keras.Input(batch_shape=(4, 12, 12, 3))
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image))
    x = keras.ops.reshape(x, (4, 100, 4))
    lowered(trained(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))))


def test_a_model_of_whole_numbers_is_lowered():
    image = keras.Input((12, 12, 3), dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    assert lower_model(trained(keras.Model(image, layers.Dense(3)(x)))).plan is not None


def test_resnet_is_lowered():
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=4)
    found = kinds(lowered(model))
    assert found.count("Conv") == 53
    assert found[-1] == "Softmax"


@pytest.mark.parametrize("softmax", [False, True])
def test_slots_of_classes_are_lowered(softmax):
    stack = [layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(4 * 5), layers.Reshape((4, 5))]
    plan = lowered(sequential(*stack, *[layers.Softmax()] * softmax))
    assert plan.shapes[plan.output] == (4, 5)
