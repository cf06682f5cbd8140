"""JPEG compression as augmentation: what it does to pixels, computed without a codec."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

# Quantization of luminance and chrominance: tables K.1 and K.2 of ITU-T T.81.
_TABLES = np.array([
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
        14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
        18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ],
    [
        17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
        24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
        *(99,) * 32,
    ],
], np.float32)  # fmt: skip
# From RGB to luminance and two chrominances, by the JFIF; the rows are R, G, B.
_TO_YCC = np.array(
    [[0.299, -0.168735892, 0.5], [0.587, -0.331264108, -0.418687589], [0.114, 0.5, -0.081312411]],
    np.float32,
)
_TO_RGB = np.array([[1, 1, 1], [0, -0.344136286, 1.772], [1.402, -0.714136286, 0]], np.float32)
_BLOCK = 8
# Levels are 0 to 255 in an image, and -128 to 127 in the transform.
_MIDDLE = 128


def _transform() -> np.ndarray:
    """Returns the two-dimensional DCT of a flattened block: 64 frequencies by 64 pixels."""
    frequency, place = np.mgrid[:_BLOCK, :_BLOCK]
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    cosines[0] /= np.sqrt(2)
    return np.kron(cosines, cosines).astype(np.float32)


_DCT = _transform()


class JpegCompression(layers.Layer):
    """Compresses some images of a batch as JPEG does, each with a quality of its own.

    Args:
        probability: that an image is compressed, 0 to 1.
        quality: lowest and highest quality of libjpeg, 1 to 100, equally likely.
        seed: of the random numbers.
        **kwargs: of ``keras.layers.Layer``.
    """

    def __init__(
        self, probability: float, quality: tuple[int, int], seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.probability = probability
        self.quality = quality
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Returns augmented images; float32 ``(batch, height, width, channels)``, 0–255."""
        count, (lowest, highest) = ops.shape(images)[0], self.quality
        uniform = keras.random.uniform((2, count), seed=self.seed_generator)
        quality = lowest + ops.floor(uniform[1] * (highest - lowest + 1))
        chosen = uniform[0] < self.probability
        return ops.where(chosen[:, None, None, None], compressed(images, quality), images)


def compressed(images: Any, quality: Any) -> Any:
    """Returns images as libjpeg decodes what it encoded, up to its rounding.

    Colour is stored at half the resolution (4:2:0), and enlarged with libjpeg's triangle filter.

    Args:
        images: float32 ``(batch, height, width, channels)``, 0–255, of 1 channel (grey) or 3 (RGB).
        quality: float32 ``(batch,)``, 1 to 100.

    Returns:
        Whole numbers, float32 of the same shape.
    """
    _, height, width, channels = images.shape
    colour = channels == 3
    side = 2 * _BLOCK if colour else _BLOCK
    tables = _scaled_tables(quality)
    padded = _edge_padded(_edge_padded(images, 1, side), 2, side)
    planes = ops.matmul(padded, _TO_YCC) if colour else padded
    # To (batch, planes, height, width): from here on in the levels of the transform.
    planes = ops.transpose(planes, (0, 3, 1, 2))
    luminance = _coded(_rounded(planes[:, :1] - _MIDDLE), tables[:, 0])[:, :, :height, :width]
    decoded = luminance
    if colour:
        halved = _rounded(_halved(_rounded(planes[:, 1:])))
        small = _coded(halved, tables[:, 1])[:, :, : -(-height // 2), : -(-width // 2)]
        chrominance = _rounded(_doubled(_doubled(small, 2), 3))[:, :, :height, :width]
        decoded = ops.concatenate([luminance, chrominance], axis=1)
    decoded = ops.transpose(decoded, (0, 2, 3, 1))
    return _rounded(ops.matmul(decoded, _TO_RGB) if colour else decoded) + _MIDDLE


def _scaled_tables(quality: Any) -> Any:
    """Returns both tables for each quality, ``(batch, 2, 64)``, as libjpeg scales them."""
    percent = ops.where(quality < 50, ops.floor(5000 / quality), 200 - 2 * quality)
    return ops.clip(ops.floor((_TABLES * percent[:, None, None] + 50) / 100), 1, 255)


def _rounded(levels: Any) -> Any:
    """Returns whole levels, -128 to 127."""
    return ops.clip(ops.round(levels), -_MIDDLE, _MIDDLE - 1)


def _edge_padded(images: Any, axis: int, multiple: int) -> Any:
    """Returns images with the last row or column repeated up to a multiple of a size."""
    size = images.shape[axis]
    if size % multiple == 0:
        return images
    padded = -(-size // multiple) * multiple
    return ops.take(images, np.minimum(np.arange(padded), size - 1), axis=axis)


def _coded(planes: Any, table: Any) -> Any:
    """Returns planes after quantization of the frequencies of their blocks.

    Args:
        planes: ``(batch, planes, height, width)``, sides multiples of 8.
        table: ``(batch, 64)``.
    """
    _, count, height, width = planes.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    # Swaps rows of pixels with columns of blocks, there and back.
    swapped = (0, 1, 2, 4, 3, 5)
    grid = ops.reshape(planes, (-1, count, rows, _BLOCK, columns, _BLOCK))
    grid = ops.transpose(grid, swapped)
    blocks = ops.reshape(grid, (-1, count * rows * columns, _BLOCK**2))
    steps = table[:, None]
    frequencies = ops.round(ops.matmul(blocks, _DCT.T) / steps) * steps
    blocks = _rounded(ops.matmul(frequencies, _DCT))
    grid = ops.reshape(blocks, (-1, count, rows, columns, _BLOCK, _BLOCK))
    return ops.reshape(ops.transpose(grid, swapped), (-1, count, height, width))


def _halved(planes: Any) -> Any:
    """Returns the means of 2 by 2 pixels."""
    _, count, height, width = planes.shape
    return ops.mean(ops.reshape(planes, (-1, count, height // 2, 2, width // 2, 2)), axis=(3, 5))


def _doubled(planes: Any, axis: int) -> Any:
    """Returns planes with an axis doubled: values are 3/4 of the nearest and 1/4 of the next."""
    places = np.arange(planes.shape[axis])
    before = ops.take(planes, np.maximum(places - 1, 0), axis=axis)
    after = ops.take(planes, np.minimum(places + 1, places[-1]), axis=axis)
    pairs = ops.stack([3 * planes + before, 3 * planes + after], axis=axis + 1) / 4
    shape = list(planes.shape)
    shape[0], shape[axis] = -1, 2 * len(places)
    return ops.reshape(pairs, shape)
