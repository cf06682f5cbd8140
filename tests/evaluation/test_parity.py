"""Parity figures against their formulas, and the policy of each scheme at its bounds."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cct_export.evaluation import parity
from cct_export.records import OutputContract

SCHEMES = ("none", "fp16", "int8-dynamic", "int8")
NAMES = ("model", "file")
NUMBERS = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 5))


def compare(reference, candidate, scheme="none", policy=None):
    return parity.compare(
        reference, candidate=candidate, scheme=scheme, names=NAMES, images="made up", policy=policy
    )


def as_json(report):
    return json.loads(json.dumps(report.to_dict(), allow_nan=False))


@pytest.fixture
def logits():
    """Logits of 400 images with a clear best class each; every class is the best of some."""
    random = np.random.default_rng(0)
    values = random.uniform(-10, 5, (400, 10))
    values[np.arange(400), np.arange(400) % 10] = 10
    return values.astype(np.float32)


def with_error(reference, decibel):
    """Returns ``reference`` with an error of equal magnitude everywhere, at an SQNR."""
    reference = reference.astype(np.float64)
    size = np.sqrt(np.mean(reference**2)) * 10 ** (-decibel / 20)
    return reference + size * np.random.default_rng(1).choice([-1, 1], reference.shape)


def with_close_best_classes(scheme, margin, flipped):
    """Returns reference and candidate whose first ``flipped`` images have the best two swapped.

    The two best logits of each image differ by ``margin`` times the error that the scheme allows.
    """
    reference = np.full((400, 10), -1.0)
    best = np.arange(400) % 10
    second = (best + 1) % 10
    rows = np.arange(400)
    reference[rows, best] = 1
    reference[rows, second] = 1
    gap = np.sqrt(np.mean(reference**2)) * 10 ** (-parity.POLICIES[scheme].sqnr_db / 20)
    reference[rows, best] += margin * gap
    candidate = reference.copy()
    swapped = rows[:flipped]
    candidate[swapped, best[:flipped]] = reference[swapped, second[:flipped]]
    candidate[swapped, second[:flipped]] = reference[swapped, best[:flipped]]
    return reference, candidate


@given(st.data())
def test_sqnr_is_signal_power_over_error_power_in_decibel(data):
    shape = data.draw(SHAPES)
    reference = data.draw(arrays.arrays(np.float32, shape, elements=NUMBERS))
    error = data.draw(arrays.arrays(np.float32, shape, elements=NUMBERS))
    assume(reference.any() and error.any())
    candidate = reference.astype(np.float64) + error
    signal = sum(float(x) ** 2 for x in reference.ravel())
    noise = sum(float(e) ** 2 for e in (candidate - reference).ravel())
    assert parity.sqnr_db(reference, candidate) == pytest.approx(10 * np.log10(signal / noise))


@given(st.data(), st.floats(0.01, 100))
def test_sqnr_does_not_depend_on_the_scale_of_the_logits(data, factor):
    shape = data.draw(SHAPES)
    reference = data.draw(arrays.arrays(np.float64, shape, elements=NUMBERS))
    error = data.draw(arrays.arrays(np.float64, shape, elements=NUMBERS))
    assume(reference.any() and error.any())
    expected = parity.sqnr_db(reference, reference + error)
    scaled = parity.sqnr_db(factor * reference, factor * (reference + error))
    assert scaled == pytest.approx(expected)


def test_ten_times_the_error_is_20_db_less(logits):
    assert parity.sqnr_db(logits, with_error(logits, 40)) == pytest.approx(40, abs=1e-6)
    assert parity.sqnr_db(logits, with_error(logits, 20)) == pytest.approx(20, abs=1e-6)


def test_sqnr_of_nothing_but_error_is_minus_infinity():
    assert parity.sqnr_db(np.zeros((2, 2)), np.ones((2, 2))) == float("-inf")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_logits_pass_and_their_record_is_strict_json(logits, scheme):
    report = compare(logits, logits.copy(), scheme)
    assert report.passed
    assert report.sqnr_db == float("inf")
    record = as_json(report)
    assert record["sqnr_db"] is None
    assert (record["max_abs"], record["top1_agreement"]) == (0, 1)
    assert record["cosine"] == pytest.approx(1)
    assert record["passed"] is record["finite"] is True


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (137, 4), (399, 9)])
def test_one_logit_that_is_not_finite_fails_and_is_named(logits, scheme, bad, place):
    candidate = logits.copy()
    candidate[place] = bad
    report = compare(logits, candidate, scheme)
    assert not report.passed
    assert "NaN or infinity" in report.failures[0]
    record = as_json(report)
    assert record["finite"] is record["passed"] is False
    assert record["sqnr_db"] is None


def test_a_reference_that_is_not_finite_fails_too(logits):
    broken = logits.copy()
    broken[3, 3] = np.nan
    assert not compare(broken, broken.copy()).passed


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_class_for_every_image_fails_and_is_named(logits, scheme):
    candidate = np.tile(logits[:1], (len(logits), 1))
    report = compare(logits, candidate, scheme)
    assert "it predicts one class for every image" in report.failures


def test_one_class_passes_where_the_model_predicts_only_one(logits):
    same = np.tile(logits[:1], (20, 1))
    report = compare(same, same.copy())
    assert not report.constant
    assert report.passed


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_class_passes_where_the_model_predicts_another_for_undecided_images_only(scheme):
    reference = np.tile([3.0, -3.0], (20, 1))
    reference[7] = [0.0, 1e-6]
    candidate = reference.copy()
    candidate[7] = [1e-6, 0.0]
    report = compare(reference, candidate, scheme)
    assert report.decided == 19
    assert (report.constant, report.failures) == (False, ())


@pytest.mark.parametrize(
    ("scheme", "decibel"), [("none", 90), ("fp16", 45), ("int8-dynamic", 32), ("int8", 28)]
)
def test_each_scheme_has_to_reach_its_sqnr(logits, scheme, decibel):
    assert compare(logits, with_error(logits, decibel + 0.1), scheme).passed
    report = compare(logits, with_error(logits, decibel - 0.1), scheme)
    assert [line for line in report.failures if line.startswith("SQNR")]


@pytest.mark.parametrize(
    ("scheme", "agreement"),
    [("none", 1.0), ("fp16", 0.995), ("int8-dynamic", 0.98), ("int8", 0.98)],
)
def test_each_scheme_has_to_agree_on_its_share_of_decided_images(scheme, agreement):
    allowed = round((1 - agreement) * 400)
    reference, candidate = with_close_best_classes(scheme, 1.5, allowed)
    report = compare(reference, candidate, scheme)
    assert report.passed, report.failures
    assert report.decided == 400
    assert report.top1_agreement == pytest.approx(agreement)
    reference, candidate = with_close_best_classes(scheme, 1.5, allowed + 1)
    (failure,) = compare(reference, candidate, scheme).failures
    assert failure.startswith("top-1 agreement")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_images_whose_best_class_the_allowed_error_can_change_do_not_count(scheme):
    reference, candidate = with_close_best_classes(scheme, 0.5, 400)
    report = compare(reference, candidate, scheme)
    assert (reference.argmax(1) != candidate.argmax(1)).all()
    assert report.decided == 0
    assert report.top1_agreement == 1
    assert not any("below" in failure for failure in report.failures)


@pytest.mark.parametrize("largest", [0.5, 10.0])
def test_without_quantization_a_single_logit_may_differ_by_a_ten_thousandth(logits, largest):
    reference = (logits * (largest / np.abs(logits).max())).astype(np.float64)
    limit = 1e-4 * max(1.0, largest)
    for factor, failures in ((0.99, 0), (1.01, 1)):
        candidate = reference.copy()
        candidate[5, 3] += factor * limit
        report = compare(reference, candidate)
        assert report.max_abs == pytest.approx(factor * limit)
        assert len(report.failures) == failures
    assert report.failures[0].startswith("a logit differs by")
    assert compare(reference, candidate, "fp16").passed


@pytest.mark.parametrize(
    ("scheme", "precision", "sqnr_db"),
    [("none", "fp16", 45), ("none", "bf16", 35), ("none", "fp32", 90), ("int8", "bf16", 28)],
)
def test_a_coarser_precision_of_the_delegate_has_its_own_policy(scheme, precision, sqnr_db):
    assert parity.policy_of(scheme, precision=precision).sqnr_db == sqnr_db


def test_images_agree_where_every_output_decides_alike():
    outputs = [OutputContract("a", "float32", 3), OutputContract("b", "float32", 2)]
    reference = np.array([[3, 1, 0, 1, 0], [3, 1, 0, 1, 0], [3, 1, 0, 1, 0]], np.float32)
    change = np.array([[0, 1, 0, 0, 0], [0, 3, 0, 0, 0], [0, 0, 0, 0, 2]], np.float32)
    assert parity.agreeing(reference, reference + change, outputs).tolist() == [True, False, False]


def test_the_policies_are_those_of_the_documentation():
    policies = {name: (p.sqnr_db, p.agreement, p.max_abs) for name, p in parity.POLICIES.items()}
    assert policies == {
        "none": (90.0, 1.0, 1e-4),
        "fp16": (45.0, 0.995, None),
        "int8-dynamic": (32.0, 0.98, None),
        "int8": (28.0, 0.98, None),
        "int8-full": (22.0, 0.96, None),
        "int16x8": (38.0, 0.99, None),
        "int4-weight": (23.0, 0.94, None),
    }


@given(st.data())
def test_every_report_is_strict_json(data):
    shape = data.draw(SHAPES)
    any_float = st.floats(width=32)
    reference = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(-9, 9, width=32)))
    candidate = data.draw(arrays.arrays(np.float32, shape, elements=any_float))
    record = as_json(compare(reference, candidate, data.draw(st.sampled_from(SCHEMES))))
    assert record["finite"] == bool(np.isfinite(candidate).all())
    assert record["passed"] == (record["failures"] == [])
    assert record["finite"] or not record["passed"]


@pytest.mark.parametrize("offset", [10.0, 1000.0])
def test_an_offset_of_all_logits_does_not_hide_another_model(offset):
    random = np.random.default_rng(0)
    reference, unrelated = random.normal(0, 1, (2, 200, 10))
    report = compare(reference + offset, unrelated + offset, "int8")
    assert report.decided > 100
    assert not report.passed
    assert report.sqnr_db < 0


@given(st.floats(-100, 100))
def test_figures_do_not_depend_on_an_offset_of_all_logits(offset):
    random = np.random.default_rng(0)
    reference = random.normal(0, 1, (50, 10))
    candidate = reference + random.normal(0, 0.01, reference.shape)
    report = compare(reference, candidate, "int8")
    shifted = compare(reference + offset, candidate + offset, "int8")
    assert shifted.sqnr_db == pytest.approx(report.sqnr_db, abs=1e-6)
    assert shifted.decided == report.decided
    assert shifted.cosine == pytest.approx(report.cosine, abs=1e-9)


@pytest.mark.parametrize("scheme", ["fp16", "int8-dynamic", "int8"])
def test_a_quantized_file_fails_where_no_image_is_decided(scheme):
    reference = np.array([[1.0, 1.0, -2.0]] * 5)
    report = compare(reference, reference, scheme)
    assert report.decided == 0
    assert any("no image has a clear best class" in failure for failure in report.failures)


def test_float32_passes_by_its_bound_on_every_logit_where_no_image_is_decided():
    reference = np.array([[1.0, 1.0, -2.0]] * 5)
    assert compare(reference, reference, "none").passed
    assert not compare(reference, reference + np.array([0, 0, 1e-3]), "none").passed


@pytest.mark.parametrize(
    ("scheme", "flips", "passed"), [("int8", 1, True), ("int8", 2, False), ("none", 1, False)]
)
def test_one_golden_image_may_differ_where_the_policy_allows_any(scheme, flips, passed):
    reference = np.tile(np.array([3.0, 0.0, -3.0]), (16, 1))
    reference[1] = [-3.0, 3.0, 0.0]
    candidate = reference.copy()
    candidate[2 : 2 + flips] = candidate[2 : 2 + flips][:, [1, 0, 2]]
    report = compare(reference, candidate, scheme, parity.policy_of(scheme, golden=True))
    assert report.decided == 16
    assert any("agreement" in failure for failure in report.failures) != passed
    strict = compare(reference, candidate, scheme)
    assert any("agreement" in failure for failure in strict.failures)


def test_golden_images_have_a_slack_of_some_decibels(logits):
    policy = parity.policy_of("int8", golden=True)
    near = with_error(logits, 26)
    assert not compare(logits, near, "int8").passed
    assert compare(logits, near, "int8", policy).passed
