"""Random architectures with random weights, as plans, for the tests of folds and formats."""

import keras
import numpy as np
from hypothesis import strategies as st

from cct_export.graph.lower import lower
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec


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
        name="drawn",
        image_size=size,
        channels=draw(st.sampled_from([1, 3])),
        classes=draw(st.integers(2, 7)),
        filters=filters,
        kernel=kernel,
        layers=draw(st.integers(0, 2)),
        heads=draw(st.integers(1, 4)),
        head_dim=draw(st.integers(1, 24)),
        mlp_units=(*hidden, filters[-1]),
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


def random_plan(spec, seed=0):
    """The unfolded plan of ``random_model``."""
    return lower(random_model(spec, seed))


def random_images(plan, count=2, seed=1):
    """Pixels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *plan.image_shape), np.uint8)


def assert_same(found, wanted, tolerance):
    """Compares logits relative to the largest of them."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, abs(wanted).max()))
