"""Warnings: when, what they say, what they tell the user to do; and silence on a quiet machine."""

import dataclasses

import pytest

from cct_export.bench.warnings import advised
from cct_export.records import BenchResult
from cct_export.specs import PROFILES, Timing

MS = 1_000_000
QUIET = BenchResult(
    artifact={"path": "m.tflite", "described": True, "changed": False},
    runtime={
        "name": "litert", "delegate": "xnnpack", "threads": 1,
        "delegated_nodes": 3, "total_nodes": 3,
    },
    batch=1,
    times_ns=(MS,) * 100,
    bursts=((50, 50),),
    conditions={
        "before": {
            "temperature_c": 40.0, "frequency_mhz": 2400.0, "load_1m": 0.1, "throttled": [],
            "governor": "performance",
        },
        "after": {
            "temperature_c": 50.0, "frequency_mhz": 2400.0, "load_1m": 0.9, "throttled": [],
            "governor": "performance",
        },
        "other_cores": 0.05,
    },
    machine={"cores": 4},
)  # fmt: skip


def warnings(timing=PROFILES["quick"], **changes):
    return advised(dataclasses.replace(QUIET, **changes), timing).warnings


def conditions(when, **changes):
    return {"conditions": QUIET.conditions | {when: QUIET.conditions[when] | changes}}


def test_a_quiet_machine_gets_no_warning():
    assert warnings() == ()


@pytest.mark.parametrize(
    ("changes", "said", "to_do"),
    [
        ({"times_ns": (MS,) * 5}, "only 5 runs", "--min-runs"),
        ({"times_ns": (MS, 2 * MS) * 50}, "noisy", "--profile strict"),
        (
            {"times_ns": (MS,) * 50 + (2 * MS,) * 50, "bursts": ((50,), (50,))},
            "the repeats do not agree within 5%: p50 is 1.000, 2.000 ms",
            "measure again",
        ),
        ({"runtime": QUIET.runtime | {"threads": 4096}}, "4096 threads on", "wait for each other"),
        (conditions("before", governor="ondemand"), "governor is 'ondemand'", "cpupower"),
        ({"conditions": QUIET.conditions | {"other_cores": 0.9}}, "0.9 cores busy", "stop them"),
        (conditions("after", throttled=["under-voltage"]), "under-voltage", "power supply"),
        (conditions("after", frequency_mhz=1500.0), "2400 to 1500 MHz", "let it cool"),
        ({"conditions": QUIET.conditions | {"reconnections": 2}}, "broke 2 times", "count too"),
        ({"runtime": QUIET.runtime | {"delegated_nodes": 2}}, "1 of 3 operators", "own kernels"),
        ({"artifact": QUIET.artifact | {"changed": True}}, "sidecar", "export it again"),
        ({"artifact": QUIET.artifact | {"described": False}}, "raw 0-255 went in", "pixels"),
    ],
)  # fmt: skip
def test_a_warning_says_what_is_wrong_and_what_to_do(changes, said, to_do):
    found = [warning for warning in warnings(**changes) if said in warning]
    assert len(found) == 1
    assert to_do in found[0]


def test_what_the_system_does_not_show_is_not_warned_of():
    unknown = dict.fromkeys(QUIET.conditions["before"])
    shown = {"before": unknown, "after": unknown, "other_cores": None}
    assert warnings(conditions=shown) == ()


def test_repeats_may_differ_by_as_much_as_the_timing_allows():
    changes = {"times_ns": (100,) * 50 + (109,) * 50, "bursts": ((50,), (50,))}
    assert warnings(Timing(agreement=0.1), **changes) == ()
    assert len(warnings(Timing(agreement=0.05), **changes)) == 1


def test_a_failure_is_not_warned_of_as_well():
    failed = BenchResult(
        {"path": "m", "described": False, "changed": False}, {}, 1, failure="no such file"
    )
    assert advised(failed, PROFILES["quick"]).warnings == ()
