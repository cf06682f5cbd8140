"""Decoding of images: PNG, JPEG, WebP, BMP and TIFF."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cct_export.data.dataset import Images, ImageShape
from cct_export.data.resizing import resized
from cct_export.errors import InvalidData
from cct_export.specs import DEFAULT_RESIZE, Resize
from cct_export.untrusted import check_size

if TYPE_CHECKING:
    from PIL import Image

# No other formats: Pillow hands some to a program, as EPS to Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
FORMAT_NAMES = "PNG, JPEG, WebP, BMP or TIFF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# The tag of a TIFF that has the number of bits of each channel.
_BITS_PER_SAMPLE = 258
# Photographs of 89 megapixels; files of a single colour are small whatever they declare.
_ALWAYS_ALLOWED_BYTES = 256 << 20


def decode(
    path: Path, shape: ImageShape, resize: Resize = DEFAULT_RESIZE
) -> tuple[Images, tuple[int, int]]:
    """Decodes an image file, turned upright as its EXIF data says.

    Args:
        path: a file of one of ``FORMATS``; of several images in it the first is meant.
        shape: height, width and channels of the result (3: RGB, 1: grey).
        resize: how a file of another size is resized.

    Returns:
        The pixels as uint8 ``shape``, and the file's own (height, width).

    Raises:
        InvalidData: the file is missing, not a readable image, has more than 8 bits per channel,
            or declares far more pixels than it holds.
    """
    if not path.is_file():
        raise InvalidData(f"no such image: {path}")
    return _decode(path, path.stat().st_size, str(path), shape, resize)


def decode_bytes(
    content: bytes, where: str, shape: ImageShape, resize: Resize = DEFAULT_RESIZE
) -> tuple[Images, tuple[int, int]]:
    """Decodes an image in memory, as ``decode`` does a file.

    Args:
        content: of a file of one of ``FORMATS``.
        where: what error messages call it.
        shape: height, width, channels.
        resize: how an image of another size is resized.

    Raises:
        InvalidData: as ``decode``.
    """
    return _decode(io.BytesIO(content), len(content), where, shape, resize)


def _decode(
    file: Path | BinaryIO, size_bytes: int, where: str, shape: ImageShape, resize: Resize
) -> tuple[Images, tuple[int, int]]:
    # Imported here, since a device that receives arrays has no Pillow.
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        with Image.open(file, formats=FORMATS) as image:
            if _is_deep(image):
                raise InvalidData(f"{where} has more than 8 bits per channel: save it with 8 bits")
            check_size(
                image.width * image.height * len(image.getbands()),
                size_bytes,
                always_allowed_bytes=_ALWAYS_ALLOWED_BYTES,
            )
            ImageOps.exif_transpose(image, in_place=True)
            size = (image.height, image.width)
            mode = "L" if channels == 1 else "RGB"
            # Saves a copy where no conversion is needed.
            image.load()
            converted = image if image.mode == mode else image.convert(mode)
            pixels = resized(converted, height, width, resize)
    except (InvalidData, MemoryError):
        raise
    # Pillow raises many kinds: SyntaxError for a PNG, TypeError or struct.error for EXIF data.
    except Exception as error:
        # Pillow's own message for an unknown format is the memory address of the bytes.
        unknown = isinstance(error, UnidentifiedImageError)
        why = getattr(error, "strerror", None) or str(error)
        reason = f"it is no {FORMAT_NAMES} with 8 bits per channel" if unknown else why
        raise InvalidData(
            f"{where} is not a readable image: {reason}: remove or replace it"
        ) from error
    return pixels.reshape(shape), size


def _is_deep(image: "Image.Image") -> bool:
    """Returns whether an image that is not decoded yet has more than 8 bits per channel.

    Pillow has a mode of its own for such grey images only, and drops half of the others' bits.
    """
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))
        return max(bits, default=1) > 8
    return image.mode.startswith(("I", "F")) or any(
        str(tile[3]).endswith(";16B") for tile in getattr(image, "tile", ())
    )
