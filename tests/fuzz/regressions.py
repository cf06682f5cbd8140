"""Minimized inputs as small JSON files, which ``make test`` runs again."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.cases import Case, build, original
from fuzz.kinds import KINDS, Form

FOLDER = Path(__file__).parent / "regressions"
# A longer file is kept as edits of its seed: weights differ from one training to the next, offsets
# do not.
MAX_BYTES = 4_000


def write(case: Case, seeds: Path, why: str, folder: Path = FOLDER) -> Path:
    """Writes an input; returns the file."""
    fields: dict[str, Any] = {
        "kind": case.kind, "number": case.number, "command": " ".join(case.words), "why": why,
    }  # fmt: skip
    content = case.files.get(case.target)
    if isinstance(content, bytes):
        seed = original(seeds, _form(fields))[case.target]
        assert isinstance(seed, bytes)
        fields |= (
            {"content": _encoded(content)}
            if len(content) <= MAX_BYTES
            else {"edits": _edits(seed, content)}
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.kind}-{case.number}.json"
    path.write_text(json.dumps(fields, indent=1) + "\n")
    return path


def read(path: Path, seeds: Path) -> Case:
    """Returns the input in a file."""
    fields = json.loads(path.read_text())
    form = _form(fields)
    files = original(seeds, form)
    if "content" in fields:
        files[form.target] = _decoded(fields["content"])
    elif "edits" in fields:
        files[form.target] = _edited(files[form.target], fields["edits"])
    else:  # a folder
        return build(seeds, fields["kind"], fields["number"])
    return Case(fields["kind"], fields["number"], form.words, files, form.target, 0)


def _form(fields: dict[str, Any]) -> Form:
    words = tuple(fields["command"].split())
    return next(form for form in KINDS[fields["kind"]].forms if form.words == words)


def _edits(seed: bytes, content: bytes) -> list[tuple[int, int, str]]:
    """Returns start and end in the seed, and what stands there instead, in hexadecimal.

    Single spans where both are equally long; else one span, from the first difference to the last.
    """
    if len(seed) != len(content):
        first = _common(seed, content)
        rest = _common(seed[first:][::-1], content[first:][::-1])
        end = len(seed) - rest
        return [(first, end, content[first : len(content) - rest].hex())]
    differs = np.frombuffer(seed, np.uint8) != np.frombuffer(content, np.uint8)
    borders = np.flatnonzero(np.diff(differs, prepend=False, append=False)).tolist()
    return [
        (start, end, content[start:end].hex())
        for start, end in zip(borders[::2], borders[1::2], strict=True)
    ]


def _common(one: bytes, other: bytes) -> int:
    """Returns the number of bytes with which both begin."""
    differs = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differs, min(len(one), len(other)))


def _edited(seed: Any, edits: list[tuple[int, int, str]]) -> bytes:
    content, done = b"", 0
    for start, end, replacement in edits:
        content += seed[done:start] + bytes.fromhex(replacement)
        done = end
    return bytes(content + seed[done:])


def _encoded(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"hex": [content[at : at + 40].hex() for at in range(0, len(content), 40)]}
    return {"text": text}


def _decoded(content: dict[str, Any]) -> bytes:
    return content["text"].encode() if "text" in content else bytes.fromhex("".join(content["hex"]))
