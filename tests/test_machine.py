"""What the machine does meanwhile, against what the test makes it do."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from cct_export import machine


def test_what_is_not_shown_is_none_and_what_is_shown_is_plausible():
    found = machine.conditions()
    assert set(found) == {"temperature_c", "frequency_mhz", "load_1m", "throttled", "governor"}
    assert found["load_1m"] >= 0
    assert found["temperature_c"] is None or -50 < found["temperature_c"] < 150
    assert found["frequency_mhz"] is None or 100 < found["frequency_mhz"] < 20_000


def test_the_hottest_sensor_tells_the_temperature(monkeypatch):
    sensors = {"a": [SimpleNamespace(current=40.0)], "b": [SimpleNamespace(current=61.5)]}
    monkeypatch.setattr(machine.psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert machine.temperature_c() == 61.5


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ("0x0", []),
        ("0x1", ["under-voltage"]),
        ("0x6", ["frequency capped", "throttled"]),
        ("0x50000", []),  # has occurred, but is over
        ("0x50005", ["under-voltage", "throttled"]),
    ],
)
def test_a_raspberry_pi_says_why_it_holds_itself_back(tmp_path, monkeypatch, bits, reasons):
    file = tmp_path / "get_throttled"
    file.write_text(bits[2:] + "\n")
    monkeypatch.setattr(machine, "_THROTTLED_FILE", file)
    assert machine.throttled() == reasons


def test_vcgencmd_is_asked_where_there_is_no_such_file(tmp_path, monkeypatch):
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x4\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine, "_THROTTLED_FILE", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.throttled() == ["throttled"]
    program.write_text("#!/bin/sh\necho nonsense\n")
    assert machine.throttled() is None


def test_a_neighbour_that_works_is_seen_and_own_work_is_not():
    endless = [sys.executable, "-c", "while True: pass"]
    quiet, busy = machine.Watch(), machine.Watch()
    _work(quiet)
    neighbours = [subprocess.Popen(endless) for _ in range(2)]
    try:
        _work(busy)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    # Two neighbours have at least half a core of any machine; whatever else runs adds to both.
    assert busy.other_cores > 0.5
    assert busy.other_cores > quiet.other_cores
    assert busy.seconds == pytest.approx(1.0, abs=0.5)


def _work(watch):
    for _ in range(10):
        with watch:
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                pass


def test_before_anything_was_watched_for_long_nothing_is_known():
    watch = machine.Watch()
    assert watch.other_cores is None
    with watch:
        time.sleep(0.001)
    assert watch.other_cores is None


def test_instruction_sets_are_those_that_the_system_names(monkeypatch):
    text = "processor: 0\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni rdrand\n"
    monkeypatch.setattr(machine.Path, "read_text", lambda path: text)
    assert machine.isa_flags() == ["avx2", "avx512f", "avx512_vnni"]


def test_those_of_an_arm_processor_are_too(monkeypatch):
    text = "processor: 0\nFeatures\t: fp asimd evtstrm asimddp i8mm\n"
    monkeypatch.setattr(machine.Path, "read_text", lambda path: text)
    assert machine.isa_flags() == ["asimd", "asimddp", "i8mm"]
