"""Statistics of shares against SciPy, and by their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cct_export.evaluation.accuracy import score
from cct_export.evaluation.proportions import calibration_error, paired, wilson


@st.composite
def shares(draw):
    total = draw(st.integers(1, 10_000))
    return draw(st.integers(0, total)), total


@given(shares())
def test_the_interval_is_scipys(share):
    wanted = stats.binomtest(*share).proportion_ci(0.95, method="wilson")
    assert wilson(*share) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@given(shares())
def test_the_interval_holds_the_share_and_is_one(share):
    low, high = wilson(*share)
    assert 0 <= low <= share[0] / share[1] <= high <= 1


RIGHT = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=400)


@given(RIGHT)
def test_mcnemars_p_is_that_of_the_exact_binomial_test(both):
    reference, candidate = map(np.array, zip(*both, strict=True))
    found = paired(reference, candidate)
    b, c = found["only_reference"], found["only_candidate"]
    wanted = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert found["p_value"] == pytest.approx(wanted)
    assert found["reference_top1"] == reference.mean()
    assert candidate.mean() == pytest.approx(reference.mean() + (c - b) / len(both))


def test_thousands_of_differences_are_no_overflow():
    found = paired(np.ones(5000, bool), np.zeros(5000, bool))
    assert found["p_value"] == 0.0


def test_equal_answers_are_no_difference():
    right = np.array([True, False, True])
    assert paired(right, right)["p_value"] == 1.0


LOGITS = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 3, (50, 6))
)


@given(LOGITS)
def test_the_calibration_error_is_that_of_a_loop_over_bins(logits):
    targets = np.arange(50) % 6
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, right = shares.max(axis=1), logits.argmax(axis=1) == targets
    wanted = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(logits, right) == pytest.approx(wanted, abs=1e-9)


def test_confidence_that_is_kept_is_no_error():
    logits = np.log(np.array([[0.75, 0.25]] * 4))
    assert calibration_error(logits, np.array([True, True, True, False])) == pytest.approx(0)
    assert calibration_error(logits, np.array([True] * 4)) == pytest.approx(0.25)


def test_huge_logits_are_no_overflow():
    assert calibration_error(np.array([[1e30, 0.0]]), np.array([True])) == 0.0


@given(LOGITS)
def test_the_confusion_matrix_counts_every_image_once(logits):
    targets = np.arange(50) % 6
    found, right = score(logits, targets, "d")
    confusion = np.array(found.confusion)
    assert (confusion.sum(axis=1) == np.bincount(targets, minlength=6)).all()
    assert np.trace(confusion) / 50 == found.top1 == right.mean()
    assert found.per_class == pytest.approx(tuple(np.diag(confusion) / confusion.sum(axis=1)))


def test_an_image_without_an_answer_is_wrong_and_in_no_column():
    logits = np.array([[0.0, 1.0], [np.nan, np.nan], [np.inf, 0.0]])
    found, right = score(logits, np.array([1, 0, 0]), "d")
    assert right.tolist() == [True, False, False]
    assert found.top1 == found.top5 == pytest.approx(1 / 3)
    assert found.confusion == ((0, 0), (0, 1))
    assert found.per_class == (None, 1.0)
