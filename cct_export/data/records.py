"""TFRecord files: where each record is, and its bytes when they are asked for.

A record is its length (uint64), a checksum of the length, its bytes, and a checksum of these
(tensorflow/core/lib/io/record_writer.h). Checksums are CRC-32C, rotated by 15 bits plus a constant.
"""

import struct
from collections.abc import Callable, Iterator
from functools import cache
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from cct_export.errors import InvalidData

HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")
MASK_DELTA = 0xA282EAD8
CASTAGNOLI = 0x82F63B78
COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")
# What is read at once while indexing: a header, and of a record what stands around its picture.
WINDOW_BYTES = 4096


class Place(NamedTuple):
    """Where a record's bytes are in its file."""

    offset: int
    length: int


class Window:
    """A file that is read around the places which are asked for.

    Args:
        file: opened without a buffer of its own.
    """

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.begin = 0
        self.content = b""

    def at(self, position: int, count: int) -> bytes:
        """Returns up to ``count`` bytes from ``position`` on; fewer at the end of the file."""
        start = position - self.begin
        if start < 0 or start + count > len(self.content):
            self.file.seek(position)
            self.content = _exactly(self.file, max(count, WINDOW_BYTES))
            self.begin, start = position, 0
        return self.content[start : start + count]


def places(path: Path, window: Window, size_bytes: int) -> Iterator[Place]:
    """Yields where the records of a file are, reading their headers alone.

    Args:
        path: for messages.
        window: the file.
        size_bytes: of the file.

    Raises:
        InvalidData: the file is compressed, truncated, damaged or no TFRecord; the message names
            file, record and byte.
    """
    position, number = 0, 0
    while position < size_bytes:
        header = window.at(position, HEADER.size)
        if len(header) < HEADER.size:
            raise _truncated(path, number, position)
        length, checksum = HEADER.unpack(header)
        if checksum != _masked(_crc32c(header[:8])):
            raise _no_record(path, number, position, header)
        begin = position + HEADER.size
        position = begin + length + CHECKSUM.size
        if position > size_bytes:
            raise _truncated(path, number, begin - HEADER.size)
        yield Place(begin, length)
        number += 1


def record(path: Path, number: int, place: Place) -> bytes:
    """Returns the bytes of a record, checked where google-crc32c is installed.

    Raises:
        InvalidData: the file changed or vanished since it was indexed, or the record is damaged.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(place.offset - HEADER.size)
            content = _exactly(file, HEADER.size + place.length + CHECKSUM.size)
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
    if len(content) < HEADER.size + place.length + CHECKSUM.size:
        raise _truncated(path, number, place.offset - HEADER.size)
    if HEADER.unpack_from(content)[0] != place.length:
        raise InvalidData(f"{path} changed since its records were counted: start again")
    (checksum,) = CHECKSUM.unpack_from(content, HEADER.size + place.length)
    content = content[HEADER.size : -CHECKSUM.size]
    compute = _library()
    if compute is not None and _masked(compute(content)) != checksum:
        raise InvalidData(
            f"{path}: record {number} is damaged, its checksum is another: fetch the file again"
        )
    return content


def _exactly(file: FileIO, count: int) -> bytes:
    """Returns ``count`` bytes, fewer only at the end: one read may give less than is there."""
    content = file.read(count) or b""
    while len(content) < count and (more := file.read(count - len(content))):
        content += more
    return content


def _truncated(path: Path, number: int, position: int) -> InvalidData:
    return InvalidData(
        f"{path} ends within record {number} (byte {position}): it is truncated, fetch it again"
    )


def _no_record(path: Path, number: int, position: int, header: bytes) -> InvalidData:
    if number == 0 and header.startswith(COMPRESSED):
        return InvalidData(f"{path} is compressed: images are read one by one, so unpack it first")
    if number == 0:
        return InvalidData(f"{path} is no TFRecord file, or damaged from its first record on")
    return InvalidData(f"{path} is damaged at record {number} (byte {position}): fetch it again")


@cache
def _library() -> Callable[[bytes], int] | None:
    """Returns what computes CRC-32C fast; without it None, as Python itself would take too long."""
    try:
        import google_crc32c
    except ImportError:
        return None
    value: Callable[[bytes], int] = google_crc32c.value
    return value if google_crc32c.implementation == "c" else None


@cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (CASTAGNOLI if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return tuple(table)


def _crc32c(content: bytes) -> int:
    """Returns the CRC-32C of a few bytes, such as a header's length."""
    table, value = _table(), 0xFFFF_FFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFF_FFFF


def _masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + MASK_DELTA) & 0xFFFF_FFFF
