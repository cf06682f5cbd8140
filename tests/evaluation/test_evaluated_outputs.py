"""What outputs hold: probabilities, decisions, and parity of several of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.errors import InvalidArtifact
from cct_export.evaluation import parity
from cct_export.evaluation.outputs import activation_of, cut, probabilities
from cct_export.records import OutputContract

ONE_SIGMOID = OutputContract("logits", "float32", 1, (1,), "sigmoid")
ONE_LOGIT = OutputContract("logits", "float32", 1, (1,), "none")
LABELS = OutputContract("logits", "float32", 6, (6,), "sigmoid")
SOFTMAX = OutputContract("logits", "float32", 2, (2,), "softmax")
LOGITS = OutputContract("weather", "float32", 5, (5,), "none")
PLATE = OutputContract("plate", "float32", 7, (4, 7), "softmax")
RANDOM = np.random.default_rng(0)


def compare(reference, candidate, outputs, scheme="int8"):
    return parity.compare(
        reference,
        candidate=candidate,
        scheme=scheme,
        names=("model", "file"),
        images="made up",
        outputs=outputs,
    )


def test_a_sigmoid_is_the_probability_of_the_second_of_two_classes():
    values = np.array([[0.853]], np.float32)
    assert probabilities(values, ONE_SIGMOID)[0, 0] == pytest.approx([0.147, 0.853])


@given(st.floats(-1e4, 1e4))
def test_a_single_logit_is_that_of_a_softmax_beside_zero(logit):
    one = probabilities(np.array([[logit]]), ONE_LOGIT)
    two = probabilities(np.array([[0.0, logit]]), OutputContract("l", "float32", 2, (2,), "none"))
    assert one == pytest.approx(two, abs=1e-12)


def test_probabilities_of_several_labels_need_not_sum_to_1():
    values = np.array([[0.9, 0.8, 0.1, 0, 1, 0.5]], np.float32)
    assert (probabilities(values, LABELS)[0, 0] == values[0]).all()


def test_every_slot_has_its_own_softmax():
    logits = RANDOM.normal(size=(3, 28))
    plate = OutputContract("plate", "float32", 7, (4, 7), "none")
    scores = probabilities(logits, plate)
    assert scores.shape == (3, 4, 7)
    assert scores.sum(axis=2) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "activation"),
    [
        ([[0.2, 0.8], [1, 0]], "softmax"),
        ([[0.2, 0.9], [1, 0]], "none"),
        ([[0.2], [0.9]], "sigmoid"),
        ([[0.2], [1.5]], "none"),
    ],
)
def test_an_output_that_does_not_say_what_it_holds_is_guessed(values, activation):
    values = np.array(values, np.float32)
    assert activation_of(values, OutputContract("l", "float32", values.shape[1])) == activation


def test_outputs_of_another_width_than_the_values_are_refused():
    with pytest.raises(
        InvalidArtifact, match="gives 3 values for an image, and its outputs have 5"
    ):
        list(cut(np.zeros((1, 3), np.float32), [LOGITS]))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_sigmoid_has_the_parity_of_a_softmax_of_two_classes():
    logits = RANDOM.normal(size=(200, 1))
    noisy = logits + RANDOM.normal(size=logits.shape) * 0.05
    one = compare(_sigmoid(logits), _sigmoid(noisy), [ONE_SIGMOID])
    pairs = [np.concatenate([1 - p, p], axis=1) for p in (_sigmoid(logits), _sigmoid(noisy))]
    two = compare(*pairs, [SOFTMAX])
    assert one.sqnr_db == pytest.approx(two.sqnr_db)
    assert (one.decided, one.top1_agreement) == (two.decided, two.top1_agreement)


def test_a_single_logit_is_compared_with_zero():
    reference = np.linspace(-3, 3, 100, dtype=np.float32)[:, None]
    assert compare(reference, reference * np.float32(1.001), [ONE_LOGIT]).passed
    flipped = compare(reference, -reference, [ONE_LOGIT])
    assert flipped.top1_agreement == 0
    assert not flipped.passed
    always = compare(reference, np.abs(reference), [ONE_LOGIT])
    assert always.constant


def test_every_label_is_a_decision_and_an_offset_is_noise():
    reference = RANDOM.random((100, 6)).astype(np.float32)
    same = compare(reference, reference, [LABELS])
    assert same.passed
    assert same.decided > 500
    # A softmax would ignore what is added to all.
    assert compare(reference, reference + np.float32(0.2), [LABELS]).sqnr_db < 12
    one_wrong = reference.copy()
    one_wrong[:, 2] = 1 - one_wrong[:, 2]
    report = compare(reference, one_wrong, [LABELS])
    assert report.top1_agreement == pytest.approx(5 / 6, abs=0.02)
    assert not report.passed


def test_every_slot_counts_in_the_agreement():
    logits = RANDOM.normal(size=(50, 4, 7))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    swapped = softmax.copy()
    swapped[:, 3] = np.roll(swapped[:, 3], 1, axis=1)
    report = compare(softmax.reshape(50, 28), swapped.reshape(50, 28), [PLATE])
    assert 150 < report.decided <= 200
    assert report.top1_agreement == pytest.approx(0.75, abs=0.03)
    assert not report.passed


def test_the_worst_output_decides_and_each_is_named():
    weather = RANDOM.normal(size=(50, 5)).astype(np.float32) * 100
    logits = RANDOM.normal(size=(50, 4, 7))
    plate = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    reference = np.concatenate([weather, plate.reshape(50, 28)], axis=1)
    candidate = reference.copy()
    candidate[:, 5:] = candidate[:, 5:][::-1]
    report = compare(reference, candidate, [LOGITS, PLATE])
    assert report.output == "plate"
    assert not report.passed
    assert all(line.startswith("plate: ") for line in report.failures)
    # Beside logits of a hundred, the probabilities would be lost in one figure.
    assert parity.logits_sqnr_db(reference, candidate, [LOGITS, PLATE]) == report.sqnr_db < 5
    both = compare(reference, reference[::-1], [LOGITS, PLATE])
    assert {line.partition(":")[0] for line in both.failures} == {"plate", "weather"}


def test_an_output_with_nan_is_the_worst():
    reference = RANDOM.normal(size=(50, 33)).astype(np.float32)
    candidate = reference.copy()
    candidate[7, 2] = np.nan
    candidate[:, 5:] += 9
    report = compare(reference, candidate, [LOGITS, PLATE])
    assert (report.output, report.finite) == ("weather", False)
