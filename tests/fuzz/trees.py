"""Mutation of JSON and TOML: every field by nasty values, removed, doubled, nested too deeply."""

import json
import re
import struct
from typing import Any

import numpy as np

from fuzz import plain, values

Random = np.random.Generator
# JSON that ``json.dumps`` does not write: numbers out of range, and what is no JSON.
TOKENS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "1" + "0" * 400,
    "-1" + "0" * 400, "1." + "0" * 400 + "1", "1" * 5000, '"\\ud800"', '"\\u0000"', '"\x1b"', "",
    "'x'", "[" * 100_000 + "]" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 200, "tru",
    "{}", "[]", "[[]]", "[null]", "[1,[2,[3]]]", "null", "true", "false", "0", "1", "-1", "0.5",
    '{"a":1,"a":2}',
)  # fmt: skip
LITERALS = (
    "nan", "inf", "-inf", "+nan", "1" + "0" * 400, "1" * 5000, "0x7fffffffffffffff", "1e400", "-0",
    "true", "false", "[]", "{}", "[1, 2]", '"x"', "''", "1979-05-27", "1979-05-27T07:32:00Z",
    "07:32:00", '"\\u001b[2J"', '"\\ud800"', "[" * 500 + "]" * 500, "{a = " * 300 + "1" + "}" * 300,
    "1.5", "0.1", "-1", "0", "1", "9223372036854775807", "9223372036854775808", "", "0o17",
)  # fmt: skip
_MARK = "\N{PERSONAL COMPUTER}{}"


def mutate_json(content: bytes, random: Random) -> bytes:
    """Changes one field of a JSON document; any other content is changed as plain bytes."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return plain.mutate(content, random)
    places = list(_places(document))
    if not places or random.random() < 0.1:
        return plain.mutate(content, random)
    owner, key = places[random.integers(len(places))]
    token = _change(owner, key, random)
    try:
        text = json.dumps(document, ensure_ascii=bool(random.integers(2)))
    except RecursionError:
        return plain.mutate(content, random)
    if token is not None:
        text = re.sub(f'"(?:{_MARK}|\\\\ud83d\\\\udcbb{{}})"', lambda _: token, text)
    return text.encode("utf-8", "surrogatepass")


def _places(node: Any) -> Any:
    """Yields (owner, key) of every value below ``node``; of long lists the first and last few."""
    if isinstance(node, dict):
        keys: Any = list(node)
    elif isinstance(node, list):
        count = len(node)
        keys = range(count) if count < 12 else [*range(4), count // 2, *range(count - 4, count)]
    else:
        return
    for key in keys:
        yield node, key
        yield from _places(node[key])


def _change(owner: Any, key: Any, random: Random) -> str | None:
    """Changes a value in place; returns JSON text that goes in place of the mark, if any."""
    value = owner[key]
    kind = random.integers(9)
    if kind == 0:
        del owner[key]
    elif kind == 1:
        owner[key] = values.text(random)
    elif kind == 2:
        owner[key] = values.integer(random, value if type(value) is int else 0)
    elif kind == 3:
        owner[key] = values.number(random)
    elif kind == 4:
        owner[key] = [value] * int(random.choice([0, 1, 2, 1000]))
    elif kind == 5:
        owner[key] = {values.text(random): value}
    elif kind == 6 and isinstance(owner, list):
        owner.insert(key, value)
    elif kind == 6:
        owner[values.text(random)] = owner.pop(key)
    elif kind == 7 and isinstance(value, list) and value:
        owner[key] = value[: int(random.integers(len(value)))]
    else:
        owner[key] = _MARK
        return TOKENS[random.integers(len(TOKENS))]
    return None


def mutate_toml(content: bytes, random: Random) -> bytes:
    """Changes, removes, doubles or adds a line of a TOML file."""
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    if not lines or random.random() < 0.1:
        return plain.mutate(content, random)
    index = int(random.integers(len(lines)))
    name = lines[index].partition("=")[0].strip()
    kind = random.integers(6)
    if kind == 0:
        del lines[index]
    elif kind == 1:
        lines.insert(index, lines[index])
    elif kind == 2:
        lines[index] = f"{json.dumps(values.text(random))} = 1"
    elif kind == 3:
        lines.insert(index, f"[{name or 'x'}]")
    elif kind == 4:
        lines[index] = f"{name} = {json.dumps(values.text(random))}"
    else:
        lines[index] = f"{name} = {LITERALS[random.integers(len(LITERALS))]}"
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def mutate_safetensors(content: bytes, random: Random) -> bytes:
    """Changes the JSON header of a safetensors file, or its length."""
    if len(content) < 8 or random.random() < 0.15:
        return plain.mutate(content, random)
    (size,) = struct.unpack_from("<Q", content)
    header, data = content[8 : 8 + size], content[8 + size :]
    if random.random() < 0.2:
        size = values.integer(random, size) % 2**64
    else:
        header = mutate_json(header, random)
        size = len(header)
    return struct.pack("<Q", size) + header + data
