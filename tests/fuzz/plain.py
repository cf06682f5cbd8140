"""Mutation of plain bytes: what fits every format and respects none."""

import struct
from collections.abc import Callable

import numpy as np

from fuzz import values

Random = np.random.Generator
# Returns another content; the same generator state gives the same content.
Mutator = Callable[[bytes, Random], bytes]


def mutate(content: bytes, random: Random) -> bytes:
    """Flips, overwrites, removes, doubles, moves or inserts bytes, or cuts the end off."""
    if not content:
        return random.bytes(int(random.integers(1, 64)))
    return _CHANGES[random.integers(len(_CHANGES))](content, random)


def place(content: bytes, random: Random) -> int:
    """Returns an offset, more often one near the start or the end, where headers are."""
    size = len(content)
    near = min(size, 256)
    return int(
        random.choice(
            [random.integers(size), random.integers(near), size - 1 - random.integers(near)]
        )
    )


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = place(content, random)
    length = int(2 ** random.uniform(0, 10))
    return start, min(len(content), start + length)


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    changed[place(content, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _byte(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    changed[place(content, random)] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x0A]))
    return bytes(changed)


def _integer(content: bytes, random: Random) -> bytes:
    layout = str(random.choice(["<H", "<I", "<Q", ">H", ">I", ">Q"]))
    size = struct.calcsize(layout)
    value = values.integer(random) % 256**size
    start = place(content, random)
    return content[:start] + struct.pack(layout, value) + content[start + size :]


def _remove(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + content[end:]


def _double(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:end] + content[start:end] * int(random.integers(1, 5)) + content[end:]


def _move(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    rest = content[:start] + content[end:]
    target = int(random.integers(len(rest) + 1))
    return rest[:target] + content[start:end] + rest[target:]


def _insert(content: bytes, random: Random) -> bytes:
    start = place(content, random)
    added = random.bytes(int(2 ** random.uniform(0, 8)))
    return content[:start] + added + content[start:]


def _noise(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + random.bytes(end - start) + content[end:]


def _zero(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + bytes(end - start) + content[end:]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(len(content)))]


_CHANGES: tuple[Mutator, ...] = (
    _flip, _byte, _integer, _remove, _double, _move, _insert, _noise, _zero, _cut,
)  # fmt: skip
