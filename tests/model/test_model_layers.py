"""Each layer by itself, and what a ``ModelSpec`` refuses."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.model import blocks, layers
from cct_export.model.blocks import SelfAttention
from cct_export.specs import ModelSpec

LAYERS = [
    layers.ConvTokenizer((4, 6), kernel=2, name="t"),
    layers.PositionEmbedding(name="p"),
    blocks.StochasticDepth(0.25, name="d"),
    blocks.TransformerBlock(2, 3, (5, 6), dropout=0.2, stochastic_depth=0.3, name="b"),
    layers.SequencePooling(name="s"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_is_rebuilt_from_its_configuration(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    for key in config.keys() & vars(layer).keys():
        if key != "dtype":
            assert getattr(again, key) == getattr(layer, key)


def test_the_configuration_holds_every_argument():
    config = LAYERS[3].get_config()
    expected = {"heads": 2, "head_dim": 3, "mlp_units": [5, 6], "dropout": 0.2}
    assert config.items() >= (expected | {"stochastic_depth": 0.3}).items()
    assert LAYERS[0].get_config().items() >= {"filters": [4, 6], "kernel": 2}.items()
    assert LAYERS[2].get_config()["rate"] == 0.25


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_is_registered_for_loading(layer):
    name = f"cct_export>{type(layer).__name__}"
    assert keras.saving.get_registered_object(name) is type(layer)


def test_stochastic_depth_keeps_the_expectation():
    keras.utils.set_random_seed(0)
    rate, samples = 0.3, 20_000
    branch = np.full((samples, 1, 1), 2.0, np.float32)
    dropped = np.asarray(blocks.StochasticDepth(rate)(branch, training=True))
    deviation = 2 * np.sqrt(rate / (1 - rate) / samples)
    assert abs(dropped.mean() - 2) < 4 * deviation
    assert abs((dropped == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / samples)
    assert np.unique(dropped) == pytest.approx([0, 2 / (1 - rate)])


def test_stochastic_depth_drops_whole_samples():
    branch = np.random.default_rng(0).uniform(1, 2, (200, 4, 3)).astype(np.float32)
    dropped = np.asarray(blocks.StochasticDepth(0.5)(branch, training=True))
    is_dropped = (dropped == 0).all(axis=(1, 2))
    assert 0 < is_dropped.sum() < 200
    np.testing.assert_allclose(dropped[~is_dropped], branch[~is_dropped] * 2, rtol=1e-6)


@pytest.mark.parametrize(("rate", "training"), [(0.9, False), (0.9, None), (0.0, True)])
def test_stochastic_depth_drops_nothing_at_inference_and_at_rate_zero(rate, training):
    branch = np.ones((50, 2, 3), np.float32)
    assert np.array_equal(blocks.StochasticDepth(rate)(branch, training=training), branch)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_an_invalid_stochastic_depth_rate_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        blocks.StochasticDepth(rate)
    with pytest.raises(ValueError, match="stochastic_depth"):
        ModelSpec(stochastic_depth=rate)


def test_gelu_tanh_computes_its_formula():
    x = np.linspace(-4, 4, 101)
    formula = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(blocks.gelu_tanh(x.astype(np.float32)), formula, atol=1e-6)


def test_pooling_is_the_mean_of_the_tokens_weighted_by_a_softmax():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    pooling = layers.SequencePooling()
    pooled = np.asarray(pooling(tokens))
    kernel, bias = pooling.get_weights()
    scores = np.exp(tokens @ kernel + bias)
    expected = (tokens * scores / scores.sum(axis=1, keepdims=True)).sum(axis=1)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_pooling_of_equal_tokens_is_that_token():
    tokens = np.tile(np.arange(4, dtype=np.float32), (1, 7, 1))
    np.testing.assert_allclose(layers.SequencePooling()(tokens)[0], np.arange(4), atol=1e-6)


def test_the_position_embedding_adds_its_table():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    embedding = layers.PositionEmbedding()
    added = np.asarray(embedding(tokens)) - tokens
    (table,) = embedding.get_weights()
    assert table.shape == (5, 4)
    np.testing.assert_allclose(added, np.stack([table, table]), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positional": "cosine"}, "'learnable' or 'sine' or 'none', not 'cosine'"),
        ({"labels": ("a", "b")}, "2 labels for 10 classes"),
        ({"mlp_units": (128, 64)}, r"\(64\) must equal the width \(128\)"),
        ({"filters": (64, 32)}, r"\(128\) must equal the width \(32\)"),
        ({"filters": ()}, "filters"),
        ({"mlp_units": ()}, "mlp_units"),
        ({"dropout": 1.5}, "dropout"),
        ({"dropout": -0.5}, "dropout"),
    ],
)
def test_an_inconsistent_spec_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(**fields)


@given(
    filters=st.lists(st.integers(1, 512), min_size=1, max_size=4),
    hidden=st.lists(st.integers(1, 512), max_size=3),
    labels=st.lists(st.text(), min_size=2, max_size=4),
)
def test_a_spec_read_back_from_json_equals_the_one_that_was_written(filters, hidden, labels):
    spec = ModelSpec(
        filters=filters, mlp_units=[*hidden, filters[-1]], labels=labels, classes=len(labels)
    )
    assert ModelSpec(**json.loads(json.dumps(spec.to_dict()))) == spec
    assert hash(spec) == hash(ModelSpec(**spec.to_dict()))


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_has_the_loss_and_gradients_of_keras(heads):
    tf = pytest.importorskip("tensorflow")
    random = np.random.default_rng(0)
    tokens = tf.constant(random.normal(size=(4, 5, 8)), tf.float32)
    target = tf.constant(random.normal(size=(4, 5, 8)), tf.float32)
    both = SelfAttention(heads, 6), keras.layers.MultiHeadAttention(heads, 6)
    results = []
    for attention in both:
        attention.build(tokens.shape, tokens.shape)
        attention.set_weights(
            [_weight(index, weight) for index, weight in enumerate(attention.get_weights())]
        )
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((attention(tokens, tokens, training=True) - target) ** 2)
        results.append((float(loss), tape.gradient(loss, attention.trainable_weights)))
    (loss, gradients), (loss_of_keras, gradients_of_keras) = results
    assert loss == pytest.approx(loss_of_keras, rel=1e-5)
    assert len(gradients) == 8
    for ours, theirs in zip(gradients, gradients_of_keras, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    outputs = [np.asarray(layer(tokens, tokens, training=False)) for layer in both]
    assert np.array_equal(*outputs)


def _weight(index, weight):
    """Returns random weights of the same shape, the same for both layers."""
    return np.random.default_rng(index).normal(0, 0.3, weight.shape).astype(np.float32)
