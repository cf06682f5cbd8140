"""What a phone is, and how it feels: SoC, Android, heat, battery."""

import re
from dataclasses import replace

from cct_export.bench.hosts.adb.client import Client
from cct_export.machine import isa_of
from cct_export.records import Conditions, MachineInfo

_PART = "== part =="
_SYSTEM = (
    "getprop", "uname -m", "nproc", "cat /proc/meminfo", "cat /proc/cpuinfo",
    "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
)  # fmt: skip
_NOW = ("dumpsys thermalservice", "dumpsys battery")
_PROPERTY = re.compile(r"^\[([^]]+)\]: \[(.*)\]$", re.MULTILINE)
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+)")
_CPU = "0"  # Android's type of a temperature that is the processor's
_CHARGING = 2  # Android's status of a battery


def describe(client: Client, tool: str, sha256: str) -> MachineInfo:
    """Returns what ``machine.describe`` returns, of the phone.

    Args:
        client: the phone.
        tool: name of the program that measures.
        sha256: its checksum: it tells no version.
    """
    facts = system(_asked(client, _SYSTEM))
    return replace(facts, versions={tool: f"sha256 {sha256[:12]}"})


def conditions(client: Client) -> Conditions:
    """Returns what ``machine.conditions`` returns, and what only a phone tells, see ``now``."""
    return now(_asked(client, _NOW))


def _asked(client: Client, commands: tuple[str, ...]) -> list[str]:
    """Returns what each command says, as one call; where one fails, what is left of it."""
    said = client.shell(f"; echo '{_PART}'; ".join(f"{one} 2>/dev/null" for one in commands))
    return [part.strip() for part in said.text.split(_PART)]


def system(parts: list[str]) -> MachineInfo:
    """Returns the facts in what the commands of ``_SYSTEM`` said."""
    properties, architecture, cores, memory, cpuinfo, governor = parts
    known = dict(_PROPERTY.findall(properties))
    total = re.search(r"MemTotal:\s*(\d+) kB", memory)
    version, level = known.get("ro.build.version.release"), known.get("ro.build.version.sdk")
    product = " ".join(
        known[name] for name in ("ro.product.manufacturer", "ro.product.model") if known.get(name)
    )
    return MachineInfo(
        cpu=_cpu(known, cpuinfo),
        isa=tuple(isa_of(cpuinfo)),
        architecture=architecture or known.get("ro.product.cpu.abi", "unknown"),
        cores=int(cores) if cores.isdecimal() else None,
        memory_bytes=int(total[1]) * 1024 if total else None,
        os=f"Android {version} (API {level})" if version else "unknown",
        governor=governor or None,
        surroundings="bare",
        product=product,
    )


def _cpu(known: dict[str, str], cpuinfo: str) -> str:
    """Returns the name of the chip; older phones tell but the name of their board."""
    if known.get("ro.soc.model"):
        return f"{known.get('ro.soc.manufacturer', '')} {known['ro.soc.model']}".strip()
    hardware = re.search(r"^(?:Hardware|model name)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return known.get("ro.board.platform") or (hardware[1].strip() if hardware else "unknown")


def now(parts: list[str]) -> Conditions:
    """Returns the conditions in what the commands of ``_NOW`` said."""
    thermal, battery = parts
    status = re.search(r"^\s*Thermal Status: (\d+)", thermal, re.MULTILINE)
    current = thermal.partition("Current temperatures from HAL")[2] or thermal
    heat = [float(value) for value, kind in _TEMPERATURE.findall(current) if kind == _CPU]
    level, tenths = _number(battery, "level"), _number(battery, "temperature")
    charging = _number(battery, "status")
    # The frequency is read between the runs, when a phone's cores rest: it says nothing.
    return Conditions(
        temperature_c=max(heat, default=None),
        thermal_status=int(status[1]) if status else None,
        battery_percent=level,
        battery_temperature_c=None if tenths is None else tenths / 10,
        charging=None if charging is None else charging == _CHARGING,
    )


def _number(battery: str, name: str) -> int | None:
    found = re.search(rf"^\s*{name}: (-?\d+)\s*$", battery, re.MULTILINE)
    return int(found[1]) if found else None
