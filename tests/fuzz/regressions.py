"""Minimized inputs as small JSON files, which ``make test`` runs again."""

import json
from pathlib import Path
from typing import Any

from fuzz.cases import Case, build, original
from fuzz.kinds import KINDS

FOLDER = Path(__file__).parent / "regressions"
# A longer file is kept as the mutations of a seed instead.
MAX_BYTES = 8_000


def write(case: Case, kept: tuple[int, ...] | None, why: str, folder: Path = FOLDER) -> Path:
    """Writes an input; returns the file."""
    content = case.files.get(case.target)
    fields: dict[str, Any] = {
        "kind": case.kind, "number": case.number, "command": " ".join(case.words), "why": why,
    }  # fmt: skip
    if isinstance(content, bytes) and len(content) <= MAX_BYTES:
        fields["content"] = _encoded(content)
    elif kept is not None:
        fields["kept"] = kept
    folder.mkdir(exist_ok=True)
    path = folder / f"{case.kind}-{case.number}.json"
    path.write_text(json.dumps(fields, indent=1) + "\n")
    return path


def read(path: Path, seeds: Path) -> Case:
    """Returns the input in a file."""
    fields = json.loads(path.read_text())
    if "content" not in fields:
        return build(seeds, fields["kind"], fields["number"], fields.get("kept"))
    words = tuple(fields["command"].split())
    form = next(form for form in KINDS[fields["kind"]].forms if form.words == words)
    files = original(seeds, form) | {form.target: _decoded(fields["content"])}
    return Case(fields["kind"], fields["number"], words, files, form.target, 0)


def _encoded(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"hex": [content[at : at + 40].hex() for at in range(0, len(content), 40)]}
    return {"text": text}


def _decoded(content: dict[str, Any]) -> bytes:
    return content["text"].encode() if "text" in content else bytes.fromhex("".join(content["hex"]))
