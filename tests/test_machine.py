"""What is known of the machine, and what it does meanwhile."""

import subprocess
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import pytest

from cct_export import machine
from cct_export.records import Conditions


def test_conditions_are_plausible_or_unknown():
    conditions = machine.conditions()
    assert conditions.load_1m >= 0
    assert conditions.temperature_c is None or -50 < conditions.temperature_c < 150
    assert conditions.frequency_mhz is None or 100 < conditions.frequency_mhz < 20_000


def test_the_temperature_is_that_of_the_hottest_sensor(monkeypatch):
    sensors = {"a": [SimpleNamespace(current=40.0)], "b": [SimpleNamespace(current=61.5)]}
    monkeypatch.setattr(machine.psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert machine.temperature_c() == 61.5


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ("0x0", ()),
        ("0x1", ("under-voltage",)),
        ("0x6", ("frequency capped", "throttled")),
        ("0x50000", ()),  # has occurred, but is over
        ("0x50005", ("under-voltage", "throttled")),
    ],
)
def test_a_raspberry_pi_tells_why_it_is_throttled(tmp_path, monkeypatch, bits, reasons):
    file = tmp_path / "get_throttled"
    file.write_text(bits[2:] + "\n")
    monkeypatch.setattr(machine, "_THROTTLED_FILE", file)
    assert machine.throttled() == reasons


def test_vcgencmd_is_run_where_there_is_no_such_file(tmp_path, monkeypatch):
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x4\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine, "_THROTTLED_FILE", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.throttled() == ("throttled",)
    program.write_text("#!/bin/sh\necho nonsense\n")
    assert machine.throttled() is None


def test_the_worst_of_several_conditions_is_composed_of_what_is_known():
    hot = Conditions(90.0, 1500.0, None, ("throttled",), thermal_status=3)
    cool = Conditions(40.0, None, 0.5, ("under-voltage", "throttled"), thermal_status=1)
    assert machine.worst([hot, cool]) == Conditions(
        90.0, 1500.0, 0.5, ("throttled", "under-voltage"), thermal_status=1
    )
    assert machine.worst([Conditions()]) == Conditions()


def test_busy_neighbours_are_seen():
    endless = [sys.executable, "-c", "while True: pass"]
    watch = machine.CpuWatch()
    neighbours = [subprocess.Popen(endless) for _ in range(2)]
    try:
        for _ in range(6):
            with watch:
                end = time.monotonic() + 0.1
                while time.monotonic() < end:
                    pass
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    # Two neighbours have at least half a core of any machine.
    assert watch.other_cores > 0.5


def test_own_work_waiting_and_guests_are_not_counted_as_that_of_others(monkeypatch):
    times = namedtuple("times", "user system idle iowait guest")
    readings = iter([times(100, 10, 1000, 5, 20), times(107, 11, 1003, 9, 21)])
    clock, own = iter([50.0, 54.0]), iter([3.0, 6.0])
    monkeypatch.setattr(machine.psutil, "cpu_times", lambda: next(readings))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(machine.time, "process_time", lambda: next(own))
    with machine.CpuWatch() as watch:
        pass
    # Busy for 7 + 1 s, the guest's second being part of the user's, own 3 s, within 4 s.
    assert watch.other_cores == (8 - 3) / 4


def test_after_too_short_a_time_the_neighbours_are_unknown():
    watch = machine.CpuWatch()
    assert watch.other_cores is None
    with watch:
        time.sleep(0.001)
    assert watch.other_cores is None


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni rdrand", ("avx2", "avx512f", "avx512_vnni")),
        ("Features\t: fp asimd evtstrm asimddp i8mm", ("asimd", "asimddp", "i8mm")),
        ("model name\t: x", ()),
    ],
)
def test_instruction_sets_are_those_that_kernels_are_chosen_by(line, flags):
    assert machine.isa_flags(f"processor: 0\n{line}\n") == flags


def test_the_name_of_the_processor_is_that_of_the_system():
    assert machine.cpu_model("processor: 0\nmodel name\t: Example 9000\n") == "Example 9000"
    assert machine.cpu_model("Hardware\t: x\nModel\t\t: Raspberry Pi 5\n") == "Raspberry Pi 5"
