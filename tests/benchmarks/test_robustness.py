"""Accuracy on images after JPEG compression."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import robustness


def _printed(*arguments):
    done = CliRunner().invoke(robustness.main, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_keras_model_and_its_int8_file_are_measured_on_images_as_they_are_and_as_jpeg(
    digits_run,
):
    record = json.loads((digits_run / "run.json").read_text())
    keras, int8 = json.loads(_printed(digits_run, "--data", "digits", "--json"))
    assert (keras["form"], int8["form"]) == ("keras", "tflite int8")
    assert keras["images"] == int8["images"] == 360
    assert keras["top1"] == pytest.approx(record["test"]["top1"])
    assert keras["jpeg_top1"] == pytest.approx(record["test_jpeg"]["top1"])
    assert int8["top1"] == pytest.approx(keras["top1"], abs=0.05)


def test_a_low_quality_costs_accuracy(digits_run):
    *_, keras, _ = _printed(digits_run, "--data", "digits", "--quality", 1).splitlines()
    top1, as_jpeg = (float(cell.strip(" %")) for cell in keras.split("|")[4:6])
    assert as_jpeg < top1
