"""CCTs built of other classes, such as those of the keras.io example's code.

The shapes of the weights give the architecture; equal logits show that a CCT of this package
computes the same with these weights.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import takewhile

import keras
import numpy as np

from cct_export.bounds import exceeds
from cct_export.data.dataset import ImageShape
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import image_shape
from cct_export.specs import GELUS, NORM_EPSILON, ModelSpec

# Relative to the largest logit. Rounding is some 1e-6; another epsilon of a norm or another
# activation make larger differences.
TOLERANCE = 1e-5
# A kernel and a bias each of query, key, value and output.
_ATTENTION_WEIGHTS = 8


def equivalent_cct(model: keras.Model) -> CCT | None:
    """Returns a CCT with the weights and the logits of ``model``, None if there is none.

    Args:
        model: a built image classifier, of any classes.
    """
    if [len(output.shape) for output in model.outputs] != [2]:
        return None
    # A smaller epsilon hardly shows in the logits of the probe images.
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.LayerNormalization)]
    if any(norm.epsilon != NORM_EPSILON for norm in norms):
        return None
    weights = model.get_weights()
    images = probe_images(image_shape(model))
    try:
        spec = spec_from_shapes(
            [weight.shape for weight in weights], image_shape(model), model.name
        )
        candidates = [_with_weights(variant, weights) for variant in mlp_variants(spec)]
    except ValueError:
        return None
    expected = logits(model, images)
    return next((cct for cct in candidates if logits_agree(logits(cct, images), expected)), None)


def mlp_variants(spec: ModelSpec, gelus: Iterable[str] = GELUS) -> Iterator[ModelSpec]:
    """Yields what has the weights of an architecture: it with each activation of the MLP.

    Args:
        spec: the architecture.
        gelus: forms of GELU, the likelier one first; ReLU comes after them.
    """
    for gelu in gelus:
        yield replace(spec, activation="gelu", gelu=gelu)
    yield replace(spec, activation="relu")


def _with_weights(spec: ModelSpec, weights: list[np.ndarray]) -> CCT:
    cct = CCT(spec)
    cct.set_weights(weights)
    return cct


def logits_agree(logits: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> bool:
    """Tells whether two arrays of logits differ only by the rounding of float32.

    Args:
        logits: of some images.
        expected: of the same images.
        scale: the largest value that they were computed from, if it is larger than they are.
    """
    if logits.shape != expected.shape:
        return False
    scale = max(1.0, scale, float(np.abs(expected).max()))
    return not exceeds(float(np.abs(expected - logits).max()), TOLERANCE * scale)


def probe_images(shape: ImageShape) -> np.ndarray:
    """Returns eight images from constant to high contrast, float32 ``(8, *shape)``, 0–255.

    A different epsilon shows in images of little contrast.
    """
    random = np.random.default_rng(0)
    contrasts = [0, 0, 1, 4, 16, 64, 255, 255]
    brightness = [0, 255, 3, 128, 200, 90, 0, 0]
    noise = random.random((len(contrasts), *shape))
    scale, offset = (np.reshape(part, (-1, 1, 1, 1)) for part in (contrasts, brightness))
    images: np.ndarray = (noise * scale + offset).clip(0, 255).astype(np.float32)
    return images


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the model's logits for ``images``, those of several outputs side by side.

    Args:
        model: of one input; if it takes a fixed number of images, it gets as many at a time.
        images: ``(N, H, W, C)``.

    Returns:
        ``(N, classes)``.
    """
    size = model.inputs[0].shape[0] or len(images)
    padded = np.concatenate([images, images[-1:].repeat(-len(images) % size, axis=0)])
    batches = [
        np.concatenate(
            [
                np.reshape(keras.ops.convert_to_numpy(output), (len(output), -1))
                for output in keras.tree.flatten(
                    model(padded[start : start + size], training=False)
                )
            ],
            axis=1,
        )
        for start in range(0, len(padded), size)
    ]
    return np.concatenate(batches)[: len(images)]


def spec_from_shapes(shapes: list[tuple[int, ...]], image: ImageShape, name: str) -> ModelSpec:
    """Returns the architecture whose weights have these shapes, in this order.

    Args:
        shapes: of all weights.
        image: height, width and channels of the input.
        name: of the model.

    Raises:
        ValueError: no CCT has such weights.
    """
    kernels = list(takewhile(lambda shape: len(shape) == 4, shapes))
    rest = shapes[len(kernels) :]
    positional = bool(rest) and len(rest[0]) == 2
    rest = rest[positional:]
    blocks = []
    # A block begins with gamma and beta of a norm and the kernel of the query.
    while len(rest) > 2 + _ATTENTION_WEIGHTS and len(rest[2]) == 3:
        _, heads, head_dim = rest[2]
        rest = rest[2 + _ATTENTION_WEIGHTS + 2 :]
        mlp_units = []
        while len(rest) > 1 and len(rest[0]) == 2:
            mlp_units.append(rest[0][1])
            rest = rest[2:]
        blocks.append((heads, head_dim, tuple(mlp_units)))
    # Two weights each remain: of the last norm, of the pooling's scores, of the classifier.
    if not kernels or len(rest) != 6 or len(set(blocks)) > 1 or image[0] != image[1]:
        raise ValueError("not the weights of a CCT")
    heads, head_dim, units = blocks[0] if blocks else (1, 1, (kernels[-1][3],))
    return ModelSpec(
        name=name,
        image_size=image[0],
        channels=image[2],
        classes=rest[-1][0],
        filters=tuple(kernel[3] for kernel in kernels),
        kernel=kernels[0][0],
        layers=len(blocks),
        heads=heads,
        head_dim=head_dim,
        mlp_units=units,
        positional="learnable" if positional else "none",
    )
