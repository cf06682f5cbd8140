"""Images after JPEG compression."""

import io

import numpy as np
import pytest
from PIL import Image

from cct_export.data.dataset import ArraySplit
from cct_export.data.recompressed import JpegSplit, recompressed


class _Counted(ArraySplit):
    """A split that notes how many images are read at once."""

    reads: list[int] = []

    def images(self, indices):
        self.reads.append(len(indices))
        return super().images(indices)


def _noise(channels, count=1):
    shape = (count, 24, 20, channels)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_what_pillow_saves_and_opens(channels):
    (pixels,) = _noise(channels)
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze())
    image.save(file, "JPEG", quality=40, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).reshape(pixels.shape)
    assert np.array_equal(recompressed(pixels, quality=40), expected)
    assert not np.array_equal(expected, pixels)


def test_colour_is_stored_at_half_the_resolution():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[::2, :, 0] = pixels[1::2, :, 1] = 200  # rows of red and green
    compressed = recompressed(pixels, quality=100).astype(int)
    contrast = np.abs(np.diff(compressed[..., 0] - compressed[..., 1], axis=0)).mean()
    assert contrast < 0.3 * 400


def test_a_split_compresses_the_images_that_are_asked_for_alone():
    split = _Counted(_noise(3, count=9), np.arange(9))
    compressed = JpegSplit(split)
    images = compressed.images([7, 2])
    assert split.reads == [2]
    assert np.array_equal(images[0], recompressed(split.pixels[7]))
    assert np.array_equal(images[1], recompressed(split.pixels[2]))
    assert np.array_equal(compressed.labels, split.labels)
    assert compressed.checksum([1]) == split.checksum([1])
