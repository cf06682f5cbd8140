"""Words on a page or a terminal: text of files and devices made safe to show, and counts."""


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
    others = text
    for character in keep:
        others = others.replace(character, "")
    if others.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def one_line(text: object) -> str:
    """Returns ``str(text)`` on one line: runs of white space become a space, the rest printable."""
    return printable(" ".join(str(text).split()))


def plural(count: int, singular: str, plural: str = "") -> str:
    """Returns a number of things: ``1 core``, ``2,000 cores``.

    Args:
        count: how many there are.
        singular: the word for one of them.
        plural: the word for more; by default the other one with an ``s``.

    Example:
        >>> plural(1, "core"), plural(3, "class", "classes")
        ('1 core', '3 classes')
    """
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"
