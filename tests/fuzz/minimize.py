"""Makes an input that failed small: fewer mutations, then fewer changed bytes."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz.cases import Case, build, original
from fuzz.kinds import KINDS

# Inputs that are tried; most failures need far fewer.
MAX_TRIES = 60


def minimized(
    seeds: Path, kind: str, number: int, fails: Callable[[Case], bool], tries: int = MAX_TRIES
) -> Case:
    """Returns a smaller input that fails too.

    Args:
        seeds: folder with the seeds.
        kind: key of ``KINDS``.
        number: of the input.
        fails: whether an input fails in the same way.
        tries: how often ``fails`` is called at most.
    """
    budget = _Budget(fails, tries)
    case = build(seeds, kind, number)
    kept = list(range(case.mutations))
    for index in range(case.mutations):
        fewer = [each for each in kept if each != index]
        simpler = build(seeds, kind, number, fewer)
        if fewer and budget.fails(simpler):
            kept, case = fewer, simpler
    content = case.files.get(case.target)
    if not isinstance(content, bytes):
        return case
    form = next(form for form in KINDS[kind].forms if form.words == case.words)
    seed = original(seeds, form)[case.target]
    assert isinstance(seed, bytes)
    fewest = case
    for smaller in _smaller(seed, content, lambda tried: budget.fails(_with(fewest, tried))):
        case = _with(fewest, smaller)
    return case


class _Budget:
    def __init__(self, fails: Callable[[Case], bool], tries: int) -> None:
        self._fails, self.left = fails, tries

    def fails(self, case: Case) -> bool:
        self.left -= 1
        return self.left >= 0 and self._fails(case)


def _with(case: Case, content: bytes) -> Case:
    return dataclasses.replace(case, files={**case.files, case.target: content})


def _smaller(seed: bytes, content: bytes, fails: Callable[[bytes], bool]) -> Iterator[bytes]:
    """Yields contents that still fail, each with fewer bytes that differ from the seed.

    What lies between the common start and end is replaced, half by half, by what the seed has.
    """
    start = next((i for i, (a, b) in enumerate(zip(seed, content, strict=False)) if a != b), 0)
    longest = min(len(seed), len(content)) - start
    same = range(longest)
    end = next((i for i in same if seed[-1 - i] != content[-1 - i]), longest)
    width = len(content) - start - end
    if len(seed) != len(content):
        # Only the middle can shrink: what was added there.
        while width > 1:
            half = content[: start + width // 2] + content[start + width :]
            if not fails(half):
                return
            content, width = half, width // 2
            yield content
        return
    while width > 1:
        width = (width + 1) // 2
        for at in range(start, len(content) - end, width):
            back = content[:at] + seed[at : at + width] + content[at + width :]
            if back != content and fails(back):
                content = back
                yield content
