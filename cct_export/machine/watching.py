"""What the machine does while something is measured: heat, frequency, other programs."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cct_export.machine import facts

# The bits of get_throttled in Raspberry Pi's documentation; the first four are "now".
_THROTTLED = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_THROTTLED_FILE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


def conditions() -> dict[str, Any]:
    """Returns what the machine does now.

    Returns:
        temperature_c (of the hottest sensor), frequency_mhz (of the fastest core), load_1m (load
        average of the last minute), throttled (what a Raspberry Pi holds itself back for now) and
        governor;
        None for what the system does not show.
    """
    return {
        "temperature_c": temperature_c(),
        "frequency_mhz": frequency_mhz(),
        "load_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "throttled": throttled(),
        "governor": facts.governor(),
    }


def worst(seen: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the worst of what ``conditions`` told at several times, one at least.

    What only some devices tell is as it was at last.
    """

    def known(name: str) -> list[Any]:
        return [one[name] for one in seen if one[name] is not None]

    reasons = [reason for held in known("throttled") for reason in held]
    return seen[-1] | {
        "temperature_c": max(known("temperature_c"), default=None),
        "frequency_mhz": min(known("frequency_mhz"), default=None),
        "load_1m": max(known("load_1m"), default=None),
        "throttled": list(dict.fromkeys(reasons)) if known("throttled") else None,
    }


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
