"""Text that others wrote, on its way to a terminal."""


def plain(text: str) -> str:
    """Returns ``text`` without what controls a terminal, but for tabs and the ends of lines.

    A file, or a device, may have said it.
    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )
