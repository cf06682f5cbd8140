"""Several devices at the same time."""

import threading
from collections.abc import Sequence

from cct_export.bench.hosts import open_device
from cct_export.bench.hosts.host import Device, Say
from cct_export.bench.measurement import Tally
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.records import BenchResult
from cct_export.specs import BenchJob, BenchPasses, Timing


def measure(
    names: Sequence[str],
    jobs: Sequence[BenchJob],
    timing: Timing,
    passes: BenchPasses,
    say: Say,
) -> list[BenchResult]:
    """Measures the same jobs on every device; each is measured by itself, all at once.

    Args:
        names: what ``--device`` says.
        jobs: what to measure.
        timing: how often and how long.
        passes: what else to measure.
        say: called with what is done now.

    Returns:
        The results of the first device, then those of the next. A device that cannot be used has
        a failure for every job, so that what the others found is not lost.

    Raises:
        InvalidRequest: a device is named twice, or cannot be called so.
    """
    if len(set(names)) < len(names):
        raise InvalidRequest("a device is named twice: it can measure only one thing at a time")
    if not names:
        raise InvalidRequest("no device to measure on: local is this one")
    devices = [open_device(name) for name in names]
    found: dict[str, list[BenchResult]] = {}
    broken: list[BaseException] = []

    def work(device: Device) -> None:
        def tell(message: str) -> None:
            say(message if len(devices) == 1 else f"{device.name}: {message}")

        try:
            found[device.name] = _measured(device, jobs, timing, passes, tell)
        except BaseException as error:  # told by the thread that waits, not by this one
            broken.append(error)
        finally:
            device.close()

    # A daemon does not outlive the command: whoever interrupts that need not wait for a device.
    threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in devices[1:]]
    for thread in threads:
        thread.start()
    work(devices[0])
    for thread in threads if not broken else ():
        thread.join()
    if broken:
        for device in devices:
            device.close()
        raise broken[0]
    return [result for device in devices for result in found[device.name]]


def _measured(
    device: Device, jobs: Sequence[BenchJob], timing: Timing, passes: BenchPasses, say: Say
) -> list[BenchResult]:
    try:
        return device.measure(jobs, timing, passes, say)
    except CCTExportError as error:
        tallies = [Tally(job.path, job.spec, timing, device.name) for job in jobs]
        for tally in tallies:
            tally.fail(error)
        return [tally.result({}) for tally in tallies]
