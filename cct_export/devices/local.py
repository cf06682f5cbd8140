"""This machine: a worker in a fresh Python."""

import sys

from cct_export.devices.channel import Channel, package_root

# The package is found where it is now, installed or in a checkout, behind everything else.
_WORKER = """
import sys
sys.path.append(sys.argv[1])
from cct_export.measurement import worker
worker.main()
"""


def start(subject: str) -> Channel:
    """Starts a worker on this machine; ``subject`` is what its errors are about."""
    # -P: a module in the working directory must not stand in for one of an engine's.
    return Channel([sys.executable, "-P", "-c", _WORKER, str(package_root())], subject)
