"""An input: files with mutations that follow from the kind and a number alone."""

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.folders import Files
from fuzz.kinds import KINDS, Form

MAX_MUTATIONS = 4


@dataclass(frozen=True)
class Case:
    """An input of a command.

    Attributes:
        kind: name of the kind.
        number: of the input; with the kind it gives the same mutations again.
        words: program and arguments.
        files: content by path; text is the target of a symbolic link, None an empty folder.
        target: the file or folder that is mutated.
        mutations: how many mutations it has.
    """

    kind: str
    number: int
    words: tuple[str, ...]
    files: Files
    target: str
    mutations: int

    def lay(self, folder: Path) -> None:
        """Writes the files below ``folder``."""
        for name, content in self.files.items():
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if content is None:
                    path.mkdir(exist_ok=True)
                elif isinstance(content, str):
                    path.symlink_to(content)
                else:
                    path.write_bytes(content)
            # Mutation of names may ask for what a file system does not have.
            except (OSError, UnicodeEncodeError):
                continue


def build(seeds: Path, kind: str, number: int, kept: Collection[int] | None = None) -> Case:
    """Returns the input ``number`` of a kind.

    Args:
        seeds: folder with the seeds.
        kind: key of ``KINDS``.
        number: from 0 on.
        kept: which of its mutations it gets; by default all.
    """
    stream = [zlib.crc32(kind.encode()), number]
    random = np.random.default_rng(stream)
    chosen = KINDS[kind]
    form = chosen.forms[random.integers(len(chosen.forms))]
    files = original(seeds, form)
    count = min(MAX_MUTATIONS, int(random.geometric(0.6)))
    for index in range(count):
        each = np.random.default_rng([*stream, index])
        mutator = chosen.mutators[each.integers(len(chosen.mutators))]
        if kept is not None and index not in kept:
            continue
        if form.target.endswith("/"):
            files = mutator(files, each)  # type: ignore[arg-type,assignment]
        else:
            files[form.target] = mutator(files[form.target], each)  # type: ignore[arg-type]
    return Case(kind, number, form.words, files, form.target, count)


def original(seeds: Path, form: Form) -> Files:
    """Returns the files of a form without any mutation."""
    files: Files = {}
    for name in (*form.beside, form.target):
        path = seeds / name
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        files |= {
            str(each.relative_to(seeds)): each.read_bytes() for each in below if each.is_file()
        }
    return files
