"""The machine that something was measured on, and its state meanwhile."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

# Figures of a record that anyone may have written; far above what any machine has.
Figure = Annotated[float, Meta(ge=0, le=1e15)]
Count = Annotated[int, Meta(ge=0, le=10**15)]
# What may be below zero: a temperature, or a time derived by subtraction.
Reading = Annotated[float, Meta(ge=-1e15, le=1e15)]
Share = Annotated[float, Meta(ge=0, le=1)]
# Of work that was timed: at least a picosecond, so that a ratio of two is finite.
Milliseconds = Annotated[float, Meta(ge=1e-9, le=1e15)]


@dataclass(frozen=True)
class MachineInfo:
    """What a machine is; empty where the system does not show it.

    Attributes:
        cpu: name of the processor.
        isa: its instruction sets that matter for small models.
        architecture: such as ``x86_64`` or ``aarch64``.
        cores: that this process may use; None if not known.
        memory_bytes: main memory; None if not known.
        os: name and version.
        python: its version; empty where no Python runs.
        governor: frequency governor of the first core; None where the system does not show it.
        surroundings: ``bare``, ``container``, ``virtual machine`` or both of these.
        versions: of the engines.
        product: manufacturer and model of a phone; empty for other machines.
    """

    cpu: str = ""
    isa: tuple[str, ...] = ()
    architecture: str = ""
    cores: Count | None = None
    memory_bytes: Count | None = None
    os: str = ""
    python: str = ""
    governor: str | None = None
    surroundings: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    product: str = ""


@dataclass(frozen=True)
class Conditions:
    """The state of a machine at one moment; None for what the system does not show.

    Attributes:
        temperature_c: of the hottest sensor.
        frequency_mhz: of the fastest core.
        load_1m: load average of the last minute.
        throttled: why a Raspberry Pi is throttled now.
        governor: frequency governor.
        thermal_status: of Android: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency,
            6 shutdown.
        battery_percent: charge of a phone's battery.
        battery_temperature_c: its temperature.
        charging: whether it is charging.
    """

    temperature_c: Reading | None = None
    frequency_mhz: Figure | None = None
    load_1m: Figure | None = None
    throttled: tuple[str, ...] | None = None
    governor: str | None = None
    thermal_status: Count | None = None
    battery_percent: Figure | None = None
    battery_temperature_c: Reading | None = None
    charging: bool | None = None


@dataclass(frozen=True)
class RunConditions:
    """The state of a machine during a measurement.

    Attributes:
        before: the first timed run.
        after: the timed runs, at its worst.
        other_cores: how many cores other programs kept busy meanwhile; None if not known.
        yardstick_ms: how long a fixed piece of work took: the speed of the machine; None if not
            measured.
        reconnections: how often the connection to the device was lost.
    """

    before: Conditions = field(default_factory=Conditions)
    after: Conditions = field(default_factory=Conditions)
    other_cores: Figure | None = None
    yardstick_ms: Milliseconds | None = None
    reconnections: Count = 0


@dataclass(frozen=True)
class Diagnosis:
    """Whether an engine works with a delegate on this machine.

    Attributes:
        engine: ``litert``, ``onnxruntime`` or ``keras``.
        version: of the engine, empty where it did not run.
        delegate: what the engine hands its work to.
        about: what that is.
        works: whether it ran a small CCT with the right logits; None if that was not tried.
        why: why it does not work, or what to do to have it.
    """

    engine: str
    version: str
    delegate: str
    about: str
    works: bool | None
    why: str
