"""Facts about this machine, its library versions, and what it does during a measurement."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from cct_export.records.machine import Conditions, MachineInfo

_FLAGS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16", "fphp", "sve",
)  # fmt: skip
_ENGINES = (
    "ai-edge-litert", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino",
    "onnxruntime-webgpu", "keras", "tensorflow", "jax", "numpy", "cct-export",
)  # fmt: skip


def versions(*distributions: str) -> dict[str, str]:
    """Returns the installed versions of ``distributions``, those that are not there left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """Returns the processor's name as the operating system shows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def isa_flags() -> list[str]:
    """Returns those instruction sets of the processor that make small models fast.

    They are what XNNPACK and ONNX Runtime choose their kernels by.
    """
    try:
        return isa_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        return []


def isa_of(cpuinfo: str) -> list[str]:
    """Returns what ``isa_flags`` is about, of the text of ``/proc/cpuinfo``."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return [flag for flag in _FLAGS if flag in value.split()]
    return []


def governor() -> str | None:
    """Returns the frequency governor of the first core, None where the OS does not show it."""
    try:
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return path.read_text().strip()
    except OSError:
        return None


def surroundings() -> str:
    """Returns ``bare``, ``container``, ``virtual machine`` or both of these."""
    inside = any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))
    try:
        virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    except OSError:
        virtual = False
    if inside and virtual:
        return "container in a virtual machine"
    return "container" if inside else "virtual machine" if virtual else "bare"


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> MachineInfo:
    """Returns what this machine is: the same whenever it is asked."""
    return MachineInfo(
        cpu=cpu_model(),
        isa=tuple(isa_flags()),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        governor=governor(),
        surroundings=surroundings(),
        versions=versions(*_ENGINES),
    )


# The bits of get_throttled in Raspberry Pi's documentation; the first four are "now".
_THROTTLED = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_THROTTLED_FILE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


def conditions() -> Conditions:
    """Returns the state of this machine now."""
    reasons = throttled()
    return Conditions(
        temperature_c=temperature_c(),
        frequency_mhz=frequency_mhz(),
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        throttled=None if reasons is None else tuple(reasons),
        governor=governor(),
    )


def worst(readings: Sequence[Conditions]) -> Conditions:
    """Returns the worst of several readings, one at least.

    What only phones tell is that of the last reading.
    """

    def known(name: str) -> list[Any]:
        values = (getattr(reading, name) for reading in readings)
        return [value for value in values if value is not None]

    reasons = [reason for throttled in known("throttled") for reason in throttled]
    return replace(
        readings[-1],
        temperature_c=max(known("temperature_c"), default=None),
        frequency_mhz=min(known("frequency_mhz"), default=None),
        load_1m=max(known("load_1m"), default=None),
        throttled=tuple(dict.fromkeys(reasons)) if known("throttled") else None,
    )


def temperature_c() -> float | None:
    """Returns the temperature of the hottest sensor in degrees Celsius, None if there is none."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    found = [one.current for sensors in psutil.sensors_temperatures().values() for one in sensors]
    return max(found, default=None)


def frequency_mhz() -> float | None:
    """Returns the frequency of the fastest core in MHz, None where the system does not show it.

    In a virtual machine the figure is the nominal one, which never changes: not shown either.
    """
    if not Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").exists():
        return None
    return max((core.current for core in psutil.cpu_freq(percpu=True)), default=None)


def throttled() -> list[str] | None:
    """Returns why a Raspberry Pi holds itself back now, None on any other machine."""
    bits = _throttled_bits()
    return None if bits is None else [name for bit, name in _THROTTLED.items() if bits >> bit & 1]


def _throttled_bits() -> int | None:
    try:
        return int(_THROTTLED_FILE.read_text().strip(), 16)
    except (OSError, ValueError):
        pass
    if shutil.which("vcgencmd") is None:
        return None
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5
        )
        return int(done.stdout.strip().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


# Thirty of the system's ticks.
LEAST_S = 0.3


class Watch:
    """Tells how many cores other programs kept busy while this process did its work.

    The system counts busy time in hundredths of a second: only the sum over many bursts tells.
    """

    def __init__(self) -> None:
        self._seconds = self._others = 0.0

    def __enter__(self) -> "Watch":
        self._start = self._read()
        return self

    def __exit__(self, *exception: object) -> None:
        wall, busy, own = (
            after - before for after, before in zip(self._read(), self._start, strict=True)
        )
        self._seconds += wall
        self._others += busy - own

    @property
    def seconds(self) -> float:
        """Time watched."""
        return self._seconds

    @property
    def other_cores(self) -> float | None:
        """Mean number of cores that others kept busy, None after too short a time to tell."""
        return max(0.0, self._others / self._seconds) if self._seconds >= LEAST_S else None

    @staticmethod
    def _read() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        waiting = times.idle + getattr(times, "iowait", 0.0)
        # A guest's time is part of the user's.
        twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return time.monotonic(), sum(times) - waiting - twice, time.process_time()
