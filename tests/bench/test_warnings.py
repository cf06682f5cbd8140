"""Warnings: when there is one, what it says to do; and none on a quiet machine."""

from dataclasses import replace

import pytest

from cct_export.bench import warnings
from cct_export.records import (
    BenchResult,
    Conditions,
    MachineInfo,
    MeasuredFile,
    RunConditions,
    Runtime,
)
from cct_export.specs import PROFILES, Timing

MS = 1_000_000
CALM = Conditions(40.0, 2400.0, 0.1, (), "performance")
QUIET = BenchResult(
    artifact=MeasuredFile("m.tflite", "tflite", "int8"),
    runtime=Runtime("litert", "2", "cpu", "xnnpack", "default", 1, {}, False, 3, 3),
    batch=1,
    times_ns=(MS,) * 100,
    bursts=((50, 50),),
    conditions=RunConditions(CALM, replace(CALM, temperature_c=50.0, load_1m=0.9), 0.05),
    machine=MachineInfo(cores=4),
)


def warnings_with(timing=PROFILES["quick"], **changes):
    return warnings.of(replace(QUIET, **changes), timing)


def conditions(**changes):
    return {"conditions": replace(QUIET.conditions, **changes)}


def runtime(**changes):
    return {"runtime": replace(QUIET.runtime, **changes)}


def artifact(**changes):
    return {"artifact": replace(QUIET.artifact, **changes)}


def test_a_quiet_machine_gets_no_warning():
    assert warnings_with() == []


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"times_ns": (MS,) * 5}, "only 5 runs", "--min-runs"),
        ({"times_ns": (MS, 2 * MS) * 50}, "noisy", "--profile strict"),
        (
            {"times_ns": (MS,) * 50 + (2 * MS,) * 50, "bursts": ((50,), (50,))},
            "the repeats do not agree within 5%: p50 is 1.000, 2.000 ms",
            "measure again",
        ),
        (runtime(threads=4096), "4096 threads on", "wait for each other"),
        (
            conditions(before=replace(CALM, governor="ondemand")),
            "governor is 'ondemand'",
            "cpupower",
        ),
        (conditions(other_cores=0.9), "0.9 cores busy", "stop them"),
        (
            conditions(after=replace(CALM, throttled=("under-voltage",))),
            "throttled (under-voltage)",
            "power supply",
        ),
        (conditions(after=replace(CALM, frequency_mhz=1500.0)), "2400 to 1500 MHz", "let it cool"),
        (conditions(reconnections=2), "broke 2 times", "count too"),
        (runtime(delegated_nodes=2), "1 of 3 operators", "own kernels"),
        (artifact(changed=True), "has changed since it was exported", "export it again"),
        (artifact(described=False), "raw 0-255", "pixels"),
    ],
)
def test_a_warning_says_what_is_wrong_and_what_to_do(changes, problem, remedy):
    matching = [warning for warning in warnings_with(**changes) if problem in warning]
    assert len(matching) == 1
    assert remedy in matching[0]


def test_what_the_system_does_not_show_is_not_warned_of():
    assert warnings_with(conditions=RunConditions()) == []


def test_repeats_may_differ_by_as_much_as_the_timing_allows():
    changes = {"times_ns": (100,) * 50 + (109,) * 50, "bursts": ((50,), (50,))}
    assert warnings_with(Timing(agreement=0.1), **changes) == []
    assert len(warnings_with(Timing(agreement=0.05), **changes)) == 1


def test_a_failure_is_not_warned_of_as_well():
    failed = {"times_ns": (), "bursts": (), "failure": "no such file"}
    assert warnings_with(**artifact(described=False), **failed) == []
