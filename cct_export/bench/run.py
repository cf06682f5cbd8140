"""Measuring on one or several devices at the same time."""

import threading
from collections.abc import Callable, Sequence

from cct_export import errors
from cct_export.bench.hosts import Device
from cct_export.bench.hosts.adb import Phone
from cct_export.bench.hosts.local import Local
from cct_export.bench.hosts.ssh import SSHHost
from cct_export.bench.measurement import Measurement
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.names import find, suggestion
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchPlan
from cct_export.specs.progress import StatusProgress

DEVICE_FORMS = ("local", "ssh:USER@HOST[:PORT]", "adb[:SERIAL]")
# By what precedes the colon; the argument is what follows it.
DEVICES: dict[str, Callable[[str], Device]] = {"local": Local, "ssh": SSHHost.at, "adb": Phone}


def open_device(name: str) -> Device:
    """Returns the device that ``--device`` names; nothing connects yet.

    Raises:
        InvalidRequest: there is no such kind of device, or the name is malformed.
    """
    kind, _, address = name.partition(":")
    known = find(kind, DEVICES)
    if known is None:
        raise InvalidRequest(f"no device is called {name!r}: {suggestion(name, DEVICE_FORMS)}")
    return DEVICES[known](address)


def open_devices(names: Sequence[str]) -> list[Device]:
    """Returns devices by name; nothing connects yet.

    Raises:
        InvalidRequest: one is named twice or does not exist, or there is none.
    """
    if len(set(names)) < len(names):
        raise InvalidRequest("a device is named twice: it can measure only one thing at a time")
    if not names:
        raise InvalidRequest("no device to measure on: local is this one")
    return [open_device(name) for name in names]


def measure(
    jobs: Sequence[BenchJob],
    plan: BenchPlan,
    *,
    devices: Sequence[Device],
    progress: StatusProgress,
) -> list[BenchResult]:
    """Measures the same jobs on every device, on all at the same time.

    Args:
        jobs: what to measure.
        plan: how.
        devices: from ``open_devices``; they are closed at the end.
        progress: called with what runs now.

    Returns:
        The results of the first device, then those of the next. A device that cannot be used has
        a failure for every job, so that the results of the others are not lost.

    Raises:
        CCTExportError: nothing can be measured: the reason of the first job.
    """
    results = _in_parallel(devices, jobs, plan, progress)
    if all(result.failure and not result.timed for result in results):
        kind: type[CCTExportError] = getattr(errors, results[0].failure_kind)
        raise kind(results[0].failure)
    return results


def _in_parallel(
    devices: Sequence[Device],
    jobs: Sequence[BenchJob],
    plan: BenchPlan,
    progress: StatusProgress,
) -> list[BenchResult]:
    results: dict[str, list[BenchResult]] = {}
    unexpected: list[BaseException] = []

    def work(device: Device) -> None:
        def report(message: str) -> None:
            progress(message if len(devices) == 1 else f"{device.name}: {message}")

        try:
            results[device.name] = _measure(device, jobs, plan, report)
        except BaseException as error:  # raised by the thread that waits, not by this one
            unexpected.append(error)
        finally:
            device.close()

    # A daemon does not outlive the command: whoever interrupts that need not wait for a device.
    threads = [threading.Thread(target=work, args=(device,), daemon=True) for device in devices[1:]]
    for thread in threads:
        thread.start()
    work(devices[0])
    for thread in threads if not unexpected else ():
        thread.join()
    if unexpected:
        for device in devices:
            device.close()
        raise unexpected[0]
    return [result for device in devices for result in results[device.name]]


def _measure(
    device: Device, jobs: Sequence[BenchJob], plan: BenchPlan, progress: StatusProgress
) -> list[BenchResult]:
    try:
        return device.measure(jobs, plan, progress)
    except CCTExportError as error:
        unmeasured = [Measurement(job, plan.timing, device.name, failure=error) for job in jobs]
        return [measurement.result(MachineInfo()) for measurement in unmeasured]
