"""Accuracy against counting by hand; its statistics against SciPy and by their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cct_export.data.dataset import ArraySplit, Dataset
from cct_export.errors import InvalidData
from cct_export.evaluation import accuracy
from cct_export.evaluation.accuracy import calibration_error, mcnemar, score, wilson_interval
from cct_export.records import Contract, OutputContract
from cct_export.specs.progress import no_progress


class FirstPixel:
    """A session whose logits rank the classes from the image's first pixel on."""

    image_shape = (1, 1, 1)
    layout = "NHWC"
    io = "uint8"
    input_quantization = None
    output_quantizations = ()
    batch = None

    def __init__(self, classes, labels=()):
        self.classes = classes
        self.contract = Contract(labels=tuple(labels))
        self.outputs = (OutputContract("logits", "float32", classes, activation="none"),)

    def invoke(self, prepared):
        first = prepared.reshape(len(prepared), -1)[:, :1].astype(int)
        return -((np.arange(self.classes) - first) % self.classes).astype(np.float32)


def dataset(first_pixels, labels, classes):
    pixels = np.asarray(first_pixels, np.uint8).reshape(-1, 1, 1, 1)
    split = ArraySplit(pixels, np.asarray(labels, np.int64))
    return Dataset("made up", tuple(classes), split, split)


def measure(session, *data, progress=no_progress):
    return accuracy.measure(session, dataset=dataset(*data), progress=progress).accuracy


def test_top_1_and_top_5_are_counted_over_all_chunks():
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 10, 700), random.integers(0, 10, 700)
    rank = (labels - pixels) % 10
    calls = []
    report = measure(
        FirstPixel(10), pixels, labels, "0123456789", progress=lambda *call: calls.append(call)
    )
    assert report.top1 == (rank == 0).mean()
    assert report.top5 == (rank < 5).mean()
    assert report.samples == 700
    assert calls == [(256, 700), (512, 700), (700, 700)]


@pytest.mark.parametrize(("classes", "top5"), [("abc", None), ("abcde", None), ("abcdef", 1.0)])
def test_five_classes_or_fewer_have_no_top_five(classes, top5):
    report = measure(FirstPixel(len(classes)), [0, 1], [2, 1], classes)
    assert (report.top1, report.top5) == (0.5, top5)
    assert (report.top5_interval is None) == (top5 is None)


def test_a_label_that_the_model_has_no_logit_for_is_refused():
    with pytest.raises(InvalidData, match="label 4, the model 3 classes"):
        measure(FirstPixel(3), [0, 1], [0, 4], "abcde")


def test_other_class_names_than_those_of_the_model_are_refused():
    with pytest.raises(InvalidData, match="the model knows a, b, c"):
        measure(FirstPixel(3, "abc"), [0, 1], [0, 1], "acb")


@st.composite
def proportions(draw):
    total = draw(st.integers(1, 10_000))
    return draw(st.integers(0, total)), total


@given(proportions())
def test_the_interval_is_that_of_scipy_and_contains_the_proportion(proportion):
    hits, total = proportion
    low, high = wilson_interval(hits, total)
    expected = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= hits / total <= high <= 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=400))
def test_mcnemars_p_value_is_that_of_the_exact_binomial_test(pairs):
    reference, candidate = map(np.array, zip(*pairs, strict=True))
    report = mcnemar(reference=reference, candidate=candidate)
    b, c = report.only_reference, report.only_candidate
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert report.p_value == pytest.approx(expected)
    assert report.reference_top1 == reference.mean()
    assert candidate.mean() == pytest.approx(reference.mean() + (c - b) / len(pairs))


def test_thousands_of_differences_do_not_overflow():
    report = mcnemar(reference=np.ones(5000, bool), candidate=np.zeros(5000, bool))
    assert report.p_value == 0.0


def test_equal_predictions_are_no_difference():
    correct = np.array([True, False, True])
    assert mcnemar(reference=correct, candidate=correct).p_value == 1.0


LOGITS = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 3, (50, 6))
)


@given(LOGITS)
def test_the_calibration_error_is_that_of_a_loop_over_bins(logits):
    targets = np.arange(50) % 6
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, correct = probabilities.max(axis=1), logits.argmax(axis=1) == targets
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    assert calibration_error(probabilities, correct=correct) == pytest.approx(expected, abs=1e-9)


