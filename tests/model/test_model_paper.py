"""The paper's block, tokenizer and positions against their formulas in numpy."""

import itertools
import json
import math

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cct_export.model import layers
from cct_export.model.blocks import PaperBlock, gelu_exact, gelu_tanh
from cct_export.model.cct import CCT
from cct_export.model.presets import preset
from cct_export.specs import ModelSpec

erf = np.vectorize(math.erf)


def norm(x, gamma, beta):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attention(x, qkv, heads):
    """One sample, one head after the other: ``(tokens, width)`` to the same."""
    width = x.shape[1]
    size = width // heads
    q, k, v = (x @ qkv[:, part * width : (part + 1) * width] for part in range(3))
    sums = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        sums.append(softmax(q[:, own] @ k[:, own].T / np.sqrt(size)) @ v[:, own])
    return np.concatenate(sums, axis=1)


def paper_block(x, weights, heads):
    """The block of arXiv:2104.05704's code for one sample, in float64."""
    gamma, beta, qkv, proj, proj_bias, gamma1, beta1, w1, b1, w2, b2 = weights
    x = x + attention(norm(x, gamma, beta), qkv, heads) @ proj + proj_bias
    x = norm(x, gamma1, beta1)
    hidden = x @ w1 + b1
    return x + (0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))) @ w2 + b2


@pytest.fixture
def float64():
    """Lets Keras compute in float64, so that rounding hides no error."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
@pytest.mark.usefixtures("float64")
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    heads=st.integers(1, 4),
    size=st.integers(1, 9),
    hidden=st.integers(1, 20),
    tokens=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_the_block_computes_its_formula(heads, size, hidden, tokens, seed):
    width = heads * size
    random = np.random.default_rng(seed)
    block = PaperBlock(heads, size, (hidden, width), name="b")
    x = random.normal(size=(2, tokens, width))
    block(x)
    weights = [random.normal(0.2, 0.7, weight.shape) for weight in block.get_weights()]
    block.set_weights(weights)
    assert [weight.shape for weight in weights] == [
        (width,), (width,), (width, 3 * width), (width, width), (width,), (width,), (width,),
        (width, hidden), (hidden,), (hidden, width), (width,),
    ]  # fmt: skip
    expected = np.stack([paper_block(sample, weights, heads) for sample in x])
    output = np.asarray(block(x, training=False))
    assert output.dtype == np.float64
    # Keras keeps the epsilon of a norm in float32.
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-7 * abs(expected).max())


def test_the_block_is_rebuilt_from_its_configuration():
    block = PaperBlock(
        2, 4, (5, 8), dropout=0.2, stochastic_depth=0.3, stochastic_depth_mode="batch", name="b"
    )
    again = PaperBlock.from_config(json.loads(json.dumps(block.get_config())))
    assert again.get_config() == block.get_config()
    assert again.attention_depth.mode == again.mlp_depth.mode == "batch"
    assert again.attention_depth.rate == 0.3


@pytest.mark.parametrize("name", ["PaperBlock", "gelu_exact"])
def test_objects_in_files_are_registered(name):
    registered = keras.saving.get_registered_object(f"cct_export>{name}")
    assert registered is {"PaperBlock": PaperBlock, "gelu_exact": gelu_exact}[name]


def test_gelu_is_exact():
    x = np.linspace(-4, 4, 101)
    expected = 0.5 * x * (1 + erf(x / np.sqrt(2)))
    np.testing.assert_allclose(gelu_exact(x.astype(np.float32)), expected, atol=1e-6)
    assert np.abs(np.asarray(gelu_tanh(x.astype(np.float32))) - expected).max() > 1e-4


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 300), width=st.integers(1, 130), data=st.data())
def test_the_sine_table_follows_its_formula(tokens, width, data):
    table = layers.sine_table(tokens, width)
    assert table.shape == (tokens, width)
    row, column = data.draw(st.integers(0, tokens - 1)), data.draw(st.integers(0, width - 1))
    angle = row / 10000 ** (2 * math.floor(column / 2) / width)
    expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
    assert table[row, column] == pytest.approx(expected, abs=1e-12)


def test_sine_positions_are_the_table_and_never_trainable():
    embedding = layers.PositionEmbedding("sine")
    tokens = np.zeros((1, 7, 6), np.float32)
    added = np.asarray(embedding(tokens))[0]
    np.testing.assert_allclose(added, layers.sine_table(7, 6), atol=1e-7)
    assert embedding.trainable_weights == []
    embedding.trainable = True
    assert embedding.trainable_weights == []
    assert len(embedding.weights) == 1


def tokenize(image, kernels, stride, padding):
    """The paper's tokenizer of one image, loop by loop: convolution, ReLU, max pool 3/2/1."""
    for kernel in kernels:
        size = len(kernel)
        padded = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)))
        places = range(0, len(padded) - size + 1, stride)
        image = np.array(
            [
                [np.tensordot(padded[r : r + size, c : c + size], kernel, 3) for c in places]
                for r in places
            ]
        )
        image = np.pad(np.maximum(image, 0), ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        places = range(0, len(image) - 2, 2)
        image = np.array(
            [[image[r : r + 3, c : c + 3].max((0, 1)) for c in places] for r in places]
        )
    return image.reshape(-1, image.shape[-1])


@settings(max_examples=12, deadline=None)
@given(
    size=st.integers(9, 20),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 3),
    stages=st.integers(1, 2),
)
def test_the_tokenizer_computes_its_formula(size, kernel, stride, padding, stages):
    random = np.random.default_rng(size)
    tokenizer = layers.ConvTokenizer((4, 5)[:stages], kernel, stride, padding, "paper")
    image = random.normal(size=(size, size, 3))
    try:
        shape = tokenizer.compute_output_shape((1, size, size, 3))
        tokens = np.asarray(tokenizer(image[None].astype(np.float32)))
    except ValueError:
        return  # too small an image, see test_model_sizes
    assert tokens.shape == shape
    expected = tokenize(image, tokenizer.get_weights(), stride, padding)
    np.testing.assert_allclose(tokens[0], expected, atol=1e-4)


def test_the_pools_of_example_and_paper_have_different_borders():
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    borders = ("keras", "paper")
    shapes = [layers.ConvTokenizer((4,), 3, 1, 1, border)(image).shape[1] for border in borders]
    assert shapes == [25, 16]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "paper"}, r"share the width of 128 equally: 2 of 128 do not"),
        ({"block": "vit"}, "block must be 'keras' or 'paper', not 'vit'"),
        ({"stochastic_depth_mode": "x"}, "'sample' or 'sample-unscaled' or 'batch', not 'x'"),
        ({"mean": (0.5,)}, "mean must name a value for each of 3 channels"),
        ({"std": (0.5, 0.5)}, "std must name a value for each of 3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above 0"),
        ({"std": (0.5, float("nan"), 0.5)}, "std must be a number, not nan"),
    ],
)
def test_an_inconsistent_spec_of_the_paper_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(**fields)


def test_all_matrices_have_different_initial_values():
    block = CCT(preset("cct_2_3x2_32")).get_layer("block_0")
    square = [layer.get_weights()[0] for layer in (block.projection, *block.mlp)]
    assert [matrix.shape for matrix in square] == [(128, 128)] * 3
    for first, second in itertools.combinations(square, 2):
        assert not np.array_equal(first, second)
    assert not np.array_equal(block.qkv.get_weights()[0][:, :128], square[0])
