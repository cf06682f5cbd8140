"""This machine."""

from collections.abc import Sequence
from pathlib import Path

from cct_export import machine
from cct_export.bench import schedule
from cct_export.bench.protocol import start_worker
from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidRequest
from cct_export.files import check_file
from cct_export.records import BenchResult, MachineInfo
from cct_export.runtimes import ENGINES
from cct_export.specs import BenchJob, BenchPlan, BenchSpec
from cct_export.specs.progress import StatusProgress
from cct_export.workers import Channel


class Local:
    """This machine. See ``Device`` and ``Host``.

    Args:
        name: what follows ``local:``, which must be empty.

    Raises:
        InvalidRequest: there is a name.
    """

    name = "local"

    def __init__(self, name: str = "") -> None:
        if name:
            raise InvalidRequest(f"there is only one local device: use local, not local:{name}")

    def choose_delegate(self, runtime: str, name: str) -> str:
        """Returns a delegate as its engine names it; see ``Device``."""
        return ENGINES[runtime].choose_delegate(name)

    def check(self, specs: Sequence[BenchSpec], plan: BenchPlan) -> None:
        """Refuses a delegate whose library does not exist; see ``Device``."""
        for library in {spec.delegation.name.partition(":")[2] for spec in specs}:
            if library:
                check_file(Path(library), "delegate")

    def measure(
        self, jobs: Sequence[BenchJob], plan: BenchPlan, progress: StatusProgress
    ) -> list[BenchResult]:
        """Measures jobs; see ``Device``."""
        return schedule.measure(jobs, plan, self, progress)

    def start(self, subject: str) -> Channel:
        """Starts a worker; see ``Host``."""
        return start_worker(subject)

    def copy_artifact(self, path: Path) -> str:
        """Returns the path: nothing needs to be copied."""
        return str(path)

    def copy_test_images(self, data: str, shape: ImageShape) -> str:
        """Returns the name: nothing needs to be copied."""
        return data

    def describe(self) -> MachineInfo:
        """Returns ``machine.describe``."""
        return machine.describe()

    def close(self) -> None:
        """Does nothing: workers end with their channels."""
