"""What is read from the graph of a Keras model about its outputs."""

import keras
import pytest
from keras import layers
from output_kinds import HEADS, SHAPE, model_of

from cct_export.model.outputs import outputs_of


def _read(head):
    image = keras.Input(SHAPE)
    return outputs_of(keras.Model(image, head(layers.Flatten()(image))))


@pytest.mark.parametrize("kind", HEADS)
def test_shapes_and_activations_of_every_kind_of_head(kind):
    model = model_of(kind)
    outputs = outputs_of(model)
    assert [output.activation for output in outputs] == HEADS[kind][1]
    assert [output.shape for output in outputs] == [tensor.shape[1:] for tensor in model.outputs]
    names = ["weather", "indoors", "plate"] if kind == "several" else ["logits"]
    assert [output.name for output in outputs] == names


ENDS = {
    "an activation layer": (lambda x: layers.Activation("softmax")(layers.Dense(4)(x)), "softmax"),
    "a linear activation layer": (
        lambda x: layers.Activation("linear")(layers.Dense(4)(x)),
        "none",
    ),
    "a softmax of keras.ops": (lambda x: keras.ops.softmax(layers.Dense(4)(x)), "softmax"),
    "a sigmoid of keras.ops": (lambda x: keras.ops.sigmoid(layers.Dense(4)(x)), "sigmoid"),
    "dropout after a softmax": (
        lambda x: layers.Dropout(0.5)(layers.Dense(4, activation="softmax")(x)),
        "softmax",
    ),
    "a softmax for each slot, put together": (
        lambda x: layers.Reshape((3, 4))(
            layers.Concatenate()([layers.Dense(4, activation="softmax")(x) for _ in range(3)])
        ),
        "softmax",
    ),
    "a softmax over all slots at once": (
        lambda x: layers.Reshape((3, 4))(layers.Dense(12, activation="softmax")(x)),
        "",
    ),
    "a softmax over the slots": (
        lambda x: layers.Softmax(axis=1)(layers.Reshape((3, 4))(layers.Dense(12)(x))),
        "",
    ),
    "the mean of two softmaxes": (
        lambda x: layers.Average()([layers.Dense(4, activation="softmax")(x) for _ in range(2)]),
        "softmax",
    ),
    "a softmax beside logits": (
        lambda x: layers.Concatenate()(
            [layers.Dense(2, activation="softmax")(x), layers.Dense(2)(x)]
        ),
        "",
    ),
    "a batch normalization": (lambda x: layers.BatchNormalization()(layers.Dense(4)(x)), "none"),
    "a ReLU": (layers.Dense(4, activation="relu"), ""),
    "twice a softmax": (lambda x: 2 * layers.Dense(4, activation="softmax")(x), ""),
    "a model inside": (
        keras.Sequential([layers.Dense(4, activation="sigmoid")]),
        "sigmoid",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_activation_is_known_or_left_open(end):
    head, activation = ENDS[end]
    assert [output.activation for output in _read(head)] == [activation]


def test_names_of_outputs_are_unique_and_not_that_of_the_input():
    image = keras.Input(SHAPE)
    x = layers.Flatten()(image)
    inner = keras.Input(x.shape[1:])
    two = keras.Model(
        inner, [layers.Dense(2, name="a")(inner), layers.Dense(3, name="b")(inner)], name="image"
    )
    names = [output.name for output in outputs_of(keras.Model(image, [*two(x), two(x)[0]]))]
    assert len(set(names)) == 3
    assert "image" not in names
