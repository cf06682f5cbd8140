"""Mutation of PNG chunks and JPEG segments."""

import functools
import struct
import zlib

import numpy as np

from fuzz import plain, values

Random = np.random.Generator
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def mutate_png(content: bytes, random: Random) -> bytes:
    """Changes, removes, doubles or adds a chunk; most checksums are made right again."""
    chunks = _chunks(content)
    if not chunks or random.random() < 0.1:
        return plain.mutate(content, random)
    index = int(random.integers(len(chunks)))
    name, data = chunks[index]
    kind = random.integers(7)
    if kind == 0:
        del chunks[index]
    elif kind == 1:
        chunks.insert(index, chunks[index])
    elif kind == 2:
        chunks[index] = (random.bytes(4), data)
    elif kind == 3:
        chunks.insert(min(index + 1, len(chunks) - 1), _extra(random))
    elif kind == 4 and chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13:
        chunks[0] = (b"IHDR", _png_header(chunks[0][1], random))
    elif kind == 5 and name == b"IDAT":
        chunks[index] = (name, _compressed(data, random))
    else:
        chunks[index] = (name, plain.mutate(data, random))
    wrong = int(random.integers(len(chunks) or 1)) if random.random() < 0.15 else -1
    packed = [_SIGNATURE]
    for position, (name, data) in enumerate(chunks):
        checksum = zlib.crc32(name + data) ^ (position == wrong)
        packed += [struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)]
    return b"".join(packed)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, start = [], len(_SIGNATURE)
    if content[:start] != _SIGNATURE:
        return []
    while start + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, start)
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + size]))
        start += 12 + size
    return chunks


def _png_header(data: bytes, random: Random) -> bytes:
    """Changes width, height, depth, colour type, compression, filter or interlace of IHDR."""
    width, height, *rest = struct.unpack(">IIBBBBB", data)
    kind = int(random.integers(7))
    if kind == 0:
        width = values.integer(random, width) % 2**32
    elif kind == 1:
        height = values.integer(random, height) % 2**32
    else:
        rest[kind - 2] = int(random.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]))
    return struct.pack(">IIBBBBB", width, height, *rest)


def _extra(random: Random) -> tuple[bytes, bytes]:
    """Returns a chunk that decoders treat specially: text, profiles, EXIF, animation, palettes."""
    name = [b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"PLTE", b"tRNS",
            b"gAMA", b"pHYs", b"IEND", b"sRGB"][random.integers(13)]  # fmt: skip
    bomb = _bomb()
    data = [
        random.bytes(int(random.integers(0, 800))),
        b"x\0\0" + bomb,
        b"x\0\1\0\0\0" + bomb,
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0",
        struct.pack(">II", 2**31, 0),
    ][random.integers(5)]
    return name, data


@functools.cache
def _bomb() -> bytes:
    """Returns 64 kB that become 64 MiB."""
    return zlib.compress(bytes(2**26), 9)


def _compressed(data: bytes, random: Random) -> bytes:
    try:
        pixels = zlib.decompress(data)
    except zlib.error:
        return plain.mutate(data, random)
    return zlib.compress(plain.mutate(pixels, random))


def mutate_jpeg(content: bytes, random: Random) -> bytes:
    """Changes, removes, doubles or adds a segment."""
    segments, scan = _segments(content)
    if not segments or random.random() < 0.1:
        return plain.mutate(content, random)
    index = int(random.integers(len(segments)))
    marker, data = segments[index]
    kind = random.integers(7)
    if kind == 0:
        del segments[index]
    elif kind == 1:
        segments.insert(index, segments[index])
    elif kind == 2:
        segments[index] = (int(random.integers(0xC0, 0xFF)), data)
    elif kind == 3:
        exif = b"Exif\0\0MM\0*" + random.bytes(int(random.integers(4, 60)))
        segments.insert(0, (0xE1, exif))
    elif kind == 4:
        scan = plain.mutate(scan, random)
    else:
        segments[index] = (marker, plain.mutate(data, random))
    packed = [b"\xff\xd8"]
    for marker, data in segments:
        size = len(data) + 2 if random.random() < 0.97 else int(random.integers(2**16))
        packed += [b"\xff", bytes([marker]), struct.pack(">H", size % 2**16), data]
    return b"".join([*packed, scan])


def _segments(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Returns the segments before the first scan, and everything from the scan's data on."""
    segments, start = [], 2
    if content[:2] != b"\xff\xd8":
        return [], b""
    while start + 4 <= len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        (size,) = struct.unpack_from(">H", content, start + 2)
        segments.append((marker, content[start + 4 : start + 2 + size]))
        start += 2 + size
        if marker == 0xDA:
            break
    return segments, content[start:]
