"""PNG and JPEG to pixels."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cct_export.data.dataset import Images, ImageShape
from cct_export.errors import InvalidData


def decode(path: Path, shape: ImageShape) -> tuple[Images, tuple[int, int]]:
    """Reads an image file, upright as its EXIF data says.

    Args:
        path: a PNG or JPEG file.
        shape: height, width and channels to give (3: RGB, 1: grey); resized bilinearly where the
            file's size differs.

    Returns:
        The pixels as uint8 ``shape``, and the file's own (height, width).

    Raises:
        InvalidData: the file is missing, no readable image, or one of 16 bits per channel.
    """
    if not path.is_file():
        raise InvalidData(f"no such image: {path}")
    return _decode(path, str(path), shape)


def decode_bytes(content: bytes, where: str, shape: ImageShape) -> tuple[Images, tuple[int, int]]:
    """Reads an image from memory, as ``decode`` does from a file.

    Args:
        content: what a PNG or JPEG file holds.
        where: what a message calls it.
        shape: height, width, channels.

    Raises:
        InvalidData: as of ``decode``.
    """
    return _decode(io.BytesIO(content), where, shape)


def _decode(file: Path | BinaryIO, where: str, shape: ImageShape) -> tuple[Images, tuple[int, int]]:
    # Here, since a device that is sent arrays has no Pillow.
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        # No other format: some hand the file to a program, as EPS does to Ghostscript.
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.mode.startswith(("I", "F")):
                raise InvalidData(f"{where} has more than 8 bits per channel: save it with 8 bits")
            ImageOps.exif_transpose(image, in_place=True)
            size = (image.height, image.width)
            mode = "L" if channels == 1 else "RGB"
            # A copy less where nothing is to convert.
            image.load()
            converted = image if image.mode == mode else image.convert(mode)
    except (InvalidData, MemoryError):
        raise
    # Whatever Pillow stumbles over: SyntaxError in a PNG, TypeError or struct.error in EXIF data.
    except Exception as error:
        # Where Pillow knows nothing it says where the bytes are in memory.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "neither PNG nor JPEG" if unknown else str(error)
        raise InvalidData(
            f"{where} is no readable image: {reason}: remove or replace it"
        ) from error
    if size != (height, width):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(converted, np.uint8).reshape(shape), size