def test_confidence_that_equals_the_accuracy_is_no_error():
    probabilities = np.array([[0.75, 0.25]] * 4)
    correct = np.array([True, True, True, False])
    assert calibration_error(probabilities, correct=correct) == pytest.approx(0)
    assert calibration_error(probabilities, correct=np.array([True] * 4)) == pytest.approx(0.25)


def test_large_logits_do_not_overflow():
    report, _ = score(np.array([[1e30, 0.0]]), targets=np.array([0]), data="d")
    assert report.calibration_error == 0.0


@given(LOGITS)
def test_the_confusion_matrix_counts_every_image_once(logits):
    targets = np.arange(50) % 6
    report, correct = score(logits, targets=targets, data="d")
    confusion = np.array(report.confusion)
    assert (confusion.sum(axis=1) == np.bincount(targets, minlength=6)).all()
    assert np.trace(confusion) / 50 == report.top1 == correct.mean()
    assert report.per_class == pytest.approx(tuple(np.diag(confusion) / confusion.sum(axis=1)))


def test_an_image_whose_logits_are_not_finite_is_wrong_and_not_in_the_confusion_matrix():
    logits = np.array([[0.0, 1.0], [np.nan, np.nan], [np.inf, 0.0]])
    report, correct = score(logits, targets=np.array([1, 0, 0]), data="d")
    assert correct.tolist() == [True, False, False]
    assert report.top1 == pytest.approx(1 / 3)
    assert report.confusion == ((0, 0), (0, 1))
    assert report.per_class == (None, 1.0)


def test_probabilities_go_through_no_second_softmax():
    answers = np.eye(10)[np.arange(50) % 10]
    output = OutputContract("logits", "float32", 10, (10,), "softmax")
    report, _ = score(answers, targets=np.arange(50) % 10, data="d", output=output)
    assert (report.top1, report.calibration_error) == (1, 0)


@pytest.mark.parametrize(
    ("activation", "values"),
    [("sigmoid", [0.75, 0.75, 0.25, 0.75]), ("none", [np.log(3)] * 4)],
)
def test_one_value_tells_two_classes_apart(activation, values):
    output = OutputContract("logits", "float32", 1, (1,), activation)
    values = np.array(values)[:, None]
    targets = (values[:, 0] > (0.5 if activation == "sigmoid" else 0)).astype(int)
    report, _ = score(values, targets=targets, data="d", output=output)
    assert report.top1 == 1
    assert report.calibration_error == pytest.approx(0.25)
    assert len(report.confusion) == 2
    wrong, _ = score(values, targets=1 - targets, data="d", output=output)
    assert (wrong.top1, wrong.top5) == (0, None)


class TwoOutputs(FirstPixel):
    """A session with the classes of ``FirstPixel`` after an output of three others."""

    def __init__(self, classes, *others):
        super().__init__(classes)
        self.outputs = (*others, *self.outputs)

    def invoke(self, prepared):
        width = sum(output.width for output in self.outputs[:-1])
        others = np.ones((len(prepared), width), np.float32)
        return np.concatenate([others, super().invoke(prepared)], axis=1)


def test_the_accuracy_of_several_outputs_is_that_of_the_one_with_these_classes():
    session = TwoOutputs(10, OutputContract("weather", "float32", 3, (3,), "none"))
    report = measure(session, [3, 4], [3, 5], "0123456789")
    assert report.top1 == 0.5


@pytest.mark.parametrize("sizes", [(10,), (4, 10), (3, 3)])
def test_without_one_output_for_the_labels_the_accuracy_is_refused(sizes):
    other = OutputContract("other", "float32", sizes[-1], sizes, "none")
    session = TwoOutputs(10, other)
    if sizes != (10,):
        session.outputs = (other,)
        session.invoke = lambda prepared: np.ones((len(prepared), other.width), np.float32)
    with pytest.raises(InvalidData, match="needs one output for the one label") as refused:
        measure(session, [3, 4], [3, 5], "0123456789")
    assert "parity and latency can be measured" in str(refused.value)
