"""What a device is: a place where artifacts are measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cct_export.bench.hosts.channel import Channel
from cct_export.data.dataset import ImageShape
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchPasses, Timing

Say = Callable[[str], None]


class Device(Protocol):
    """Where artifacts are measured, whatever it takes there.

    Attributes:
        name: as the user says it, such as ``local`` or ``ssh:pi@raspberrypi.local``.
    """

    name: str

    def measure(
        self, jobs: Sequence[BenchJob], timing: Timing, passes: BenchPasses, say: Say
    ) -> list[BenchResult]:
        """Measures jobs.

        Args:
            jobs: what to measure; paths are of this machine.
            timing: how often and how long.
            passes: what else to measure.
            say: called with what is done now.

        Returns:
            A result for each job, with the facts of the device as ``machine``; one that could not
            be measured says why, one whose golden parity failed has no latency.

        Raises:
            CCTExportError: the device cannot be reached or used at all.
        """
        ...

    def close(self) -> None:
        """Ends whatever still runs there."""
        ...


class Host(Protocol):
    """A device that runs workers, see ``measurement.worker``: what ``rounds.measure`` needs of it.

    Attributes:
        name: see ``Device``.
    """

    name: str

    def start(self, subject: str) -> Channel:
        """Starts a worker; ``subject`` is what its errors are about."""
        ...

    def place(self, path: Path) -> str:
        """Makes an artifact, and its sidecar, be there; returns its path there."""
        ...

    def labelled(self, data: str, shape: ImageShape) -> str:
        """Makes labelled test images be there; returns what ``--data`` would say there."""
        ...

    def describe(self) -> MachineInfo:
        """Returns ``machine.describe`` of it."""
        ...
