"""A CCT that somebody built from the keras.io example's code, recognized in memory.

Such a model is made of its author's classes. Its weights tell the architecture, and its logits
whether it computes what a CCT of this package computes with them.
"""

from dataclasses import replace
from itertools import takewhile

import keras
import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import image_shape
from cct_export.specs import GELUS, ModelSpec

# Of the largest logit. Rounding is some 1e-6; another epsilon in a norm or another GELU are more.
TOLERANCE = 1e-5
# Query, key, value and output of attention, each a kernel and a bias.
_ATTENTION_WEIGHTS = 8


def recognize(model: keras.Model) -> CCT | None:
    """Returns a CCT with the weights of ``model`` and the same logits, None if there is none.

    Args:
        model: an image classifier of any classes, built.
    """
    weights = model.get_weights()
    images = probes(image_shape(model))
    try:
        spec = spec_of([weight.shape for weight in weights], image_shape(model), model.name)
        twins = [_twin(replace(spec, gelu=gelu), weights) for gelu in GELUS]
    except ValueError:
        return None
    wanted = logits(model, images)
    return next((twin for twin in twins if agrees(logits(twin, images), wanted)), None)


def _twin(spec: ModelSpec, weights: list[np.ndarray]) -> CCT:
    twin = CCT(spec)
    twin.set_weights(weights)
    return twin


def agrees(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Tells whether two arrays of logits differ by float32's rounding alone."""
    scale = max(1.0, float(np.abs(wanted).max()))
    return found.shape == wanted.shape and bool(np.abs(wanted - found).max() <= TOLERANCE * scale)


def probes(shape: ImageShape) -> np.ndarray:
    """Returns eight images from flat to wild, float32 0–255.

    Another epsilon shows where there is little to normalize.
    """
    random = np.random.default_rng(0)
    contrasts = [0, 0, 1, 4, 16, 64, 255, 255]
    brightness = [0, 255, 3, 128, 200, 90, 0, 0]
    noise = random.random((len(contrasts), *shape))
    scale, offset = (np.reshape(part, (-1, 1, 1, 1)) for part in (contrasts, brightness))
    images: np.ndarray = (noise * scale + offset).clip(0, 255).astype(np.float32)
    return images


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the model's logits of ``images``, as many at once as it takes."""
    size = model.inputs[0].shape[0] or len(images)
    parts = [
        keras.ops.convert_to_numpy(model(images[start : start + size], training=False))
        for start in range(0, len(images) - size + 1, size)
    ]
    return np.concatenate(parts)


def spec_of(shapes: list[tuple[int, ...]], image: ImageShape, name: str) -> ModelSpec:
    """Returns the architecture whose weights would have these shapes, in this order.

    Raises:
        ValueError: none has.
    """
    kernels = list(takewhile(lambda shape: len(shape) == 4, shapes))
    left = shapes[len(kernels) :]
    positional = bool(left) and len(left[0]) == 2
    left = left[positional:]
    blocks = []
    # A block begins with gamma and beta of a norm and the kernel of the query.
    while len(left) > 2 + _ATTENTION_WEIGHTS and len(left[2]) == 3:
        _, heads, head_dim = left[2]
        left = left[2 + _ATTENTION_WEIGHTS + 2 :]
        dense = []
        while len(left) > 1 and len(left[0]) == 2:
            dense.append(left[0][1])
            left = left[2:]
        blocks.append((heads, head_dim, tuple(dense)))
    # What is left: the last norm, the scores of the pooling, the classifier.
    if not kernels or len(left) != 6 or len(set(blocks)) > 1 or image[0] != image[1]:
        raise ValueError("not the weights of a CCT")
    heads, head_dim, mlp_units = blocks[0] if blocks else (1, 1, (kernels[-1][3],))
    return ModelSpec(
        name=name,
        image_size=image[0],
        channels=image[2],
        classes=left[-1][0],
        filters=tuple(kernel[3] for kernel in kernels),
        kernel=kernels[0][0],
        layers=len(blocks),
        heads=heads,
        head_dim=head_dim,
        mlp_units=mlp_units,
        positional="learnable" if positional else "none",
    )
