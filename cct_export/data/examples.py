"""``tf.train.Example`` without TensorFlow: where in its bytes a feature is, and what it holds.

The data room runs on devices that have no TensorFlow. And a parser of the whole message would read
the picture too, where an index of a million records wants the label alone; here it is skipped.

The message, after tensorflow/core/example/*.proto::

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }      an entry: key = 1, value = 2
    Feature   { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }
    BytesList { repeated bytes value = 1; }
    Int64List { repeated int64 value = 1; }              packed or not
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
MOST_VARINT_BYTES = 10
BYTES, INT64 = 1, 3
# A longer key is none that is looked for.
MOST_KEY_BYTES = 64
# A list that is longer is no label.
MOST_LIST_BYTES = 1024


class Source(Protocol):
    """Bytes that are read where they are wanted."""

    def at(self, position: int, count: int) -> bytes:
        """Returns up to ``count`` bytes from ``position`` on; fewer at the end."""
        ...


class Malformed(ValueError):
    """The bytes are no such message."""


class Span(NamedTuple):
    """A part of the bytes, from ``start`` to before ``end``."""

    start: int
    end: int


class Feature(NamedTuple):
    """A feature's list of values.

    Attributes:
        kind: ``BYTES``, ``INT64``, or 2 for floats.
        span: where the list is.
    """

    kind: int
    span: Span


def features(source: Source, message: Span, wanted: Collection[str]) -> dict[str, Feature]:
    """Returns those features of an Example that are wanted and there.

    Args:
        source: the bytes.
        message: where the Example is.
        wanted: names of features.

    Raises:
        Malformed: it is no Example.
    """
    found: dict[str, Feature] = {}
    for _, span in _messages(source, message, {1}):
        for _, entry in _messages(source, span, {1}):
            name, value = _entry(source, entry, wanted)
            if value is not None:
                for kind, values in _messages(source, value, {1, 2, 3}):
                    found[name] = Feature(kind, values)
    return found


def _entry(source: Source, entry: Span, wanted: Collection[str]) -> tuple[str, Span | None]:
    """Returns key and value of an entry of a map, None for a value that is not wanted."""
    name, value = "", None
    for number, span in _messages(source, entry, {1, 2}):
        if number == 2:
            value = span
            continue
        if span.end - span.start <= MOST_KEY_BYTES:
            name = source.at(span.start, span.end - span.start).decode("utf-8", "replace")
        # Protobuf writes the key first, but need not; after it, most entries are done with.
        if name not in wanted:
            return name, None
    return name, value if name in wanted else None


def texts(source: Source, feature: Feature) -> list[Span]:
    """Returns where the values of a list of bytes are.

    Raises:
        Malformed: it holds something else.
    """
    if feature.kind != BYTES:
        raise Malformed("numbers where bytes are wanted")
    return [span for _, span in _messages(source, feature.span, {1})]


def integers(source: Source, feature: Feature) -> list[int]:
    """Returns the values of a list of int64.

    Raises:
        Malformed: it holds something else.
    """
    if feature.kind != INT64:
        raise Malformed("no integers where integers are wanted")
    if feature.span.end - feature.span.start > MOST_LIST_BYTES:
        raise Malformed("many integers where one is wanted")
    values: list[int] = []
    for number, wire, start, end in _fields(source, feature.span):
        if number != 1:
            continue
        if wire not in (VARINT, LENGTH_DELIMITED):
            raise Malformed("a list of integers with something else in it")
        content, position = source.at(start, end - start), 0
        while position < len(content):
            value, position = _varint(content, position)
            values.append(value - (1 << 64) if value >= 1 << 63 else value)
    return values


def _messages(source: Source, message: Span, numbers: set[int]) -> Iterator[tuple[int, Span]]:
    """Yields number and place of the fields of a message that have a length."""
    for number, wire, start, end in _fields(source, message):
        if number in numbers:
            if wire != LENGTH_DELIMITED:
                raise Malformed(f"field {number} has wire type {wire}")
            yield number, Span(start, end)


def _fields(source: Source, message: Span) -> Iterator[tuple[int, int, int, int]]:
    """Yields number, wire type, start and end of every field of a message."""
    position, stop = message
    while position < stop:
        head = source.at(position, 2 * MOST_VARINT_BYTES)
        tag, used = _varint(head, 0)
        wire, start = tag & 7, position + used
        if wire == LENGTH_DELIMITED:
            length, used = _varint(head, used)
            start = position + used
            position = start + length
        elif wire == VARINT:
            position += _varint(head, used)[1]
        elif wire in (FIXED_32, FIXED_64):
            position = start + (4 if wire == FIXED_32 else 8)
        else:
            raise Malformed(f"wire type {wire}")
        if position > stop or tag >> 3 == 0:
            raise Malformed("a field that ends after its message")
        yield tag >> 3, wire, start, position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Returns the number that begins at ``position``, and where it ends."""
    # Nearly all numbers are one byte: a third of the time of an index is saved.
    if position < len(content) and content[position] < 0x80:
        return content[position], position + 1
    value = 0
    for count, byte in enumerate(content[position : position + MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + count + 1
    raise Malformed("a number that does not end")
