"""The file format of TFRecord shards and ``tf.train.Example``, read without TensorFlow.

This package reads data on devices that have no TensorFlow. A parser of whole messages would also
read every image, while an index of a million records needs the labels alone; here images are
skipped.

A record is its length (uint64), a checksum of the length, its bytes, and a checksum of these
(tensorflow/core/lib/io/record_writer.h). Checksums are CRC-32C, rotated by 15 bits plus a constant.
The bytes are a message, after tensorflow/core/example/*.proto::

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }      an entry: key = 1, value = 2
    Feature   { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }
    BytesList { repeated bytes value = 1; }
    Int64List { repeated int64 value = 1; }              packed or not
"""

import struct
from collections.abc import Callable, Collection, Iterator
from functools import cache
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

from cct_export.errors import InvalidData

HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")
MASK_DELTA = 0xA282EAD8
CASTAGNOLI = 0x82F63B78
COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")
# What indexing reads at once: a header, and the parts of a record around its image.
BLOCK_BYTES = 4096

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10
BYTES_LIST, INT64_LIST = 1, 3
# Longer keys are not looked up, and longer lists are not labels.
MAX_KEY_BYTES = 64
MAX_LIST_BYTES = 1024


class MalformedExample(ValueError):
    """The bytes are not an Example with the expected features."""


class Span(NamedTuple):
    """Bytes from ``start`` to before ``end``."""

    start: int
    end: int


class Feature(NamedTuple):
    """A feature's list of values.

    Attributes:
        kind: ``BYTES_LIST``, ``INT64_LIST``, or 2 for floats.
        span: where the list is.
    """

    kind: int
    span: Span


class ByteSource(Protocol):
    """Bytes with random access."""

    def read_at(self, position: int, count: int) -> bytes:
        """Returns up to ``count`` bytes from ``position`` on; fewer at the end."""
        ...


class BlockReader:
    """A ``ByteSource`` that reads a file in blocks.

    Args:
        file: opened without a buffer of its own.
    """

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self._start = 0
        self._block = b""

    def read_at(self, position: int, count: int) -> bytes:
        """Returns up to ``count`` bytes from ``position`` on; fewer at the end of the file."""
        start = position - self._start
        if start < 0 or start + count > len(self._block):
            self.file.seek(position)
            self._block = _read_exactly(self.file, max(count, BLOCK_BYTES))
            self._start, start = position, 0
        return self._block[start : start + count]


def record_spans(path: Path, source: ByteSource, size_bytes: int) -> Iterator[Span]:
    """Yields where the bytes of each record are, reading headers alone.

    Args:
        path: for messages.
        source: the file.
        size_bytes: of the file.

    Raises:
        InvalidData: the file is compressed, truncated, damaged or not a TFRecord file; the message
            names file, record and byte.
    """
    position, number = 0, 0
    while position < size_bytes:
        header = source.read_at(position, HEADER.size)
        if len(header) < HEADER.size:
            raise _truncated(path, number, position)
        length, checksum = HEADER.unpack(header)
        if checksum != _masked(_crc32c(header[:8])):
            raise _bad_header(path, number, position, header)
        start = position + HEADER.size
        position = start + length + CHECKSUM.size
        if position > size_bytes:
            raise _truncated(path, number, start - HEADER.size)
        yield Span(start, start + length)
        number += 1


def read_record(path: Path, number: int, span: Span) -> bytes:
    """Returns the bytes of a record; its checksum is verified if google-crc32c is installed.

    Raises:
        InvalidData: the file changed or vanished since it was indexed, or the record is damaged.
    """
    length = span.end - span.start
    size = HEADER.size + length + CHECKSUM.size
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(span.start - HEADER.size)
            content = _read_exactly(file, size)
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
    if len(content) < size:
        raise _truncated(path, number, span.start - HEADER.size)
    if HEADER.unpack_from(content)[0] != length:
        raise InvalidData(f"{path} changed since its records were counted: start again")
    (checksum,) = CHECKSUM.unpack_from(content, HEADER.size + length)
    content = content[HEADER.size : -CHECKSUM.size]
    fast_crc32c = _fast_crc32c()
    if fast_crc32c is not None and _masked(fast_crc32c(content)) != checksum:
        raise InvalidData(
            f"{path}: record {number} is damaged, its checksum differs: fetch the file again"
        )
    return content


def _read_exactly(file: FileIO, count: int) -> bytes:
    """Returns ``count`` bytes, fewer only at the end: one read may return less."""
    content = file.read(count) or b""
    while len(content) < count and (more := file.read(count - len(content))):
        content += more
    return content


def _truncated(path: Path, number: int, position: int) -> InvalidData:
    return InvalidData(
        f"{path} ends within record {number} (byte {position}): it is truncated, fetch it again"
    )


