"""What must hold however a command ends: the list of what does not."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
MAX_MEMORY = 2 * 2**30
# Codes of a result that is no error.
VERDICTS = (3, 4, 5, 7)
# What a command says of an artifact that is not the one it was exported as.
_CHANGED = re.compile(r"changed|sidecar|another file|not the file")
_LIBRARY = re.compile(r"^Traceback|this is a bug|Warning:|^\s+File \"", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; None if it did not end by itself.
        out: standard output.
        err: standard error.
        native: what native code wrote past Python.
        why: ``crash``, ``hang`` or ``memory`` where it did not end by itself.
        seconds: processor time, of its child processes too.
        memory_bytes: most memory beyond what was there before, of its child processes too.
        left: files that it made, or changed, and should not have.
        contacts: what it connected to, ran, loaded or wrote that no command line named.
    """

    code: int | None
    out: str = ""
    err: str = ""
    native: str = ""
    why: str = ""
    seconds: float = 0.0
    memory_bytes: int = 0
    left: tuple[str, ...] = ()
    contacts: tuple[str, ...] = field(default=())


def documented_codes() -> frozenset[int]:
    """Returns the exit codes of docs/exit-codes.md."""
    page = (ROOT / "docs/exit-codes.md").read_text()
    return frozenset(map(int, re.findall(r"^\| (\d+) \|", page, re.MULTILINE)))


def failures(ended: Ended, *, limit_s: float, expected: "str | None" = None) -> list[str]:
    """Returns what is wrong with how a command ended; empty if nothing is.

    Args:
        ended: how it ended.
        limit_s: processor time that it may take.
        expected: JSON record of the predictions of the file without mutations, where the file
            promises them; None where it promises none.
    """
    if ended.why:
        return [ended.why]
    found = [
        f"exit code {ended.code} is not documented" * (ended.code not in documented_codes()),
        f"slow: {ended.seconds:.0f} s" * (ended.seconds > limit_s),
        f"memory: {ended.memory_bytes:,} bytes" * (ended.memory_bytes > MAX_MEMORY),
        "left: " + ", ".join(ended.left) if ended.left else "",
        "contact: " + ", ".join(ended.contacts) if ended.contacts else "",
        "native code printed" * bool(ended.native.strip()),
        "control characters" * (not _is_printable(ended.out + ended.err)),
        "a traceback, a warning of a library, or an error not foreseen"
        * bool(_LIBRARY.search(ended.err)),
        *_error_lines(ended),
    ]
    if ended.code == 0 and expected is not None and not _CHANGED.search(ended.err):
        found.append("other answers, and no word of it" * (not _same(ended.out, expected)))
    return [failure for failure in found if failure]


def _is_printable(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def _error_lines(ended: Ended) -> list[str]:
    """Checks that an error is one line, the last one, and standard output empty."""
    lines = ended.err.splitlines()
    errors = sum(line.startswith("error: ") for line in lines)
    if ended.code == 0 or ended.code in VERDICTS:
        return ["an error line without an error"] if errors and ended.code == 0 else []
    found = []
    if errors != 1 or not lines[-1].startswith("error: "):
        found.append(f"{errors} error lines, {len(lines)} lines in all")
    elif len(lines[-1]) < len("error: ") + 5:
        found.append("an error line that says nothing")
    if ended.out:
        found.append("standard output beside an error")
    return found


def _same(out: str, expected: str) -> bool:
    """Whether two records of predictions have the same labels and probabilities."""
    first, second = (json.loads(text)["predictions"][0]["top"] for text in (out, expected))
    labels = [[each["label"] for each in top] for top in (first, second)]
    figures = [[each["probability"] for each in top] for top in (first, second)]
    return labels[0] == labels[1] and bool(np.allclose(*figures, rtol=0, atol=1e-6))
