"""This machine."""

from collections.abc import Sequence
from pathlib import Path

from cct_export import machine
from cct_export.bench import schedule
from cct_export.bench.hosts.channel import Channel, start_worker
from cct_export.bench.hosts.host import Say
from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidRequest
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchPasses, Timing


class Local:
    """This machine. See ``Device`` and ``Host``."""

    name = "local"

    def measure(
        self, jobs: Sequence[BenchJob], timing: Timing, passes: BenchPasses, say: Say
    ) -> list[BenchResult]:
        """Measures jobs; see ``Device``."""
        return schedule.measure(jobs, timing, passes, self, say)

    def start(self, subject: str) -> Channel:
        """Starts a worker; see ``Host``."""
        return start_worker(subject)

    def place(self, path: Path) -> str:
        """Returns the path: it is here."""
        return str(path)

    def labelled(self, data: str, shape: ImageShape) -> str:
        """Returns the name: they are here."""
        return data

    def describe(self) -> MachineInfo:
        """Returns ``machine.describe``."""
        return machine.describe()

    def close(self) -> None:
        """Nothing runs on."""


def open_device(which: str = "") -> Local:
    """Returns this machine; raises ``InvalidRequest`` if ``which`` says which one."""
    if which:
        raise InvalidRequest(f"there is but one local device: say local, not local:{which}")
    return Local()
