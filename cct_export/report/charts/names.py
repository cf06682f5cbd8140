"""Short names of results, for charts that have no room for the whole ones."""

import re
from collections.abc import Sequence
from itertools import takewhile

from cct_export.report.charts.chart import shortened

_MAX_LENGTH = 22
_SEPARATORS = " -_.,/("


def short_names(names: Sequence[str]) -> list[str]:
    """Returns what distinguishes each name: without the words that all begin or end with.

    Args:
        names: each different.

    Example:
        >>> short_names(["cct-float32.tflite", "cct-int8.tflite"])
        ['float32', 'int8']
    """
    words = [re.findall(r"[\W_]*[^\W_]+|[\W_]+$", name) for name in names]
    if len(words) < 2 or not all(words):
        return _limited([[name] for name in names])
    shortest = min(map(len, words))
    last = min(_shared([name[::-1] for name in words]), shortest - 1)
    kept = [name[: len(name) - last] for name in words]
    first = min(_shared(kept), shortest - last - 1)
    while first and not all(_says_enough(name[first:], whole=not last) for name in kept):
        first -= 1
    return _limited([name[first:] for name in kept])


def _shared(names: Sequence[Sequence[str]]) -> int:
    """Returns how many words all names begin with."""
    places = zip(*names, strict=False)
    return sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, places))


def _says_enough(words: Sequence[str], *, whole: bool) -> bool:
    """Returns whether words stand for a name: not "8" of "batch 8", nor the ending of a file.

    Args:
        words: the last of the name.
        whole: whether they are so to its end.
    """
    return bool(re.search(r"[^\W\d_]", "".join(words))) and len(words) > whole


def _limited(names: Sequence[Sequence[str]]) -> list[str]:
    """Returns names of a length that fits a chart, with a number where two would be alike.

    Args:
        names: as words; of a long one, those go first that all have.
    """
    common = set.intersection(*map(set, names)) if len(names) > 1 else set()
    limited = []
    for words in names:
        whole = "".join(words)
        if len(whole) > _MAX_LENGTH:
            whole = "".join("…" if word in common else word for word in words)
            whole = re.sub("…+", "…", whole)
        limited.append(shortened(whole.strip(_SEPARATORS) or whole, _MAX_LENGTH))
    return [
        name if limited.count(name) == 1 else f"{number} {shortened(name, _MAX_LENGTH - 4)}"
        for number, name in enumerate(limited, start=1)
    ]
