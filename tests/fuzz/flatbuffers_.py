"""Mutation of TFLite files by the schema that LiteRT ships, and of their offsets and lengths."""

import struct
from enum import Enum
from typing import Any

import numpy as np

from fuzz import plain, trees, values

Random = np.random.Generator
CONTRACT = b"cct_export.json"


def mutate(content: bytes, random: Random) -> bytes:
    """Changes a field by the schema, or a word among the tables, or bytes."""
    kind = random.integers(10)
    if kind < 2 or len(content) < 16:
        return plain.mutate(content, random)
    if kind < 5:
        return _word(content, random)
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        (_contract if kind == 5 else _field)(model, random)
        return _packed(model)
    except Exception:  # damaged by an earlier mutation, or a value that the format cannot hold
        return _word(content, random)


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _word(content: bytes, random: Random) -> bytes:
    """Overwrites a word that can be an offset, a length or an index: one below the file's size."""
    size = len(content) // 4 * 4
    words = np.frombuffer(content[:size], "<u4").astype(np.int64)
    signed = np.where(words >= 2**31, words - 2**32, words)
    places = np.flatnonzero((np.abs(signed) < len(content)) & (words != 0))
    if not len(places):
        return plain.mutate(content, random)
    at = 4 * int(places[random.integers(len(places))])
    value = values.integer(random, int(words[at // 4])) % 2**32
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


def _field(model: Any, random: Random) -> None:
    """Changes an attribute of some table: of the model, a subgraph, an operator, a tensor."""
    tables = list(_tables(model))
    table = tables[random.integers(len(tables))]
    name = str(random.choice(list(vars(table))))
    value = getattr(table, name)
    if isinstance(value, bool | int | float | np.number | Enum):
        changed: Any = values.number(random) if isinstance(value, float) else None
        setattr(table, name, values.integer(random, int(value)) if changed is None else changed)
    elif isinstance(value, bytes):
        setattr(table, name, values.text(random).encode("utf-8", "replace"))
    elif isinstance(value, list | np.ndarray) and len(value):
        setattr(table, name, _vector(list(value), random))
    elif value is not None:
        setattr(table, name, None)
    else:
        setattr(table, name, [values.integer(random)])


def _vector(items: list[Any], random: Random) -> Any:
    index = int(random.integers(len(items)))
    kind = random.integers(5)
    if kind == 0:
        del items[index]
    elif kind == 1:
        items.insert(index, items[index])
    elif kind == 2:
        other = int(random.integers(len(items)))
        items[index], items[other] = items[other], items[index]
    elif isinstance(items[0], int | np.integer):
        items[index] = values.integer(random, int(items[index]))
    elif isinstance(items[0], float | np.floating):
        items[index] = values.number(random)
    else:
        return items[:index]
    return items


def _tables(table: Any) -> Any:
    """Yields a table of the object API, and every table in it."""
    yield table
    for value in vars(table).values():
        for item in value if isinstance(value, list) else [value]:
            if type(item).__module__.endswith("schema_py_generated"):
                yield from _tables(item)


def _contract(model: Any, random: Random) -> None:
    """Changes a field of the contract that the exporter stored."""
    for entry in model.metadata or []:
        if entry.name == CONTRACT:
            buffer = model.buffers[entry.buffer]
            buffer.data = list(trees.mutate_json(bytes(buffer.data), random))
