"""Mutation of folders with images: names, links, missing and odd entries."""

import numpy as np

from fuzz import plain, values

Random = np.random.Generator
# Files by their path in a folder; text is the target of a symbolic link, None an empty folder.
Files = dict[str, bytes | str | None]


def mutate(files: Files, random: Random) -> Files:
    """Renames, removes, adds, links or damages an entry."""
    files = dict(files)
    name = sorted(files)[random.integers(len(files))]
    folder = name.rpartition("/")[0]
    kind = random.integers(8)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[f"{folder}/{_name(random)}.png"] = files[name]
    elif kind == 2:
        files[f"{folder.rpartition('/')[0]}/{_name(random)}/0.png"] = files.pop(name)
    elif kind == 3:
        files[name] = str(random.choice([".", "..", name, "/dev/zero", "/dev/null", "missing"]))
    elif kind == 4:
        files[f"{folder}/{_name(random)}"] = None
    elif kind == 5:
        files[f"{folder}/{random.choice(['.hidden', '__MACOSX', 'notes.txt', 'x.gif'])}"] = b"x"
    elif kind == 6:
        files[f"{name}.png"] = files[name]
    else:
        content = files[name]
        files[name] = plain.mutate(content if isinstance(content, bytes) else b"", random)
    return files


def _name(random: Random) -> str:
    text = values.text(random).replace("/", "_").replace("\0", "_")[:80]
    return text if text not in ("", ".", "..") else "_"
