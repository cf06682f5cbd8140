"""Several devices at the same time."""

import threading
from collections.abc import Sequence

from cct_export import errors
from cct_export.bench.hosts import open_device
from cct_export.bench.hosts.host import Device, Say
from cct_export.bench.measurement import Tally
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchPasses, Timing


def measure(
    jobs: Sequence[BenchJob],
    timing: Timing,
    passes: BenchPasses,
    *,
    devices: Sequence[str] = ("local",),
    progress: Say,
) -> list[BenchResult]:
    """Measures the same jobs on every device, each by itself, all at the same time.

    Args:
        jobs: what to measure.
        timing: how often and how long.
        passes: what else to measure.
        devices: as ``--device`` names them.
        progress: called with what runs now.

    Returns:
        The results of the first device, then those of the next. A device that cannot be used has
        a failure for every job, so that the results of the others are not lost.

    Raises:
        InvalidRequest: a device is named twice, or there is no such device.
        CCTExportError: nothing can be measured: the reason of the first job.
    """
    results = _on_devices(devices, jobs, timing, passes, progress)
    if all(result.failure and not result.timed for result in results):
        kind: type[CCTExportError] = getattr(errors, results[0].failure_kind)
        raise kind(results[0].failure)
    return results


def _on_devices(
    names: Sequence[str],
    jobs: Sequence[BenchJob],
    timing: Timing,
    passes: BenchPasses,
    say: Say,
) -> list[BenchResult]:
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
        return [tally.result(MachineInfo()) for tally in tallies]
