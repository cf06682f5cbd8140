"""What a phone is, and the state that it is in: SoC, Android, heat, battery."""

import re
from dataclasses import replace

from cct_export.bench.hosts.adb.client import Client
from cct_export.machine import isa_flags
from cct_export.records import Conditions, MachineInfo

_SEPARATOR = "== part =="
_MACHINE_COMMANDS = (
    "getprop", "uname -m", "nproc", "cat /proc/meminfo", "cat /proc/cpuinfo",
    "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
)  # fmt: skip
_CONDITION_COMMANDS = ("dumpsys thermalservice", "dumpsys battery")
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
    machine = parse_machine(_outputs(client, _MACHINE_COMMANDS))
    return replace(machine, versions={tool: f"sha256 {sha256[:12]}"})


def conditions(client: Client) -> Conditions:
    """Returns what ``machine.conditions`` returns, of the phone."""
    return parse_conditions(_outputs(client, _CONDITION_COMMANDS))


def _outputs(client: Client, commands: tuple[str, ...]) -> list[str]:
    """Runs commands in one call; returns the output of each, whether it failed or not."""
    script = f"; echo '{_SEPARATOR}'; ".join(f"{command} 2>/dev/null" for command in commands)
    return [output.strip() for output in client.shell(script).text.split(_SEPARATOR)]


def parse_machine(outputs: list[str]) -> MachineInfo:
    """Returns the facts in the outputs of ``_MACHINE_COMMANDS``."""
    getprop, architecture, cores, memory, cpuinfo, governor = outputs
    properties = dict(_PROPERTY.findall(getprop))
    total = re.search(r"MemTotal:\s*(\d+) kB", memory)
    version = properties.get("ro.build.version.release")
    level = properties.get("ro.build.version.sdk")
    names = ("ro.product.manufacturer", "ro.product.model")
    return MachineInfo(
        cpu=_cpu(properties, cpuinfo),
        isa=isa_flags(cpuinfo),
        architecture=architecture or properties.get("ro.product.cpu.abi", "unknown"),
        cores=int(cores) if cores.isdecimal() else None,
        memory_bytes=int(total[1]) * 1024 if total else None,
        os=f"Android {version} (API {level})" if version else "unknown",
        governor=governor or None,
        surroundings="bare",
        product=" ".join(properties[name] for name in names if properties.get(name)),
    )


def _cpu(properties: dict[str, str], cpuinfo: str) -> str:
    """Returns the name of the chip; older phones tell only the name of their board."""
    if properties.get("ro.soc.model"):
        return f"{properties.get('ro.soc.manufacturer', '')} {properties['ro.soc.model']}".strip()
    hardware = re.search(r"^(?:Hardware|model name)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return properties.get("ro.board.platform") or (hardware[1].strip() if hardware else "unknown")


def parse_conditions(outputs: list[str]) -> Conditions:
    """Returns the conditions in the outputs of ``_CONDITION_COMMANDS``."""
    thermal, battery = outputs
    status = re.search(r"^\s*Thermal Status: (\d+)", thermal, re.MULTILINE)
    current = thermal.partition("Current temperatures from HAL")[2] or thermal
    cpu_c = [float(value) for value, kind in _TEMPERATURE.findall(current) if kind == _CPU]
    level, tenths = _number(battery, "level"), _number(battery, "temperature")
    charging = _number(battery, "status")
    # The frequency is read between the runs, when a phone's cores rest: it says nothing.
    return Conditions(
        temperature_c=max(cpu_c, default=None),
        thermal_status=int(status[1]) if status else None,
        battery_percent=level,
        battery_temperature_c=None if tenths is None else tenths / 10,
        charging=None if charging is None else charging == _CHARGING,
    )


def _number(battery: str, name: str) -> int | None:
    match = re.search(rf"^\s*{name}: (-?\d+)\s*$", battery, re.MULTILINE)
    return int(match[1]) if match else None
