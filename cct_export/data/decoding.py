"""Decoding of PNG and JPEG images."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cct_export.data.dataset import Images, ImageShape
from cct_export.errors import InvalidData
from cct_export.untrusted import check_size

if TYPE_CHECKING:
    from PIL import Image

# Photographs of 89 megapixels; files of a single colour are small whatever they declare.
_ALWAYS_ALLOWED_BYTES = 256 << 20


def decode(path: Path, shape: ImageShape) -> tuple[Images, tuple[int, int]]:
    """Decodes an image file, turned upright as its EXIF data says.

    Args:
        path: a PNG or JPEG file.
        shape: height, width and channels of the result (3: RGB, 1: grey); a file of another size
            is resized bilinearly.

    Returns:
        The pixels as uint8 ``shape``, and the file's own (height, width).

    Raises:
        InvalidData: the file is missing, not a readable image, has more than 8 bits per channel,
            or declares far more pixels than it holds.
    """
    if not path.is_file():
        raise InvalidData(f"no such image: {path}")
    return _decode(path, path.stat().st_size, str(path), shape)


def decode_bytes(content: bytes, where: str, shape: ImageShape) -> tuple[Images, tuple[int, int]]:
    """Decodes an image in memory, as ``decode`` does a file.

    Args:
        content: the content of a PNG or JPEG file.
        where: what error messages call it.
        shape: height, width, channels.

    Raises:
        InvalidData: as ``decode``.
    """
    return _decode(io.BytesIO(content), len(content), where, shape)


def _decode(
    file: Path | BinaryIO, size_bytes: int, where: str, shape: ImageShape
) -> tuple[Images, tuple[int, int]]:
    # Imported here, since a device that receives arrays has no Pillow.
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        # No other formats: Pillow hands some to a program, as EPS to Ghostscript.
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            if _is_deep(image):
                raise InvalidData(f"{where} has more than 8 bits per channel: save it with 8 bits")
            pixels = image.width * image.height
            check_size(
                pixels * len(image.getbands()),
                size_bytes,
                always_allowed_bytes=_ALWAYS_ALLOWED_BYTES,
            )
            ImageOps.exif_transpose(image, in_place=True)
            size = (image.height, image.width)
            mode = "L" if channels == 1 else "RGB"
            # Saves a copy where no conversion is needed.
            image.load()
            converted = image if image.mode == mode else image.convert(mode)
    except (InvalidData, MemoryError):
        raise
    # Pillow raises many kinds: SyntaxError for a PNG, TypeError or struct.error for EXIF data.
    except Exception as error:
        # Pillow's own message for an unknown format is the memory address of the bytes.
        unknown = isinstance(error, UnidentifiedImageError)
        why = getattr(error, "strerror", None) or str(error)
        reason = "neither PNG nor JPEG with 8 bits per channel" if unknown else why
        raise InvalidData(
            f"{where} is not a readable image: {reason}: remove or replace it"
        ) from error
    if size != (height, width):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(converted, np.uint8).reshape(shape), size


def _is_deep(image: "Image.Image") -> bool:
    """Returns whether an image that is not decoded yet has more than 8 bits per channel.

    Pillow has a mode of its own for such grey images only, and drops half of the others' bits.
    """
    return image.mode.startswith(("I", "F")) or any(
        str(tile[3]).endswith(";16B") for tile in getattr(image, "tile", ())
    )
