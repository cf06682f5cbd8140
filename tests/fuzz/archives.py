"""Mutation of zip archives (``.keras``, ``.npz``, PyTorch files) and of arrays in them."""

import ast
import io
import struct
import warnings
import zipfile

import numpy as np

from fuzz import plain, trees, values

Random = np.random.Generator
# Fields of a member's entry in the central directory, by offset and struct's layout.
_ENTRY = {
    8: "<H", 10: "<H", 16: "<I", 20: "<I", 24: "<I", 28: "<H", 30: "<H", 38: "<I", 42: "<I",
}  # fmt: skip
_END = {8: "<H", 10: "<H", 12: "<I", 16: "<I", 20: "<H"}
DTYPES = (
    "|O", "<f4", ">f8", "<U1000000000", "|S0", "<c16", "|V8", "<M8[s]", "|b1", "<i8", ">u2", "x",
    "", "|u1", "<f2", "3i4", "[('a', '<i4')]",
)  # fmt: skip
HEADERS = (
    "(", "{}", "1", "'x' * 10**9", "{'descr': '<f4'}", "[" * 300, "(" * 90, "{'a': " * 100,
    "\x00", "lambda: 0", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "1_",
    "{'descr': '<f4', 'fortran_order': 0, 'shape': 1}", '"""', "0777", "\\", "é",
)  # fmt: skip


def mutate_npy(content: bytes, random: Random) -> bytes:
    """Changes the header of an ``.npy``: type, order, shape, version, or its syntax."""
    if content[:6] != b"\x93NUMPY" or random.random() < 0.2:
        return plain.mutate(content, random)
    start, layout = (10, "<H") if content[6] == 1 else (12, "<I")
    (size,) = struct.unpack_from(layout, content, 8)
    text, data = content[start : start + size].decode("latin-1"), content[start + size :]
    version = content[6:8]
    kind = random.integers(6)
    if kind == 0:
        text = HEADERS[random.integers(len(HEADERS))]
    elif kind == 1:
        text = plain.mutate(text.encode("latin-1"), random).decode("latin-1")
    elif kind == 2:
        version = bytes(random.integers(0, 5, 2).astype(np.uint8))
    else:
        text = _header(text, random)
    encoded = (text + "\n").encode("latin-1", "replace")[: 256 ** struct.calcsize(layout) - 1]
    return content[:6] + version + struct.pack(layout, len(encoded)) + encoded + data


def _header(text: str, random: Random) -> str:
    try:
        fields = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text
    if not isinstance(fields, dict):  # an earlier mutation
        return text
    kind = random.integers(4)
    if kind == 0:
        fields["descr"] = DTYPES[random.integers(len(DTYPES))]
    elif kind == 1:
        fields["fortran_order"] = not fields.get("fortran_order")
    else:
        shape = list(fields.get("shape", ()))
        index = int(random.integers(len(shape) + 1))
        old = shape[index] if index < len(shape) else 0
        shape[index : index + int(random.integers(2))] = [values.integer(random, old)]
        fields["shape"] = tuple(shape if random.random() < 0.9 else [])
    return repr(fields)


def mutate(content: bytes, random: Random) -> bytes:
    """Changes a member's content by its own format, its name, its declared sizes, or the archive.

    Content that is no archive is changed as plain bytes.
    """
    kind = random.integers(10)
    if kind < 2 or not zipfile.is_zipfile(io.BytesIO(content)):
        return plain.mutate(content, random)
    if kind < 4:
        return _entry(content, random)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # damaged by an earlier mutation
        return plain.mutate(content, random)
    if not members:
        return plain.mutate(content, random)
    index = int(random.integers(len(members)))
    name, inside = members[index]
    if kind == 4:
        members[index] = (values.text(random)[:1000], inside)
    elif kind == 5:
        del members[index]
    elif kind == 6:
        members.append((name, plain.mutate(inside, random)))
    elif kind == 7 and random.random() < 0.3:
        members[index] = (name, content)
    else:
        members[index] = (name, _member(name, inside, random))
    return _packed(members, random)


def _member(name: str, content: bytes, random: Random) -> bytes:
    if name.endswith(".npy"):
        return mutate_npy(content, random)
    if name.endswith(".json"):
        return trees.mutate_json(content, random)
    if name.endswith(".h5"):
        from fuzz import hdf5

        return hdf5.mutate(content, random)
    return plain.mutate(content, random)


def _packed(members: list[tuple[str, bytes]], random: Random) -> bytes:
    packed = io.BytesIO()
    # Stored as it is, or by zlib, bz2 or lzma, which take long.
    method = int(random.choice([0, 8, 12, 14], p=[0.85, 0.1, 0.03, 0.02]))
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(packed, "w", compression=method) as archive,
    ):
        for name, content in members:
            # A fixed date: the same mutation gives the same bytes.
            info = zipfile.ZipInfo(name or "empty")
            info.compress_type = method
            archive.writestr(info, content)
    return packed.getvalue()


def _entry(content: bytes, random: Random) -> bytes:
    """Overwrites a field of a central directory entry, of a local header, or of the end record."""
    mark, fields = [
        (b"PK\x01\x02", _ENTRY),
        (b"PK\x03\x04", {offset - 2: layout for offset, layout in _ENTRY.items() if offset < 31}),
        (b"PK\x05\x06", _END),
    ][random.integers(3)]
    starts = []
    start = content.find(mark)
    while start >= 0:
        starts.append(start)
        start = content.find(mark, start + 4)
    if not starts:
        return plain.mutate(content, random)
    offset = int(random.choice(list(fields)))
    layout = fields[offset]
    at = int(random.choice(starts)) + offset
    size = struct.calcsize(layout)
    old = int.from_bytes(content[at : at + size], "little")
    value = values.integer(random, old) % 256**size
    return content[:at] + struct.pack(layout, value) + content[at + size :]
