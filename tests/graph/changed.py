"""The keras.io example with changes, of its own classes and of others, with random weights."""

import keras
import numpy as np
from keras import layers, ops
from published import PositionEmbedding, SequencePooling, StochasticDepth

from cct_export.graph.fold import fold
from cct_export.graph.lowering import lower_model
from cct_export.graph.quantized import evaluate

WIDTH = 16


class Tokenizer(layers.Layer):
    """The example's tokenizer with other layers in it."""

    def __init__(self, stages):
        super().__init__()
        self.conv_model = keras.Sequential(stages)

    def call(self, images):
        maps = self.conv_model(images)
        return ops.reshape(maps, (-1, maps.shape[1] * maps.shape[2], maps.shape[3]))


def stages(kernel=3, stride=1, padding="valid", bias=False, pool=layers.MaxPooling2D, norm=False):
    made = []
    for filters in (8, WIDTH):
        made.append(
            layers.Conv2D(
                filters,
                kernel,
                stride,
                padding,
                use_bias=bias,
                activation=None if norm else "relu",
            )
        )
        if norm:
            made += [layers.BatchNormalization(), layers.ReLU()]
        made += [layers.ZeroPadding2D(1), pool(3, 2, "same")]
    return made


def changed_example(
    shape=(16, 16, 3),
    front=None,
    tokenizer=None,
    positional=True,
    blocks=2,
    heads=2,
    key_dim=8,
    value_dim=None,
    attention_bias=True,
    mlp=(WIDTH, WIDTH),
    activation=ops.gelu,
    epsilon=1e-5,
    pooling=SequencePooling,
    head=(),
    classes=5,
    outputs=None,
):
    image = layers.Input(shape)
    x = image
    for layer in [layers.Rescaling(1 / 255)] if front is None else front:
        x = layer(x)
    tokens = Tokenizer(stages() if tokenizer is None else tokenizer)(x)
    if positional:
        tokens += PositionEmbedding()(tokens)
    for _ in range(blocks):
        x = layers.LayerNormalization(epsilon=epsilon)(tokens)
        x = layers.MultiHeadAttention(
            heads, key_dim, value_dim, dropout=0.1, use_bias=attention_bias
        )(x, x)
        tokens = layers.Add()([StochasticDepth()(x), tokens])
        x = layers.LayerNormalization(epsilon=epsilon)(tokens)
        for units in mlp:
            x = layers.Dense(units, activation=activation)(x)
            x = layers.Dropout(0.1)(x)
        tokens = layers.Add()([StochasticDepth()(x), tokens])
    pooled = pooling()(layers.LayerNormalization(epsilon=epsilon)(tokens))
    for units in head:
        pooled = layers.Dense(units, activation="relu")(pooled)
    logits = layers.Dense(classes, activation=outputs)(pooled)
    return trained(keras.Model(image, logits))


def trained(model):
    """Adds noise to every weight; variances stay positive."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        noise = random.normal(0, 0.1, weight.shape)
        weight.assign(np.asarray(weight) + (np.abs(noise) if "variance" in weight.path else noise))
    return model


def kinds(plan):
    return [step.kind for step in plan.steps]


def sequential(*stack, shape=(12, 12, 3)):
    """Returns a model of layers, with random weights."""
    return trained(keras.Sequential([keras.Input(shape), *stack], name="stack"))


def lowered(model):
    """Returns the plan of a model after checking it on other images than the proof does."""
    lowering = lower_model(model)
    assert lowering.plan is not None, lowering.reason
    images = np.random.default_rng(5).integers(0, 256, (4, *model.inputs[0].shape[1:]))
    expected = np.asarray(model(images.astype(np.float32), training=False))
    for plan in (lowering.plan, fold(lowering.plan)):
        np.testing.assert_allclose(evaluate(plan, images), expected, rtol=1e-4, atol=2e-5)
    return lowering.plan


def reason(model):
    """Returns why a model is not lowered."""
    lowering = lower_model(model)
    assert lowering.plan is None
    return lowering.reason
