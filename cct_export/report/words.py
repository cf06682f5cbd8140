"""Strings that come from files, made fit to be shown."""


def printable(text: object) -> str:
    """Returns ``text`` on one line, without control characters and halves of surrogate pairs.

    Marks that turn the direction of writing are among them: with one, a name can look like another.
    """
    line = " ".join(str(text).split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )
