"""Images as they look after JPEG compression."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import Images, Indices, Labels, Split

# Pillow's own default, and that of many programs and sites.
QUALITY = 75


@dataclass(frozen=True)
class JpegSplit:
    """A split whose images are encoded as JPEG and decoded again when they are used.

    Attributes:
        split: images of 1 or 3 channels.
        quality: of libjpeg, 1 to 100; colour is stored at half the resolution (4:2:0).
    """

    split: Split
    quality: int = QUALITY

    @property
    def labels(self) -> Labels:
        """Index into the dataset's class names, int64 ``(N,)``."""
        return self.split.labels

    def images(self, indices: Indices) -> Images:
        """Returns the images at ``indices``; uint8 ``(n, height, width, channels)``, 0–255."""
        images = self.split.images(indices)
        compressed = np.empty_like(images)
        for index, pixels in enumerate(images):
            compressed[index] = recompressed(pixels, quality=self.quality)
        return compressed

    def checksum(self, indices: Indices) -> int:
        """Returns the CRC-32 of the images at ``indices`` before compression."""
        return self.split.checksum(indices)


def recompressed(pixels: NDArray[np.uint8], *, quality: int = QUALITY) -> NDArray[np.uint8]:
    """Returns an image as it is after JPEG compression.

    Args:
        pixels: uint8 ``(height, width, channels)``, 0–255, of 1 channel (grey) or 3 (RGB).
        quality: of libjpeg, 1 to 100; colour is stored at half the resolution (4:2:0).

    Returns:
        uint8 of the same shape.

    Example:
        >>> recompressed(np.full((8, 8, 3), 128, np.uint8)).shape
        (8, 8, 3)
    """
    # Imported here, since a device that receives arrays has no Pillow.
    from PIL import Image

    encoded = io.BytesIO()
    gray = pixels.shape[-1] == 1
    image = Image.fromarray(pixels[..., 0] if gray else pixels)
    image.save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(encoded) as decoded:
        return np.asarray(decoded, np.uint8).reshape(pixels.shape)
