"""Names that a user chooses from: found in any spelling, or refused with a suggestion."""

import difflib
from collections.abc import Iterable

from cct_export.errors import CCTExportError, InvalidRequest

# Of a name to the word that it is suggested for, 0 to 1: cpu is nothing that one mistypes as npu.
_SIMILARITY = 0.7


def choose(
    word: str, words: Iterable[str], *, what: str, error: type[CCTExportError] = InvalidRequest
) -> str:
    """Returns the name that a user means, in any case and with ``-`` or ``_``.

    Args:
        word: what the user wrote.
        words: the names to choose from.
        what: what they name, for the message.
        error: the error to raise.

    Raises:
        InvalidRequest: there is no such name, or what ``error`` is; the message suggests the
            closest name and lists all.

    Example:
        >>> choose("INT8", ["none", "int8"], what="quantization scheme")
        'int8'
    """
    names = list(words)
    if name := find(word, names):
        return name
    raise error(f"no {what} is called {word!r}: {suggestion(word, names)}")


def find(word: str, words: Iterable[str]) -> str | None:
    """Returns the name that ``word`` is, in any case and with ``-`` or ``_``; None if none is."""
    return next((name for name in words if _plain(name) == _plain(word)), None)


def suggestion(word: str, words: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Returns the end of a message on a name that does not exist.

    Args:
        word: what the user wrote.
        words: the names that exist; the closest is suggested.
        listed: those that the message lists; by default all.
    """
    names = list(words)
    close, all = closest(word, names), ", ".join(names if listed is None else listed)
    return f"did you mean {close}? ({all})" if close else f"choose from {all}"


def closest(word: str, words: Iterable[str]) -> str | None:
    """Returns the name that ``word`` is most likely a misspelling or the beginning of, or None."""
    by_plain = {_plain(name): name for name in words}
    plain = _plain(word)
    # The shortest continuation: m.tflit is m.tflite, not m.tflite.json.
    beginning = sorted((other for other in by_plain if plain and other.startswith(plain)), key=len)
    close = beginning or difflib.get_close_matches(plain, by_plain, 1, _SIMILARITY)
    return by_plain[close[0]] if close else None


def _plain(word: str) -> str:
    return word.casefold().replace("_", "-")
