"""Models whose preprocessing is outside: their files take camera bytes, and say what they do."""

import json
import shutil
from contextlib import closing

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import cct_export
from cct_export.data.sampling import parity
from cct_export.errors import InvalidRequest
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.records import sidecar
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import run
from cct_export.specs import DEFAULT_RESIZE, ModelOptions, Normalization

SHAPE = (16, 16, 3)
MEAN = (103.939, 116.779, 123.68)
WORDS = ("--channels", "bgr", "--mean", "103.939,116.779,123.68")
OPTIONS = ModelOptions(
    normalization=Normalization(channels="bgr", mean=MEAN), labels=("ant", "bee", "cat", "dog")
)
FEW = ("--parity-samples", 64, "--calibration-samples", 32)


def resnet(name="resnet50"):
    """A small network with residuals, whose channels all count differently."""
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(12, 3, strides=2)(layers.ZeroPadding2D()(image)))
    x = layers.ReLU()(x)
    y = layers.BatchNormalization()(layers.Conv2D(12, 3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    return keras.Model(image, layers.Dense(4)(x), name=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model as ``resnet.keras``, and photographs of two sizes in ``photos``."""
    folder = tmp_path_factory.mktemp("preprocessed")
    resnet().save(folder / "resnet.keras")
    (folder / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    pixels = np.random.default_rng(0)
    for label in ("w", "x", "y", "z"):
        (folder / "photos" / label).mkdir(parents=True)
        for index in range(10):
            image = pixels.random(SHAPE) * pixels.integers(60, 255, 3)
            Image.fromarray(image.astype(np.uint8)).save(folder / f"photos/{label}/{index}.png")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def preprocessed(images):
    return images[..., ::-1].astype(np.float32) - np.array(MEAN, np.float32)


def logits_of(path, images):
    with closing(engine_of(path.suffix[1:]).open_session(path, trusted=True)) as session:
        return run(session, images)


@pytest.mark.parametrize(("scheme", "least_db"), [("none", 90), ("int8", 28)])
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_computes_of_camera_bytes_what_the_model_computes_of_its_own(
    here, tmp_path, format, scheme, least_db
):
    export = getattr(cct_export, f"export_{format}")
    exported = export(
        "resnet.keras", output=tmp_path / f"m.{format}", scheme=scheme, options=OPTIONS,
        parity_samples=64, calibration_samples=32,
    )  # fmt: skip
    assert exported.parity.passed, exported.parity.failures
    images = parity(None, SHAPE, 100).images
    expected = np.asarray(resnet()(preprocessed(images)))
    path = exported.artifact.path
    assert logits_sqnr_db(expected, logits_of(path, images)) > least_db
    assert logits_sqnr_db(expected, np.asarray(resnet()(images.astype(np.float32)))) < 20
    contract = exported.artifact.contract
    assert contract.labels == OPTIONS.labels
    assert contract.input.normalization == OPTIONS.normalization
    assert (contract.input.preprocessing, contract.input.channels) == ("raw pixels", "RGB")
    assert (contract.output.shape, contract.output.activation) == ((4,), "none")
    written = sidecar.read(path)
    assert written.contract == contract
    golden = written.golden
    np.testing.assert_allclose(
        golden.logits, resnet()(preprocessed(golden.images)), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_file_and_model_predict_the_same_and_verify_rebuilds_the_reference(
    here, in_process, tmp_path, format
):
    path = tmp_path / f"m.{format}"
    labels = ("--labels", "labels.txt")
    ended = in_process(
        "export", format, "resnet.keras", *WORDS, *labels, "--softmax", *FEW, "-o", path
    )
    assert ended.code == 0, ended.err
    assert "scales the pixels" not in ended.err
    output = json.loads((tmp_path / f"m.{format}.json").read_text())["output"]
    assert (output["activation"], output["softmax"]) == ("softmax", True)
    ours, keras_own = (
        in_process("export", "predict", *words, "photos/w/0.png", "--json", "-").record
        for words in ([path], ["resnet.keras", *WORDS, *labels])
    )
    for row, expected in zip(
        ours["predictions"][0]["top"], keras_own["predictions"][0]["top"], strict=True
    ):
        assert row["label"] == expected["label"]
        assert row["label"] in OPTIONS.labels
        assert row["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    assert in_process("export", "verify", path, "--samples", 32).code == 0
    against = ("export", "verify", path, "--samples", 32, "--against", "resnet.keras")
    assert in_process(*against, *WORDS, "--softmax").code == 0
    ended = in_process(*against)
    assert ended.code == 3
    assert f"the file normalizes pixels, the model does not: add {' '.join(WORDS)}" in ended.err
    assert "add --softmax" in ended.err


def test_verify_says_where_the_recorded_model_is_loaded_in_another_way(here, in_process, tmp_path):
    for options in ((), WORDS):
        path = tmp_path / "m.onnx"
        assert in_process("export", "onnx", "resnet.keras", *options, *FEW, "-o", path).code == 0
        ended = in_process("export", "verify", path, "--samples", 32, "--mean", 3, "--softmax")
        exported = " ".join(options) or "--scale 1"
        assert (
            f"the file was exported with {exported}, and the model is loaded with --mean 3: give "
            "the same"
        ) in ended.err
        assert "the model ends in a softmax, the file does not: leave --softmax out" in ended.err


def test_verify_takes_no_code_from_a_file():
    contract = cct_export.records.Contract.from_dict(
        {
            "input": {"layout": "NHWC", "shape": [1, 2, 2, 3], "dtype": "float32"},
            "modules": ["evil.py"],
        }
    )
    assert contract.options == ModelOptions(resize=DEFAULT_RESIZE)


def test_a_hostile_normalization_in_a_file_is_no_contract():
    base = {"layout": "NHWC", "shape": [1, 2, 2, 3], "dtype": "float32"}
    for wrong in (
        {"scale": 0},
        {"mean": ["x"]},
        {"std": [0, 1, 1]},
        {"channels": "gbr"},
        {"scale": 1e300},
    ):
        with pytest.raises(ValueError, match=r"scale|mean|std|channels|str"):
            cct_export.records.Contract.from_dict({"input": base | {"normalization": wrong}})


def test_keras_in_a_benchmark_is_loaded_with_the_options(here, in_process):
    quick = ("--min-runs", 3, "--min-seconds", 0, "--warmup-seconds", 0)
    classes = ("--labels", "w,x,y,z", "--data", "photos", "--accuracy")
    words = ("bench", "keras", "resnet.keras", *quick, *classes, "--json", "-")
    predicted = {}
    for options in ((), WORDS):
        (row,) = in_process(*words, *options).record["results"]
        predicted[options] = row["accuracy"]["confusion"]
    dataset = cct_export.data.read("photos", SHAPE)
    images = dataset.test.images(range(len(dataset.test.labels)))
    for options, pixels in (((), images.astype(np.float32)), (WORDS, preprocessed(images))):
        best = np.asarray(resnet()(pixels)).argmax(axis=1)
        confusion = np.zeros((4, 4), int)
        np.add.at(confusion, (dataset.test.labels, best), 1)
        assert predicted[options] == confusion.tolist()
    assert predicted[()] != predicted[WORDS]


def test_an_accuracy_is_compared_with_that_of_the_model_as_it_was_exported(
    here, in_process, tmp_path
):
    path = tmp_path / "m.onnx"
    ended = in_process("export", "onnx", "resnet.keras", *WORDS, "--data", "photos", "-o", path)
    assert ended.code == 0, ended.err
    quick = ("--min-runs", 3, "--min-seconds", 0, "--warmup-seconds", 0)
    ended = in_process(
        "bench", "onnx", path, *quick, "--data", "photos", "--accuracy", "--json", "-"
    )
    (row,) = ended.record["results"]
    paired = row["accuracy"]["paired"]
    assert paired["only_reference"] == paired["only_candidate"] == 0
    assert paired["reference_top1"] == row["accuracy"]["top1"]


def test_labels_are_the_class_folders_where_nobody_names_others(here, tmp_path, caplog):
    def labels(data="photos", **options):
        exported = cct_export.export_onnx(
            "resnet.keras", output=tmp_path / "m.onnx", data=data, parity_samples=8,
            options=ModelOptions(normalization=Normalization(), **options),
        )  # fmt: skip
        return exported.artifact.contract.labels

    caplog.set_level("INFO", "cct_export")
    assert labels() == ("w", "x", "y", "z")
    assert labels(data=None) == ()
    assert "no labels" not in caplog.text
    three = tmp_path / "three"
    for name in ("w", "x", "y"):
        (three / name).mkdir(parents=True)
        for index in range(10):
            (three / name / f"{index}.png").write_bytes((here / "photos/w/0.png").read_bytes())
    assert labels(data=str(three)) == ()
    assert "has 3 classes, and resnet.keras 4 outputs; name them with --labels" in caplog.text


def test_the_two_class_folders_are_the_labels_of_a_single_output(here, tmp_path):
    for name in ("no", "yes"):
        shutil.copytree(here / "photos/w", tmp_path / "two" / name)
    image = keras.Input((16, 16, 3))
    pixels = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    exported = cct_export.export_onnx(
        keras.Model(image, layers.Dense(1, activation="sigmoid")(pixels)),
        output=tmp_path / "one.onnx", data=str(tmp_path / "two"), parity_samples=8,
    )  # fmt: skip
    assert exported.artifact.contract.labels == ("no", "yes")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_export_warns_of_unscaled_pixels_unless_something_is_said(
    here, in_process, tmp_path, format
):
    words = ("export", format, "resnet.keras", *FEW, "-o", tmp_path / f"m.{format}")
    ended = in_process(*words)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if "pixels" in line]
    assert line == (
        "resnet.keras: no layer scales the pixels, and the model gets RGB from 0 to 255: resnet50 "
        "of keras.applications was trained with --channels bgr --mean 103.939,116.779,123.68: "
        "pass that, or --scale 1 if yours was trained with raw pixels"
    )
    contract = json.loads((tmp_path / f"m.{format}.json").read_text())
    assert contract["input"]["normalization"] is None
    for said in (("--scale", "1"), ("--channels", "rgb"), ("--scale", "1/255")):
        assert "no layer scales" not in in_process(*words, *said).err
    assert "no layer scales" not in in_process("export", format, *FEW, *words[-2:]).err


def test_an_export_of_several_files_and_the_api_warn_once(here, tmp_path, caplog):
    cct_export.export_files(resnet("plain"), schemes="none", output=tmp_path, parity_samples=8)
    (record,) = [each for each in caplog.records if "scales the pixels" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert "pass --mean, --std, --scale or --channels" in record.getMessage()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("export tflite resnet.keras --mean 1,2", "--mean has 2 numbers, and the images have 3"),
        ("export onnx resnet.keras --std 1,2,3,4", "--std has 4 numbers"),
        ("export tflite resnet.keras --labels a,b", "--labels names 2 classes"),
        ("export predict resnet.keras photos/w/0.png --labels a", "no such file: a"),
        ("export verify m.tflite --scale x", "'x' is not a number such as 1/255"),
        ("export tflite resnet.keras --scale 1,2", "'1,2' is not a number"),
        ("export tflite resnet.keras --scale 1/0", "it must be a number, not inf"),
        ("export tflite resnet.keras --std 1,0,1", "each of them must be above 0"),
        ("export tflite resnet.keras --mean nan", "is not numbers such as"),
        ("export tflite resnet.keras --channels gbr", "no order of channels is called 'gbr'"),
        ("export predict m.tflite photos/w/0.png --scale 1", "m.tflite says itself what"),
        ("bench tflite m.tflite --labels a,b", "m.tflite says itself what it does"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    here, in_process, words, reason
):
    before = set(here.iterdir())
    ended = in_process(*words.split())
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert reason in line
    assert set(here.iterdir()) == before


def test_a_resized_photograph_is_predicted_with_its_preprocessing(here, tmp_path):
    Image.fromarray(np.full((40, 30, 3), (200, 40, 90), np.uint8)).save(tmp_path / "p.png")
    (prediction,) = cct_export.predict("resnet.keras", images=tmp_path / "p.png", options=OPTIONS)
    image = np.full((1, *SHAPE), (200, 40, 90), np.uint8)
    expected = keras.ops.softmax(resnet()(preprocessed(image)))[0]
    best = int(np.argmax(expected))
    assert prediction.top[0][0] == OPTIONS.labels[best]
    assert prediction.top[0][1] == pytest.approx(float(expected[best]), abs=1e-4)


def test_a_loaded_artifact_is_refused_with_options_in_the_api(here):
    with pytest.raises(InvalidRequest, match=r"m\.onnx says itself"):
        cct_export.compare(["m.onnx"], options=OPTIONS)
