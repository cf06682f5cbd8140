"""The largest resident memory of this process."""

import sys
from pathlib import Path


def peak_rss_bytes() -> int | None:
    """Returns the peak resident set of this process, None where the OS does not tell.

    On Linux from VmHWM, which starts anew with the program: getrusage's figure would include the
    parent's memory from before the exec.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
