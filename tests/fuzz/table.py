"""The table of a run: what was fed to the commands, and how they ended."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.worker import Result

_START, _END = "<!-- fuzz:figures -->", "<!-- /fuzz:figures -->"


@dataclass
class Row:
    """The figures of one kind.

    Attributes:
        inputs: how many.
        codes: how many ended with each exit code; -1 for those that did not end by themselves.
        slowest_s: most processor time.
        memory_bytes: most memory.
        failures: inputs with something wrong.
    """

    inputs: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    memory_bytes: int = 0
    failures: int = 0

    def add(self, result: Result) -> None:
        """Counts a result."""
        ended = result.ended
        self.inputs += 1
        self.codes[-1 if ended.code is None else ended.code] += 1
        self.slowest_s = max(self.slowest_s, ended.seconds)
        self.memory_bytes = max(self.memory_bytes, ended.memory_bytes)
        self.failures += bool(result.failures)


def total(rows: dict[str, Row]) -> Row:
    """Returns the sum of all rows; of slowest and memory the largest."""
    whole = Row()
    for row in rows.values():
        whole.inputs += row.inputs
        whole.codes += row.codes
        whole.slowest_s = max(whole.slowest_s, row.slowest_s)
        whole.memory_bytes = max(whole.memory_bytes, row.memory_bytes)
        whole.failures += row.failures
    return whole


def markdown(rows: dict[str, Row]) -> str:
    """Returns a Markdown table with a row for each kind, and the sum."""
    codes = sorted({code for row in rows.values() for code in row.codes if code > 0})
    head = ["kind", "inputs", "accepted", *(f"exit {code}" for code in codes), "slowest s",
            "memory MB", "failures"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for name, row in [*rows.items(), ("all", total(rows))]:
        counts = [f"{row.codes[code]:,}" for code in (0, *codes)]
        figures = [f"{row.slowest_s:.1f}", f"{row.memory_bytes / 1e6:.0f}", f"{row.failures:,}"]
        lines.append(f"| {' | '.join([name, f'{row.inputs:,}', *counts, *figures])} |")
    return "\n".join(lines) + "\n"


def write(page: Path, figures: str) -> None:
    """Replaces what stands between the markers of a page; raises ``ValueError`` without them."""
    text, count = re.subn(
        f"{_START}.*?{_END}",
        lambda _: f"{_START}\n{figures}{_END}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise ValueError(f"{page} has no {_START}")
    page.write_text(text)
