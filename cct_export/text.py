"""Text that files and devices supply, made safe to show."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Returns ``text`` with U+FFFD in place of every character that is not printable.

    Among those are escape sequences that control a terminal, marks that reverse the direction of
    writing (with one, a name can look like another), and lone surrogates, which UTF-8 cannot
    encode.

    Args:
        text: from a file, a device or a library.
        keep: characters to keep though they are not printable, such as ``"\n\t"``.

    Example:
        >>> printable("model\x1b[2J.tflite")
        'model�[2J.tflite'
    """
    return "".join(
        character if character.isprintable() or character in keep else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def one_line(text: object) -> str:
    """Returns ``str(text)`` on one line: runs of white space become a space, the rest printable."""
    return printable(" ".join(str(text).split()))


def plural(count: int, noun: str) -> str:
    """Returns a count and its noun: ``1 core``, ``2 cores``, ``1,200 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
