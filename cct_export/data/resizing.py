"""Resizing of decoded images to the size of a model's input."""

from typing import TYPE_CHECKING

import numpy as np

from cct_export.data.dataset import Images
from cct_export.specs import Resize

if TYPE_CHECKING:
    from PIL import Image


def resized(image: "Image.Image", height: int, width: int, resize: Resize) -> Images:
    """Returns an image as pixels of another size.

    Args:
        image: of mode ``L`` or ``RGB``.
        height: of the result.
        width: of the result.
        resize: how; an image of this size already stays as it is.

    Returns:
        uint8 ``(height, width)``, or ``(height, width, 3)``.
    """
    from PIL import Image

    if image.size == (width, height):
        return np.asarray(image, np.uint8)
    if resize.fit == "crop":
        image = image.crop(centre_box(image.height, image.width, height, width))
    if resize.filter == "antialiased":
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.uint8)
    return _bilinear(np.asarray(image, np.uint8), height, width)


def centre_box(
    image_height: int, image_width: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of the largest centred part of another aspect ratio.

    Args:
        image_height: of the image.
        image_width: of the image.
        height: with ``width``, the aspect ratio.
        width: see ``height``.
    """
    rows = min(image_height, max(1, (2 * image_width * height + width) // (2 * width)))
    columns = min(image_width, max(1, (2 * image_height * width + height) // (2 * height)))
    top, left = (image_height - rows) // 2, (image_width - columns) // 2
    return left, top, left + columns, top + rows


def _bilinear(pixels: Images, height: int, width: int) -> Images:
    """Interpolates between the centres of the four nearest pixels, as ``tf.image.resize`` does."""
    values = pixels
    for axis, size in enumerate((height, width)):
        centres = (np.arange(size) + 0.5) * pixels.shape[axis] / size - 0.5
        centres = np.clip(centres, 0, pixels.shape[axis] - 1)
        low = centres.astype(np.int64)
        high = np.minimum(low + 1, pixels.shape[axis] - 1)
        share = (centres - low).reshape([-1 if i == axis else 1 for i in range(pixels.ndim)])
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    rounded: Images = np.floor(values + 0.5).astype(np.uint8)
    return rounded
