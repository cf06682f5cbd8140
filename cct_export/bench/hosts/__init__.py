"""Where artifacts are measured: this machine, machines behind ssh, Android phones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cct_export.data.dataset import ImageShape
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchPlan, BenchSpec
from cct_export.specs.progress import StatusProgress
from cct_export.workers import Channel


class Device(Protocol):
    """Where artifacts are measured, by whatever means.

    Attributes:
        name: as ``--device`` names it, such as ``local`` or ``ssh:pi@raspberrypi.local``.
    """

    name: str

    def choose_delegate(self, runtime: str, name: str) -> str:
        """Returns a delegate of an engine as the device names it; nothing connects.

        Raises:
            InvalidRequest: there is no such delegate.
            NotAvailable: the device does not have it.
        """
        ...

    def check(self, specs: Sequence[BenchSpec], plan: BenchPlan) -> None:
        """Refuses what the device cannot measure; nothing connects.

        Raises:
            InvalidRequest: an engine, an option or a program that it does not have.
        """
        ...

    def measure(
        self, jobs: Sequence[BenchJob], plan: BenchPlan, progress: StatusProgress
    ) -> list[BenchResult]:
        """Measures jobs.

        Args:
            jobs: what to measure; paths are of this machine.
            plan: how.
            progress: called with what runs now.

        Returns:
            A result for each job, with the facts of the device as ``machine``. One that could not
            be measured has a ``failure``, one whose golden parity failed has no latency.

        Raises:
            CCTExportError: the device cannot be reached or used at all.
        """
        ...

    def close(self) -> None:
        """Ends whatever still runs on the device."""
        ...


class Host(Protocol):
    """A device that runs workers (``bench.worker``): what ``schedule.measure`` needs of it.

    Attributes:
        name: see ``Device``.
    """

    name: str

    def start(self, subject: str) -> Channel:
        """Starts a worker; ``subject`` is what its errors are about."""
        ...

    def copy_artifact(self, path: Path) -> str:
        """Copies an artifact and its sidecar to the host; returns its path on the host."""
        ...

    def copy_test_images(self, data: str, shape: ImageShape) -> str:
        """Copies labelled test images to the host; returns what ``--data`` would be there."""
        ...

    def describe(self) -> MachineInfo:
        """Returns ``machine.describe`` of the host."""
        ...
