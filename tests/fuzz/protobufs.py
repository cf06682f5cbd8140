"""Mutation of protocol buffers: ONNX by its schema, TFRecords by the wire format."""

import struct
from typing import Any

import numpy as np

from fuzz import plain, trees, values

Random = np.random.Generator
CONTRACT = "cct_export.json"


def mutate_onnx(content: bytes, random: Random) -> bytes:
    """Changes one field somewhere in an ONNX model: set, removed, doubled, or moved."""
    import onnx

    if random.random() < 0.15:
        return plain.mutate(content, random)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # damaged by an earlier mutation
        return plain.mutate(content, random)
    kind = random.integers(8)
    if kind == 0:
        _external(model, random)
    elif kind == 1:
        _contract(model, random)
    elif kind == 2:
        _rewire(model, random)
    else:
        places = list(_places(model))
        if not places:
            return plain.mutate(content, random)
        message, field = places[random.integers(len(places))]
        _change(message, field, random)
    return model.SerializeToString()


def _places(message: Any) -> Any:
    """Yields (message, field) of every field that is set, at any depth."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for item in value if _repeated(field) else [value]:
                yield from _places(item)


def _repeated(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False) or getattr(field, "label", 0) == 3)


def _scalar(field: Any, old: Any, random: Random) -> Any:
    name = field.cpp_type
    if name == field.CPPTYPE_ENUM:
        known = field.enum_type.values
        return known[random.integers(len(known))].number
    if name == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return plain.mutate(old, random)
        return values.text(random)
    if name in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return values.number(random)
    bits = 32 if name in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    value = values.integer(random, int(old or 0)) % 2**bits
    signed = name in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value


def _change(message: Any, field: Any, random: Random) -> None:
    value = getattr(message, field.name)
    if random.random() < 0.15:
        message.ClearField(field.name)
    elif not _repeated(field):
        if field.message_type is None:
            setattr(message, field.name, _scalar(field, value, random))
        else:
            value.Clear()
    else:
        index = int(random.integers(len(value)))
        kind = random.integers(4)
        if kind == 0:
            del value[index]
        elif field.message_type is not None:
            value.add().CopyFrom(value[index])
        elif kind == 1:
            value.append(value[index])
        else:
            value[index] = _scalar(field, value[index], random)


def _external(model: Any, random: Random) -> None:
    """Points a weight at a file beside the model, in it, or out of its folder."""
    weights = model.graph.initializer
    if not weights:
        return
    weight = weights[random.integers(len(weights))]
    weight.data_location = 1
    if random.random() < 0.5:
        weight.ClearField("raw_data")
    del weight.external_data[:]
    fields = {
        "location": str(random.choice(["m.onnx", "../m.onnx", "/dev/zero", "/etc/passwd", "x"])),
        "offset": str(random.choice(["0", "-1", "1e3", "9" * 30, str(2**63), "nan", "8"])),
        "length": str(random.choice(["0", "-1", "4", "9" * 30, str(2**62), "x"])),
    }  # fmt: skip
    for name, value in fields.items():
        if random.random() < 0.8:
            entry = weight.external_data.add()
            entry.key, entry.value = name, value


def _contract(model: Any, random: Random) -> None:
    """Changes a field of the contract that the exporter stored."""
    for entry in model.metadata_props:
        if entry.key == CONTRACT:
            # Text that is no UTF-8 is given as bytes.
            value = entry.value.encode() if isinstance(entry.value, str) else entry.value
            changed = trees.mutate_json(value, random)
            entry.value = changed.decode("utf-8", "replace")


def _rewire(model: Any, random: Random) -> None:
    """Makes an input of a node another tensor: a circle, or a tensor of another shape."""
    nodes = model.graph.node
    names = [name for node in nodes for name in (*node.input, *node.output)]
    if not names:
        return
    node = nodes[random.integers(len(nodes))]
    ends = node.input if node.input and random.random() < 0.7 else node.output
    if ends:
        ends[random.integers(len(ends))] = str(names[random.integers(len(names))])


def mutate_tfrecord(content: bytes, random: Random) -> bytes:
    """Changes a record's Example, its frame, or the order of records."""
    records = _records(content)
    if not records or random.random() < 0.15:
        return plain.mutate(content, random)
    index = int(random.integers(len(records)))
    kind = random.integers(6)
    if kind == 0:
        del records[index]
    elif kind == 1:
        records.insert(index, records[index])
    elif kind == 2:
        return _frame(content, random)
    else:
        records[index] = mutate_wire(records[index], random)
    return b"".join(map(framed, records))


def framed(data: bytes) -> bytes:
    """Returns a record with its length and masked checksums (CRC-32C)."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    import google_crc32c

    checksum = google_crc32c.value(data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32)


def _records(content: bytes) -> list[bytes]:
    records, start = [], 0
    while start + 16 <= len(content):
        (size,) = struct.unpack_from("<Q", content, start)
        if start + 16 + size > len(content):
            break
        records.append(content[start + 12 : start + 12 + size])
        start += 16 + size
    return records


def _frame(content: bytes, random: Random) -> bytes:
    """Overwrites the length of the first record; its checksum is right half of the time."""
    (size,) = struct.unpack_from("<Q", content)
    length = struct.pack("<Q", values.integer(random, size) % 2**64)
    checksum = _masked(length) if random.random() < 0.5 else content[8:12]
    return length + checksum + content[12:]


def mutate_wire(data: bytes, random: Random) -> bytes:
    """Changes a field of a message whose schema is not known, often one inside another."""
    fields = _fields(data)
    if not fields or random.random() < 0.1:
        return plain.mutate(data, random)
    index = int(random.integers(len(fields)))
    number, kind, value = fields[index]
    change = random.integers(6)
    if change == 0:
        del fields[index]
    elif change == 1:
        fields.insert(index, fields[index])
    elif change == 2 and kind == 0:
        fields[index] = (number, kind, _varint(values.integer(random) % 2**64))
    elif change == 3 and random.random() < 0.3:
        fields[index] = (int(random.integers(1, 2**20)), kind, value)
    elif kind == 2:
        fields[index] = (number, kind, mutate_wire(value, random))
    else:
        fields[index] = (number, kind, plain.mutate(value, random))
    return b"".join(_packed(*field) for field in fields)


def _packed(number: int, kind: int, value: bytes) -> bytes:
    return _varint(number << 3 | kind) + (_varint(len(value)) if kind == 2 else b"") + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Returns (number, wire type, value) of each field; none if the bytes are no message."""
    fields, start = [], 0
    while start < len(data):
        key, start = _read_varint(data, start)
        kind, begin = key & 7, start
        if kind == 0:
            _, start = _read_varint(data, start)
        elif kind == 2:
            size, begin = _read_varint(data, start)
            start = begin + size
        else:
            start += {1: 8, 5: 4}.get(kind, len(data) + 1)
        if key < 8 or start > len(data):
            return []
        fields.append((key >> 3, kind, data[begin:start]))
    return fields


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    while start < len(data) and shift < 64:
        value |= (data[start] & 0x7F) << shift
        start += 1
        if data[start - 1] < 0x80:
            return value, start
        shift += 7
    return 0, len(data) + 1
