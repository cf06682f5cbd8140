"""Progress callbacks: what long work calls while it runs."""

from collections.abc import Callable

# Called with what runs now, in a few words.
StatusProgress = Callable[[str], None]
# Called with the number of items that are done, and of all.
CountProgress = Callable[[int, int], None]


def no_progress(*progress: object) -> None:
    """Reports nothing; takes the arguments of any progress callback."""
