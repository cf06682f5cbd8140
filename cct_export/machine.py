"""The machine and the library versions a measurement or conversion was made with."""

import os
import platform
from importlib import metadata
from pathlib import Path


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


def governor() -> str | None:
    """Returns the frequency governor of the first core, None where the OS does not show it."""
    try:
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return path.read_text().strip()
    except OSError:
        return None


def describe() -> dict[str, str | int | None]:
    """Returns processor, architecture, cores usable here, OS, Python and governor."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": cores,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "governor": governor(),
    }