def _bad_header(path: Path, number: int, position: int, header: bytes) -> InvalidData:
    if number == 0 and header.startswith(COMPRESSED):
        return InvalidData(f"{path} is compressed: images are read one by one, so unpack it first")
    if number == 0:
        return InvalidData(f"{path} is not a TFRecord file, or damaged in its first record")
    return InvalidData(f"{path} is damaged at record {number} (byte {position}): fetch it again")


@cache
def _fast_crc32c() -> Callable[[bytes], int] | None:
    """Returns a CRC-32C in C; None without the library, as Python would take too long."""
    try:
        import google_crc32c
    except ImportError:
        return None
    value: Callable[[bytes], int] = google_crc32c.value
    return value if google_crc32c.implementation == "c" else None


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (CASTAGNOLI if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return tuple(table)


def _crc32c(content: bytes) -> int:
    """Returns the CRC-32C of a few bytes, such as a header's length."""
    table, value = _crc32c_table(), 0xFFFF_FFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFF_FFFF


def _masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + MASK_DELTA) & 0xFFFF_FFFF


def find_features(source: ByteSource, example: Span, names: Collection[str]) -> dict[str, Feature]:
    """Returns the features of an Example that have one of ``names``.

    Args:
        source: the bytes.
        example: where the Example is.
        names: of the features to find.

    Raises:
        MalformedExample: the bytes are not an Example.
    """
    features: dict[str, Feature] = {}
    for _, feature_map in _messages(source, example, {1}):
        for _, entry in _messages(source, feature_map, {1}):
            name, value = _entry(source, entry, names)
            if value is not None:
                for kind, values in _messages(source, value, {1, 2, 3}):
                    features[name] = Feature(kind, values)
    return features


def _entry(source: ByteSource, entry: Span, names: Collection[str]) -> tuple[str, Span | None]:
    """Returns key and value of an entry of a map; the value is None if the key is not in names."""
    name, value = "", None
    for number, span in _messages(source, entry, {1, 2}):
        if number == 2:
            value = span
            continue
        if span.end - span.start <= MAX_KEY_BYTES:
            name = source.read_at(span.start, span.end - span.start).decode("utf-8", "replace")
        # Protobuf usually writes the key first; most values need not be read then.
        if name not in names:
            return name, None
    return name, value if name in names else None


def bytes_spans(source: ByteSource, feature: Feature) -> list[Span]:
    """Returns where the values of a list of bytes are.

    Raises:
        MalformedExample: the list holds something else.
    """
    if feature.kind != BYTES_LIST:
        raise MalformedExample("numbers instead of bytes")
    return [span for _, span in _messages(source, feature.span, {1})]


def int64_values(source: ByteSource, feature: Feature) -> list[int]:
    """Returns the values of a list of int64.

    Raises:
        MalformedExample: the list holds something else, or is too long for a label.
    """
    if feature.kind != INT64_LIST:
        raise MalformedExample("not a list of integers")
    if feature.span.end - feature.span.start > MAX_LIST_BYTES:
        raise MalformedExample("a list of integers that is too long for a label")
    values: list[int] = []
    for number, wire_type, start, end in _fields(source, feature.span):
        if number != 1:
            continue
        if wire_type not in (VARINT, LENGTH_DELIMITED):
            raise MalformedExample("a list of integers with something else in it")
        content, position = source.read_at(start, end - start), 0
        while position < len(content):
            value, position = _varint(content, position)
            values.append(value - (1 << 64) if value >= 1 << 63 else value)
    return values


def _messages(source: ByteSource, message: Span, numbers: set[int]) -> Iterator[tuple[int, Span]]:
    """Yields number and span of the length-delimited fields of a message."""
    for number, wire_type, start, end in _fields(source, message):
        if number in numbers:
            if wire_type != LENGTH_DELIMITED:
                raise MalformedExample(f"field {number} has wire type {wire_type}")
            yield number, Span(start, end)


def _fields(source: ByteSource, message: Span) -> Iterator[tuple[int, int, int, int]]:
    """Yields number, wire type, start and end of every field of a message."""
    position, stop = message
    while position < stop:
        head = source.read_at(position, 2 * MAX_VARINT_BYTES)
        tag, used = _varint(head, 0)
        wire_type, start = tag & 7, position + used
        if wire_type == LENGTH_DELIMITED:
            length, used = _varint(head, used)
            start = position + used
            position = start + length
        elif wire_type == VARINT:
            position += _varint(head, used)[1]
        elif wire_type in (FIXED_32, FIXED_64):
            position = start + (4 if wire_type == FIXED_32 else 8)
        else:
            raise MalformedExample(f"wire type {wire_type}")
        if position > stop or tag >> 3 == 0:
            raise MalformedExample("a field that ends after its message")
        yield tag >> 3, wire_type, start, position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Returns the number that begins at ``position``, and where it ends."""
    # Nearly all numbers are one byte: this saves a third of an index's time.
    if position < len(content) and content[position] < 0x80:
        return content[position], position + 1
    value = 0
    for count, byte in enumerate(content[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + count + 1
    raise MalformedExample("a number that does not end")
