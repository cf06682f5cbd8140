"""Random architectures with random weights, as plans, for the tests of folds and formats."""

import functools

import keras
import numpy as np
from hypothesis import strategies as st

from cct_export.graph.expand import expand
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.lower import lower
from cct_export.graph.quantized import evaluate
from cct_export.graph.steps import LayerNorm
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec

EXACT = 1e-10


def _tokens_side(size, kernel, stages):
    for _ in range(stages):
        if size < kernel:
            return 0
        size = (size - kernel + 1 + 2 + 1) // 2
    return size


@st.composite
def specs(draw):
    """Small architectures of every kind; at the sizes of a phone's models the same code runs."""
    kernel = draw(st.sampled_from([1, 3, 3, 5]))
    filters = tuple(draw(st.lists(st.integers(2, 12), min_size=1, max_size=3)))
    size = draw(st.integers(8, 27).filter(lambda s: _tokens_side(s, kernel, len(filters)) > 0))
    hidden = tuple(draw(st.lists(st.integers(1, 16), max_size=2)))
    return ModelSpec(
        name="random",
        image_size=size,
        channels=draw(st.sampled_from([1, 3])),
        classes=draw(st.integers(2, 7)),
        filters=filters,
        kernel=kernel,
        layers=draw(st.integers(0, 2)),
        heads=draw(st.integers(1, 4)),
        head_dim=draw(st.integers(1, 24)),
        mlp_units=(*hidden, filters[-1]),
        activation=draw(st.sampled_from(["gelu", "relu"])),
        positional=draw(st.sampled_from(["learnable", "none"])),
    )


def random_model(spec, seed):
    """A Keras CCT whose every weight, norms and biases above all, is far from its initial value."""
    keras.backend.clear_session()
    model = CCT(spec)
    random = np.random.default_rng(seed)
    for weight in model.weights:
        fan_in = max(1, int(np.prod(weight.shape[:-1])))
        weight.assign(random.normal(0.3, 1.0, weight.shape) / np.sqrt(fan_in))
    return model


@functools.cache
def random_plan(spec, seed=0):
    """The unfolded plan of ``random_model``."""
    return lower(random_model(spec, seed))


def random_images(plan, count=2, seed=1):
    """Pixels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *plan.image_shape), np.uint8)


def of_kind(plan, kind):
    """The steps of a kind, or of a union of kinds."""
    return [step for step in plan.steps if isinstance(step, kind)]


def tensors_of(plan, images):
    """The values of all tensors, by name."""
    tensors = {}
    evaluate(plan, images, tensors.__setitem__)
    return tensors


def assert_same(actual, expected, tolerance):
    """Compares logits relative to the largest of them."""
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * max(1, abs(expected).max())
    )


def check_folds(model):
    """Checks that a model's plan computes what Keras does, and what its folds promise."""
    plan = lower(model)
    images = random_images(plan)
    expected = evaluate(plan, images)
    keras_logits = np.asarray(model(images.astype(np.float32), training=False))
    assert_same(keras_logits, expected, 2e-4)
    folded = fold(plan)
    assert folded.total_macs <= plan.total_macs
    variants = [folded, expand(folded), expand(plan), expand(plan, layer_norm=False)]
    variants += [run(plan) for run in PASSES.values()]
    variants += [expand(fold(plan, [name]), layer_norm=False) for name in PASSES]
    for variant in variants:
        assert_same(evaluate(variant, images), expected, EXACT)
    tensors = tensors_of(folded, images)
    for norm in of_kind(folded, LayerNorm):
        x = tensors[norm.inputs[0]]
        # Relative to the addends of the sum, not to a sum that may be almost nothing.
        bound = EXACT * max(1, np.abs(x).max())
        assert not norm.centred or np.abs(x.mean(-1)).max() <= bound
