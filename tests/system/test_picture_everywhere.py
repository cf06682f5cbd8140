"""One picture has the same probabilities wherever it is classified, preprocessed as in training.

The model takes BGR pixels, minus a mean and over a deviation for each channel, all done outside of
it. What it says of pictures that are preprocessed by hand here is what ``cct-export predict``, the
Python of a Raspberry Pi bundle and the compiled C++ have to say of their files.
"""

import functools
import json
import sys

import keras
import linux_cpp
import numpy as np
import pytest
from cases.other_classifiers import small
from keras import layers
from PIL import Image

from cct_export import api
from cct_export.specs import SUFFIXES

HEIGHT, WIDTH = 16, 24
LABELS = ("ant", "bee", "cat", "dog", "elk")
BGR, RGB = (2, 1, 0), (0, 1, 2)
MEAN, STD = (0.3, 0.45, 0.6), (0.15, 0.2, 0.3)  # of blue, green and red, from 0 to 1
NORMALIZATION = (
    "--channels", "bgr", "--scale", "1/255", "--mean", "0.3,0.45,0.6", "--std", "0.15,0.2,0.3",
)  # fmt: skip
# Left, top, right and bottom of the centre that has the aspect ratio of the input, by height and
# width of a picture: a wide one, a high one, and one that is smaller than the input.
CENTRES = {(70, 201): (48, 0, 153, 70), (155, 45): (0, 62, 45, 92), (10, 30): (7, 0, 22, 10)}
# float32: engines and Keras add in another order.
SAME = 1e-5
# int8 against Keras: the files' own error, 0.0051 at most for these pictures.
QUANTIZED = 0.01
# C++ prints four digits, and its resized pixels may differ from Pillow's by one step, which changes
# a probability by 0.0010 at most for these pictures.
ONE_STEP = 0.002
# What a mistake has to change to be told from all that.
NOTICED = 10
RESIZES = ["antialiased,crop", "bilinear,crop"]
FILES = [
    ("tflite", "none", "float32"),
    ("tflite", "int8", "uint8"),
    ("onnx", "none", "float32"),
    ("onnx", "int8", "uint8"),
    ("ncnn", "none", "float32"),
]


def model():
    """A classifier that looks at places and colours."""
    return small(layers.MaxPooling2D(2), layers.Flatten(), shape=(HEIGHT, WIDTH, 3), front=[])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of 25 colours each, which blend into one another."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(11)
    paths = []
    for height, width in CENTRES:
        patches = Image.fromarray(random.integers(30, 226, (5, 5, 3), np.uint8))
        image = patches.resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{height} × {width}.png")
        image.save(paths[-1])
    return paths


def probabilities(path, *, antialiased, crop=True, channels=BGR, mean=MEAN, std=STD):
    """Returns what the model says of a picture that is preprocessed by hand."""
    with Image.open(path) as picture:
        used = picture.crop(CENTRES[picture.height, picture.width] if crop else None)
    if antialiased:
        pixels = np.asarray(used.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    else:
        resized = keras.ops.image.resize(np.asarray(used, np.float32), (HEIGHT, WIDTH))
        pixels = np.floor(np.asarray(resized) + 0.5)
    normalized = (pixels[np.newaxis, ..., channels] / 255 - mean) / std
    return np.asarray(keras.ops.softmax(model()(normalized.astype(np.float32)))[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory, in_process):
    """Returns an export of the model with everything that is said of its preprocessing."""
    folder = tmp_path_factory.mktemp("exported")
    model().save(folder / "m.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS))

    @functools.cache
    def export(format, scheme, io, resize):
        path = folder / f"{scheme}-{resize}{SUFFIXES[format]}"
        said = (*NORMALIZATION, "--resize", resize, "--labels", folder / "labels.txt", "--softmax")
        few = ("--parity-samples", 64)
        if format != "ncnn":
            few += ("--calibration-samples", 64, "--io", io)
        words = (*said, *few, "--quantize", scheme, "-o", path)
        ended = in_process("export", format, folder / "m.keras", *words)
        assert ended.code == 0, ended.err
        return path

    return export


@pytest.fixture(scope="module")
def predicted(exported, pictures, in_process):
    """Returns what ``cct-export predict`` says of each picture: probabilities, the best first."""

    @functools.cache
    def predict(*file):
        ended = in_process("export", "predict", exported(*file), *pictures, "--json", "-")
        assert ended.code == 0, ended.err
        return [_by_label(prediction["top"]) for prediction in ended.record["predictions"]]

    return predict


def _by_label(top):
    return {score["label"]: score["probability"] for score in top}


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("format", "scheme", "io"), FILES)
def test_predict_agrees_with_the_model_and_preprocessing_by_hand(
    predicted, pictures, format, scheme, io, resize
):
    tolerance = SAME if scheme == "none" else QUANTIZED
    antialiased = resize.startswith("antialiased")
    for picture, scores in zip(pictures, predicted(format, scheme, io, resize), strict=True):
        expected = probabilities(picture, antialiased=antialiased)
        assert [scores[label] for label in LABELS] == pytest.approx(list(expected), abs=tolerance)
        assert next(iter(scores)) == LABELS[expected.argmax()]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("format", "scheme", "io"), FILES)
def test_the_scripts_of_a_bundle_say_what_predict_says(
    exported, predicted, pictures, tmp_path, format, scheme, io, resize
):
    file = format, scheme, io, resize
    folder = api.bundle(exported(*file), target="raspberry-pi", output=tmp_path / "bundle")
    process = linux_cpp.run(sys.executable, folder / "classify.py", "--json", *pictures)
    assert process.returncode == 0, process.stderr
    shown = [_by_label(json.loads(line)["top"]) for line in process.stdout.splitlines()]
    for ours, expected in zip(shown, predicted(*file), strict=True):
        assert list(ours) == list(expected)
        assert ours == pytest.approx(expected, abs=SAME)


@pytest.mark.cpp
@pytest.mark.timeout(1800)  # ncnn is compiled first
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("format", "scheme", "io"), FILES[2:])
def test_the_compiled_program_says_what_predict_says(
    engine_of, exported, predicted, pictures, tmp_path, format, scheme, io, resize
):
    file = format, scheme, io, resize
    folder = api.bundle(exported(*file), target="linux-cpp", output=tmp_path / "bundle")
    linux_cpp.compile(folder, engine_of(format))
    shown = linux_cpp.classify(folder, *pictures)
    for ours, expected in zip(shown, predicted(*file), strict=True):
        assert list(ours) == list(expected)
        assert ours == pytest.approx(expected, abs=ONE_STEP)


@pytest.mark.parametrize("antialiased", [True, False])
@pytest.mark.parametrize(
    "wrong", [{"crop": False}, {"channels": RGB}, {"mean": MEAN[::-1]}, {"std": STD[::-1]}], ids=str
)
def test_another_preprocessing_of_a_picture_would_be_noticed(pictures, antialiased, wrong):
    for picture in pictures:
        right = probabilities(picture, antialiased=antialiased)
        difference = np.abs(probabilities(picture, antialiased=antialiased, **wrong) - right)
        assert difference.max() > NOTICED * max(SAME, QUANTIZED, ONE_STEP)


def test_another_filter_would_be_noticed_where_a_picture_shrinks(pictures):
    with_it, without = (probabilities(pictures[0], antialiased=each) for each in (True, False))
    assert np.abs(with_it - without).max() > NOTICED * max(SAME, ONE_STEP)
