"""Verdicts on recorded times: slow-downs, noise, other machines, wrong files."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench import regression
from cct_export.bench.regression import Limits, judge
from cct_export.records import Accuracy, BenchResult, ParityReport

PARITY = ParityReport(
    "m", "f", "int8", "golden", 16, 0.1, 0.1, 1.0, 30.0, 1.0, 16, True, False, ()
)  # fmt: skip


def recorded(factor=1.0, seed=0, noise=0.01, between=0.002, **fields):
    """A session with recorded times: five processes of ten bursts, each a little different."""
    random = np.random.default_rng(seed)
    repeats = [
        [factor * (1 + level) * (1 + random.normal(0, noise, 40)) for _ in range(10)]
        for level in random.normal(0, between, 5)
    ]
    times = tuple(int(ms * 1e6) for bursts in repeats for burst in bursts for ms in burst)
    return BenchResult(
        {"path": "some/m.tflite"},
        {"name": "litert", "delegate": "xnnpack", "threads": 1},
        1,
        times,
        tuple((40,) * 10 for _ in repeats),
        conditions={"other_cores": 0.0, "yardstick_ms": 0.003},
        **fields,
    )


def one_repeat(result):
    """The first process of a session, as if there had been no other."""
    bursts = result.bursts[:1]
    return dataclasses.replace(result, bursts=bursts, times_ns=result.times_ns[: sum(bursts[0])])


def with_conditions(result, **changes):
    return dataclasses.replace(result, conditions=result.conditions | changes)


@pytest.mark.parametrize("seed", range(20))
def test_an_unchanged_build_is_no_regression(seed):
    verdict = judge(recorded(seed=100), recorded(seed=seed), Limits())
    assert verdict.status == "pass", verdict.why


@pytest.mark.parametrize("which", ["then", "now", "both"])
@pytest.mark.parametrize("seed", range(20))
def test_one_process_that_happens_to_be_slow_or_fast_is_no_regression(seed, which):
    # 3 % between processes: one in five exceeds another by more than 5 %.
    then, now = recorded(seed=100 + seed, between=0.03), recorded(seed=seed, between=0.03)
    if which != "now":
        then = one_repeat(then)
    if which != "then":
        now = one_repeat(now)
    assert judge(then, now, Limits()).status != "regression"


def test_one_process_each_tells_a_slow_down_that_no_luck_explains():
    verdict = judge(one_repeat(recorded()), one_repeat(recorded(1.3, seed=1)), Limits())
    assert verdict.status == "regression", verdict.why


# Medians (ms) of five processes each, and yardsticks now over then, of the same file on a virtual
# machine whose neighbours come and go: benchmarks/validate.py.
THEN = (0.1411, 0.1405, 0.1420, 0.1403, 0.1393)
UNCHANGED = [
    ((0.1433, 0.1529, 0.1486, 0.1509, 0.1497), 1.055),
    ((0.1440, 0.1429, 0.1484, 0.1483, 0.1493), 1.031),
    ((0.1491, 0.1487, 0.1417, 0.1382, 0.1360), 1.000),
    ((0.1592, 0.1589, 0.1385, 0.1628, 0.1683), 1.118),
    ((0.1496, 0.1574, 0.1551, 0.1554, 0.1541), 1.098),
]


def of_medians(medians, yardstick):
    """A session of processes that never waver."""
    times = tuple(int(ms * 1e6) for ms in medians for _ in range(100))
    return with_conditions(
        dataclasses.replace(recorded(), times_ns=times, bursts=((10,) * 10,) * len(medians)),
        yardstick_ms=yardstick,
    )


@pytest.mark.parametrize(("medians", "speed"), UNCHANGED)
@pytest.mark.parametrize("then", [THEN, THEN[:1], (min(THEN),)])
def test_times_of_an_unchanged_file_on_a_restless_machine_are_no_regression(medians, speed, then):
    assert judge(of_medians(then, 1), of_medians(medians, speed), Limits()).status != "regression"


@pytest.mark.parametrize(("medians", "speed"), UNCHANGED)
def test_twice_the_time_on_a_restless_machine_is_a_regression(medians, speed):
    slow = [2 * ms for ms in medians]
    assert judge(of_medians(THEN, 1), of_medians(slow, speed), Limits()).status == "regression"


@pytest.mark.parametrize("factor", [1.08, 1.2, 3.0])
def test_a_slow_down_is_a_regression_with_its_size(factor):
    verdict = judge(recorded(), recorded(factor, seed=1), Limits())
    assert verdict.status == "regression"
    assert verdict.ratio.value == pytest.approx(factor, rel=0.01)
    assert "m.tflite on litert xnnpack" in verdict.subject


def test_a_faster_build_passes():
    assert judge(recorded(), recorded(0.5, seed=1), Limits()).status == "pass"


@given(st.floats(0.5, 3))
def test_a_looser_limit_never_turns_a_pass_into_anything_else(factor):
    then, now = recorded(), recorded(factor, seed=1)
    if judge(then, now, Limits(0.05)).status == "pass":
        assert judge(then, now, Limits(0.5)).status == "pass"


def test_repeats_that_differ_as_much_as_the_limit_are_inconclusive():
    verdict = judge(recorded(between=0.05), recorded(1.06, seed=1, between=0.05), Limits())
    assert verdict.status == "inconclusive"
    assert "measure longer" in verdict.why


@pytest.mark.parametrize("factor", [1.0, 1.5])
@pytest.mark.parametrize("when", ["then", "now"])
def test_with_a_busy_neighbour_it_cannot_be_told(factor, when):
    pair = {"then": recorded(), "now": recorded(factor, seed=1)}
    pair[when] = with_conditions(pair[when], other_cores=0.9)
    verdict = judge(pair["then"], pair["now"], Limits())
    assert verdict.status == "inconclusive"
    assert f"other programs were busy {when}" in verdict.why


def test_a_machine_that_is_slower_as_a_whole_is_no_regression():
    now = with_conditions(recorded(1.2, seed=1), yardstick_ms=0.0036)
    assert judge(recorded(), now, Limits()).status == "inconclusive"


def test_a_machine_that_is_faster_as_a_whole_hides_no_regression():
    now = with_conditions(recorded(1.0, seed=1), yardstick_ms=0.0025)
    assert judge(recorded(), now, Limits()).status == "inconclusive"


def test_a_slow_down_far_beyond_that_of_the_machine_is_a_regression():
    now = with_conditions(recorded(2.0, seed=1), yardstick_ms=0.0033)
    assert judge(recorded(), now, Limits()).status == "regression"


def test_a_file_that_fails_parity_is_that_whatever_its_latency():
    failed = dataclasses.replace(PARITY, failures=("SQNR 3.0 dB is below 28.0",))
    now = BenchResult(
        {"path": "m"}, {"name": "litert", "delegate": "", "threads": 1}, 1, parity=failed
    )
    verdict = judge(recorded(), now, Limits())
    assert (verdict.status, verdict.why) == ("parity", "SQNR 3.0 dB is below 28.0")


@pytest.mark.parametrize(("lost", "status"), [(0.004, "pass"), (0.006, "accuracy"), (-0.1, "pass")])
def test_points_that_are_lost_beyond_the_limit_are_an_accuracy_failure(lost, status):
    then = recorded(accuracy=Accuracy(0.77, 0.98, 5000, "cifar10"), parity=PARITY)
    now = recorded(seed=1, accuracy=Accuracy(0.77 - lost, 0.98, 5000, "cifar10"), parity=PARITY)
    assert judge(then, now, Limits(accuracy=0.5)).status == status


def test_what_was_not_measured_is_inconclusive_with_the_reason():
    now = dataclasses.replace(recorded(), times_ns=(), bursts=(), failure="the engine crashed")
    verdict = judge(recorded(), now, Limits())
    assert verdict.status == "inconclusive"
    assert "the engine crashed" in verdict.why


def test_machines_differ_by_what_latency_depends_on():
    one = {
        "cpu": "A",
        "isa": ["avx2"],
        "architecture": "x86_64",
        "cores": 2,
        "surroundings": "bare",
    }
    assert regression.differences(one, one | {"python": "3.12"}) == []
    assert regression.differences(one, one | {"cores": 4}) == ["cores: 2 then, 4 now"]
