"""The machine and the library versions a measurement or conversion was made with."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

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


def describe() -> dict[str, Any]:
    """Returns what the machine is: the same whenever it is asked.

    Returns:
        cpu, isa (see ``isa_flags``), architecture, cores usable here, memory_bytes, os, python,
        governor, surroundings, and versions of the engines.
    """
    return {
        "cpu": cpu_model(),
        "isa": isa_flags(),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "governor": governor(),
        "surroundings": surroundings(),
        "versions": versions(*_ENGINES),
    }
