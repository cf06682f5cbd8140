"""What this machine is, what state it is in, and what it does during a measurement."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import psutil

from cct_export.records.machine import Conditions, MachineInfo

Value = TypeVar("Value")

_ISA_FLAGS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16", "fphp", "sve",
)  # fmt: skip
_ENGINES = (
    "ai-edge-litert", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino",
    "onnxruntime-webgpu", "openvino", "keras", "tensorflow", "jax", "numpy", "cct-export",
)  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THROTTLED_FILE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
# The bits of get_throttled in Raspberry Pi's documentation; the first four are "now".
_THROTTLED = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
# Thirty of the system's ticks.
LEAST_S = 0.3


def describe() -> MachineInfo:
    """Returns the facts about this machine that do not change."""
    cpuinfo = _text(_CPUINFO)
    return MachineInfo(
        cpu=cpu_model(cpuinfo),
        isa=isa_flags(cpuinfo),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        governor=governor(),
        surroundings=_surroundings(cpuinfo),
        versions=versions(*_ENGINES),
    )


def versions(*distributions: str) -> dict[str, str]:
    """Returns the versions of those of ``distributions`` that are installed."""
    installed = {}
    for name in distributions:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def cpu_model(cpuinfo: str) -> str:
    """Returns the processor's name.

    Args:
        cpuinfo: the text of ``/proc/cpuinfo``; empty where there is none.
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def isa_flags(cpuinfo: str) -> tuple[str, ...]:
    """Returns the instruction sets that XNNPACK and ONNX Runtime choose their kernels by.

    Args:
        cpuinfo: the text of ``/proc/cpuinfo``; empty where there is none.
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return tuple(flag for flag in _ISA_FLAGS if flag in value.split())
    return ()


def governor() -> str | None:
    """Returns the frequency governor of the first core, None where the OS does not show it."""
    return _text(_CPUFREQ / "scaling_governor").strip() or None


def _surroundings(cpuinfo: str) -> str:
    container = any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))
    virtual = "hypervisor" in cpuinfo
    if container and virtual:
        return "container in a virtual machine"
    return "container" if container else "virtual machine" if virtual else "bare"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def conditions() -> Conditions:
    """Returns the state of this machine now."""
    return Conditions(
        temperature_c=temperature_c(),
        frequency_mhz=frequency_mhz(),
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        throttled=throttled(),
        governor=governor(),
    )


def worst(readings: Sequence[Conditions]) -> Conditions:
    """Returns the worst of several readings, at least one.

    What only phones tell is that of the last reading.
    """
    throttled = _known([reading.throttled for reading in readings])
    reasons = [reason for reading in throttled for reason in reading]
    return replace(
        readings[-1],
        temperature_c=max(_known([r.temperature_c for r in readings]), default=None),
        frequency_mhz=min(_known([r.frequency_mhz for r in readings]), default=None),
        load_1m=max(_known([r.load_1m for r in readings]), default=None),
        throttled=tuple(dict.fromkeys(reasons)) if throttled else None,
    )


def _known(values: Sequence[Value | None]) -> list[Value]:
    return [value for value in values if value is not None]


def temperature_c() -> float | None:
    """Returns the temperature of the hottest sensor in degrees Celsius, None if there is none."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    sensors = (sensor for group in psutil.sensors_temperatures().values() for sensor in group)
    return max((sensor.current for sensor in sensors), default=None)


def frequency_mhz() -> float | None:
    """Returns the frequency of the fastest core in MHz, None where the system does not show it.

    In a virtual machine the figure is the nominal one, which never changes: not shown either.
    """
    if not (_CPUFREQ / "scaling_cur_freq").exists():
        return None
    return max((core.current for core in psutil.cpu_freq(percpu=True)), default=None)


def throttled() -> tuple[str, ...] | None:
    """Returns why a Raspberry Pi is throttled now, None on any other machine."""
    bits = _throttled_bits()
    if bits is None:
        return None
    return tuple(reason for bit, reason in _THROTTLED.items() if bits >> bit & 1)


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


def peak_rss_bytes() -> int | None:
    """Returns the peak resident set of this process, None where the OS does not tell.

    On Linux from VmHWM, which starts anew with the program: getrusage's figure would include the
    parent's memory from before the exec.
    """
    for line in _text(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


class CpuWatch:
    """Measures how many cores other programs keep busy while this process does its work.

    The system counts busy time in hundredths of a second: only the sum over many bursts tells.
    """

    def __init__(self) -> None:
        self._wall_s = self._others_s = 0.0

    def __enter__(self) -> "CpuWatch":
        self._start = self._read()
        return self

    def __exit__(self, *exception: object) -> None:
        wall_s, busy_s, own_s = (
            after - before for after, before in zip(self._read(), self._start, strict=True)
        )
        self._wall_s += wall_s
        self._others_s += busy_s - own_s

    @property
    def other_cores(self) -> float | None:
        """Mean number of cores that others kept busy, None after too short a time to tell."""
        return max(0.0, self._others_s / self._wall_s) if self._wall_s >= LEAST_S else None

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Returns wall time, busy time of all cores, and CPU time of this process in seconds."""
        times = psutil.cpu_times()
        waiting = times.idle + getattr(times, "iowait", 0.0)
        # A guest's time is part of the user's.
        counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return time.monotonic(), sum(times) - waiting - counted_twice, time.process_time()
