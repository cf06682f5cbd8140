"""Lowered operations at values that few images have, and beside constants."""

import keras
import numpy as np
import pytest
from changed import kinds, lowered, reason, sequential
from keras import layers, ops

from cct_export.graph.lowering import lower_model
from cct_export.graph.quantized import evaluate


class Written(layers.Layer):
    """A layer of the user's with a function for its call, and a row of values of its own."""

    def __init__(self, function, row=()):
        super().__init__()
        self.function = function
        self.row_shape = row

    def build(self, shape):
        if self.row_shape:
            self.row = self.add_weight(name="row", shape=self.row_shape)

    def call(self, x):
        return self.function(self, x)


def pooled(function):
    """A classifier of what a function makes of features some of which are 0 in plain images."""
    model = sequential(
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"),
        Written(function),
        layers.Dense(3),
    )
    model.layers[1].bias.assign(np.full(4, -0.4))
    return model


def mean_square(x):
    return ops.mean(ops.square(x), axis=(1, 2))


ROOTS_OF_ZERO = {
    "mean of squares": lambda _, x: ops.sqrt(mean_square(x)),
    "power": lambda _, x: ops.power(mean_square(x), 0.5),
    "of the values": lambda _, x: ops.sqrt(ops.mean(x, axis=(1, 2))),
    "something may cancel": lambda _, x: ops.sqrt(mean_square(x) - 0.01),
}


@pytest.mark.parametrize("case", ROOTS_OF_ZERO)
def test_a_root_of_values_that_may_be_zero_is_not_lowered(case):
    assert "the square root of values that may be 0" in reason(pooled(ROOTS_OF_ZERO[case]))


ROOTS = {
    "added before": lambda _, x: ops.sqrt(mean_square(x) + 1e-6),
    "of the last axis": lambda _, x: ops.mean(
        x / ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True) + 1e-4), axis=(1, 2)
    ),
    "doubled": lambda _, x: ops.sqrt(2 * mean_square(x) + 1e-6),
}


@pytest.mark.parametrize("case", ROOTS)
def test_a_root_of_values_above_zero_is_lowered(case):
    model = pooled(ROOTS[case])
    lowered(model)
    plain = np.stack([np.full((12, 12, 3), color, np.float32) for color in (0, 77, 255)])
    plain = np.concatenate([plain, plain * (1, 0, 0), plain * (0, 0, 1)]).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(plain))
    np.testing.assert_allclose(evaluate(lower_model(model).plan, plain), expected, atol=1e-5)


def tokens(function, row=(1, 1, 12)):
    return sequential(
        layers.Rescaling(1 / 255),
        layers.Conv2D(12, 3, 3),
        layers.Reshape((16, 12)),
        Written(function, row),
        layers.Dense(3),
        layers.Flatten(),
    )


def of_batch(self, x):
    return ops.broadcast_to(self.row, (ops.shape(x)[0], *self.row.shape[1:]))


BESIDE = {
    "before": lambda self, x: ops.concatenate([of_batch(self, x), x], axis=1),
    "behind": lambda self, x: ops.concatenate([x, of_batch(self, x)], axis=-2),
    "around": lambda self, x: ops.concatenate([of_batch(self, x), x, of_batch(self, x)], axis=1),
    "repeated": lambda self, x: ops.concatenate(
        [ops.repeat(self.row, ops.shape(x)[0], axis=0), x], axis=1
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_tokens_of_the_model_join_those_of_the_image(case):
    assert "ZeroPad" in kinds(lowered(tokens(BESIDE[case])))


def test_rows_of_the_model_join_a_map():
    function = lambda self, x: ops.concatenate([x, of_batch(self, x)], axis=1)  # noqa: E731
    lowered(
        sequential(
            layers.Rescaling(1 / 255), Written(function, (1, 2, 12, 3)), layers.Flatten(),
            layers.Dense(3),
        )
    )  # fmt: skip


def test_channels_of_the_model_beside_those_of_the_image_are_not_lowered():
    function = lambda self, x: ops.concatenate([x, of_batch(self, x)], axis=-1)  # noqa: E731
    assert "a tensor and constants along its last axis" in reason(tokens(function, (1, 16, 2)))


def test_what_a_users_activation_does_before_its_relu_stays():
    shifted = lambda x: ops.relu(x - 0.2)  # noqa: E731
    lowered(
        sequential(
            layers.Rescaling(1 / 255), layers.Conv2D(6, 3, activation=shifted),
            layers.GlobalAveragePooling2D(), layers.Dense(3, activation=shifted),
        )
    )  # fmt: skip
