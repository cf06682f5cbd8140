"""Text of C and C++: names, strings and arrays made from what others wrote."""

import hashlib
import re
import unicodedata
from collections.abc import Callable

import numpy as np

# No keyword of C or C++, and no name of their libraries, starts with it.
_PREFIX = "model_"
# Of the characters of a name: a folder and two files are named after it.
_MAX_NAME = 48
_LINE_WIDTH = 100
# A string's quotes and escapes; with question marks, older compilers read trigraphs.
_ESCAPED = b'"\\?'


def ascii_word(text: str) -> str:
    """Returns what ``text`` has of ASCII letters and digits, in lower case, joined by underscores.

    Example:
        >>> ascii_word("Größe 2-android")
        'groe_2_android'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def identifier(name: str) -> str:
    """Returns a name as an identifier of C and C++, a namespace, and the name of a file.

    A name that lost letters or digits ends in digits of its checksum, so that two such names
    do not become one.

    Args:
        name: any text, such as the name of a file.

    Example:
        >>> identifier("2 sizes.tflite")
        'model_2_sizes_tflite'
        >>> identifier("日本")
        'model_cf2abf0c'
    """
    word = ascii_word(name)
    if not word.startswith(_PREFIX):
        word = f"{_PREFIX}{word}"
    lost = any(letter.isalnum() and not letter.isascii() for letter in name)
    if lost or len(word) > _MAX_NAME:
        digits = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        word = f"{word[: _MAX_NAME - 9].rstrip('_')}_{digits}"
    return word.rstrip("_")


def string(text: str) -> str:
    r"""Returns a string literal of the UTF-8 of ``text``, in ASCII.

    Example:
        >>> print(string('a "ü"'))
        "a \"\303\274\""
    """
    # Octal, of three digits always: hexadecimal would read the digits that follow, too.
    letters = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in _ESCAPED else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(letters)}"'


def floating(value: float) -> str:
    """Returns a literal of the ``float`` nearest to a finite value, exactly."""
    return f"{np.format_float_scientific(np.float32(value), unique=True, trim='0')}f"


def values(array: np.ndarray) -> str:
    """Returns the lines inside the braces of an array.

    Args:
        array: one axis, or rows of one; integers, booleans, or finite floats.
    """
    if array.ndim > 1:
        return "\n".join(f"  {{\n{values(row)}\n  }}," for row in array)
    write = _writer(array.dtype)
    return _wrapped([write(value) for value in array.tolist()])


def _writer(dtype: np.dtype) -> Callable[[float], str]:
    if dtype == np.bool_:
        return lambda value: "true" if value else "false"
    return floating if dtype.kind == "f" else str


def _wrapped(words: list[str]) -> str:
    """Returns lines of about ``_LINE_WIDTH`` characters, a comma after each word."""
    widest = max(map(len, words)) + len(", ")
    count = max(1, (_LINE_WIDTH - len("    ")) // widest)
    rows = (words[start : start + count] for start in range(0, len(words), count))
    return "\n".join(f"    {', '.join(row)}," for row in rows)
