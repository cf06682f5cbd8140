"""Verdicts on recorded times: slow-downs, noise, other machines, wrong files."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.bench import regression
from cct_export.bench.regression import Limits, judge
from cct_export.errors import InvalidRequest
from cct_export.records import (
    Accuracy,
    BenchResult,
    MachineInfo,
    MeasuredFile,
    ParityReport,
    RunConditions,
    Runtime,
)

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
        MeasuredFile("some/m.tflite", "tflite", "int8"),
        Runtime("litert", "2", "cpu", "xnnpack", "default", 1, {}),
        1,
        times,
        tuple((40,) * 10 for _ in repeats),
        conditions=RunConditions(other_cores=0.0, yardstick_ms=0.003),
        **fields,
    )


def one_repeat(result):
    """The first process of a session, as if there had been no other."""
    bursts = result.bursts[:1]
    return replace(result, bursts=bursts, times_ns=result.times_ns[: sum(bursts[0])])


def with_conditions(result, **changes):
    return replace(result, conditions=replace(result.conditions, **changes))


@pytest.mark.parametrize("seed", range(20))
def test_an_unchanged_build_is_no_regression(seed):
    verdict = judge(recorded(seed=100), recorded(seed=seed), Limits())
    assert verdict.status == "pass", verdict.why


@pytest.mark.parametrize("which", ["then", "now", "both"])
@pytest.mark.parametrize("seed", range(10))
def test_one_process_that_happens_to_be_slow_or_fast_is_no_regression(seed, which):
    # 3 % between processes: one in five exceeds another by more than 5 %.
    then, now = recorded(seed=100 + seed, between=0.03), recorded(seed=seed, between=0.03)
    if which != "now":
        then = one_repeat(then)
    if which != "then":
        now = one_repeat(now)
    assert judge(then, now, Limits()).status != "regression"


def test_one_process_each_is_enough_for_a_slow_down_beyond_their_variance():
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
    """A session of processes without variance."""
    times = tuple(int(ms * 1e6) for ms in medians for _ in range(100))
    return with_conditions(
        replace(recorded(), times_ns=times, bursts=((10,) * 10,) * len(medians)),
        yardstick_ms=yardstick,
    )


@pytest.mark.parametrize(("medians", "speed"), UNCHANGED)
@pytest.mark.parametrize("then", [THEN, THEN[:1], (min(THEN),)])
def test_times_of_an_unchanged_file_on_a_noisy_machine_are_no_regression(medians, speed, then):
    assert judge(of_medians(then, 1), of_medians(medians, speed), Limits()).status != "regression"


@pytest.mark.parametrize(("medians", "speed"), UNCHANGED)
def test_twice_the_time_on_a_noisy_machine_is_a_regression(medians, speed):
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


@settings(max_examples=25)
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
def test_while_other_programs_are_busy_a_verdict_is_inconclusive(factor, when):
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


def test_a_file_that_fails_parity_is_not_judged_by_its_latency():
    failed = replace(PARITY, failures=("SQNR 3.0 dB is below 28.0",))
    now = replace(recorded(), times_ns=(), bursts=(), parity=failed)
    verdict = judge(recorded(), now, Limits())
    assert (verdict.status, verdict.why) == ("parity", "SQNR 3.0 dB is below 28.0")


@pytest.mark.parametrize(("lost", "status"), [(0.004, "pass"), (0.006, "accuracy"), (-0.1, "pass")])
def test_more_lost_points_than_allowed_are_an_accuracy_failure(lost, status):
    then = recorded(accuracy=Accuracy(0.77, 0.98, 5000, "cifar10"), parity=PARITY)
    now = recorded(seed=1, accuracy=Accuracy(0.77 - lost, 0.98, 5000, "cifar10"), parity=PARITY)
    assert judge(then, now, Limits(accuracy=0.5)).status == status


def test_a_missing_measurement_is_inconclusive_with_the_reason():
    now = replace(recorded(), times_ns=(), bursts=(), failure="the engine crashed")
    verdict = judge(recorded(), now, Limits())
    assert verdict.status == "inconclusive"
    assert "the engine crashed" in verdict.why


def test_machines_differ_by_what_latency_depends_on():
    info = MachineInfo("A", ("avx2",), "x86_64", 2, surroundings="bare")
    assert regression.differences(info, replace(info, python="3.12")) == []
    assert regression.differences(info, replace(info, cores=4)) == ["cores: 2 then, 4 now"]
    assert regression.differences(info, replace(info, isa=())) == ["isa: ['avx2'] then, [] now"]


def test_rows_of_two_records_are_compared_only_if_their_settings_are_equal():
    row = recorded()
    regression.check_rows([row], [row], ("a", "b"))
    with pytest.raises(InvalidRequest, match="a has 1 row, b 2"):
        regression.check_rows([row], [row, row], ("a", "b"))
    for other in (
        replace(row, batch=2),
        replace(row, headline=90),
        replace(row, device="adb"),
        replace(row, runtime=replace(row.runtime, requested="none")),
        replace(row, artifact=replace(row.artifact, scheme="none")),
    ):
        with pytest.raises(InvalidRequest, match="rows do not belong together"):
            regression.check_rows([row], [other], ("a", "b"))


def test_a_limit_or_a_loss_that_is_no_number_lets_nothing_pass():
    accurate = Accuracy(0.9, 1.0, 1000, "digits")
    then, now = replace(recorded(), accuracy=accurate), replace(recorded(), accuracy=accurate)
    lost = replace(now, accuracy=replace(accurate, top1=float("nan")))
    assert judge(then, now, Limits()).status == "pass"
    assert judge(then, lost, Limits()).status == "accuracy"
    busy = replace(now, conditions=RunConditions(other_cores=float("nan")))
    assert judge(then, busy, Limits()).status == "inconclusive"
