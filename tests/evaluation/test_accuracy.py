"""Accuracy of a session against counting by hand."""

import numpy as np
import pytest

from cct_export.data.dataset import ArraySplit, Dataset
from cct_export.errors import InvalidData
from cct_export.evaluation import accuracy


class Echo:
    """A session whose logits rank the classes from the image's first pixel on."""

    image_shape = (1, 1, 1)
    io = "uint8"
    input_quantization = output_quantization = None
    batch = None

    def __init__(self, classes, labels=()):
        self.classes = classes
        self.contract = {"labels": list(labels)} if labels else {}

    def invoke(self, prepared):
        first = prepared.reshape(len(prepared), -1)[:, :1].astype(int)
        return -((np.arange(self.classes) - first) % self.classes).astype(np.float32)


def dataset(first_pixels, labels, classes):
    pixels = np.asarray(first_pixels, np.uint8).reshape(-1, 1, 1, 1)
    split = ArraySplit(pixels, np.asarray(labels, np.int64))
    return Dataset("made up", tuple(classes), split, split)


def test_top_1_and_top_5_are_counted_over_all_chunks():
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 10, 700), random.integers(0, 10, 700)
    rank = (labels - pixels) % 10
    found = accuracy.measure(Echo(10), dataset(pixels, labels, map(str, range(10)))).accuracy
    assert found.top1 == (rank == 0).mean()
    assert found.top5 == (rank < 5).mean()
    assert found.samples == 700


def test_fewer_than_five_classes_are_always_in_the_top_five():
    found = accuracy.measure(Echo(3), dataset([0, 1], [2, 1], "abc")).accuracy
    assert (found.top1, found.top5) == (0.5, 1.0)


def test_a_label_that_the_model_has_no_logit_for_is_refused():
    with pytest.raises(InvalidData, match="label 4, the model 3 logits"):
        accuracy.measure(Echo(3), dataset([0, 1], [0, 4], "abcde"))


def test_other_class_names_than_those_of_the_model_are_refused():
    with pytest.raises(InvalidData, match="the model knows a, b, c"):
        accuracy.measure(Echo(3, "abc"), dataset([0, 1], [0, 1], "acb"))
