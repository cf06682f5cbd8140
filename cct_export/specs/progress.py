"""Progress callbacks: what long work calls while it runs."""

from collections.abc import Callable

# Called with what runs now, in a few words.
StatusProgress = Callable[[str], None]
# Called with the number of items that are done, and of all.
CountProgress = Callable[[int, int], None]
# Called with the epoch (from 1), the step (from 1; 0 at the end of the epoch), the steps of an
# epoch, and the metrics so far.
StepProgress = Callable[[int, int, int, dict[str, float]], None]


def counted(progress: StatusProgress, what: str) -> CountProgress:
    """Returns a callback that reports to ``progress`` how much is done: ``verifying 400/1,000``."""
    return lambda done, total: progress(f"{what} {done:,}/{total:,}")


def no_progress(*progress: object) -> None:
    """Reports nothing; takes the arguments of any progress callback."""
