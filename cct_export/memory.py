"""Memory that is freed goes back to the operating system."""

import ctypes
import sys


def give_back() -> None:
    """Returns memory that was freed to the system, after a stage that took much of it.

    glibc keeps what was freed between blocks that are still in use, which adds up over the stages
    of an export. Other C libraries return it themselves, or have no such function.
    """
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
