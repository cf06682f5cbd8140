"""``cct-export predict``: the same classes from the model and from what was exported of it."""

import numpy as np
import pytest
from PIL import Image

from cct_export.evaluation.predict import probabilities


@pytest.fixture(scope="module")
def pngs(tmp_path_factory, digit_images):
    """PNG files of twelve test digits, the last one in another size."""
    folder = tmp_path_factory.mktemp("digits")
    paths = []
    for index in range(12):
        image = Image.fromarray(digit_images[0][index])
        if index == 11:
            image = image.resize((100, 80))
        path = folder / f"{index}.png"
        image.save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def predicted(pngs, exports, digits_model, in_process):
    """The record of every source on the same files."""
    sources = {
        "keras": digits_model,
        "tflite": exports("tflite").path,
        "onnx": exports("onnx").path,
        "int8": exports("tflite", "int8", "uint8").path,
    }
    records = {}
    for name, source in sources.items():
        ended = in_process("export", "predict", source, *pngs, "--json", "-")
        assert ended.code == 0, ended.err
        records[name] = ended.record["predictions"]
    return records


def _best(predictions):
    return [prediction["top"][0]["label"] for prediction in predictions]


@pytest.mark.parametrize("source", ["keras", "tflite", "onnx", "int8"])
def test_five_classes_per_image_best_first(predicted, pngs, source):
    assert [p["image"] for p in predicted[source]] == [str(path) for path in pngs]
    for prediction in predicted[source]:
        labels = [entry["label"] for entry in prediction["top"]]
        probabilities = [entry["probability"] for entry in prediction["top"]]
        assert len(set(labels)) == 5
        assert set(labels) <= set("0123456789")
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(0 <= probability <= 1 for probability in probabilities)
        assert 0.5 < sum(probabilities) <= 1 + 1e-6


def test_model_and_exports_name_the_same_class(predicted):
    assert _best(predicted["tflite"]) == _best(predicted["keras"])
    assert _best(predicted["onnx"]) == _best(predicted["keras"])
    same = np.equal(_best(predicted["int8"]), _best(predicted["keras"]))
    assert same.sum() >= 11


def test_most_digits_are_recognised(predicted, digit_images):
    right = np.equal(_best(predicted["tflite"])[:11], [str(i) for i in digit_images[1][:11]])
    assert right.sum() >= 8


def test_probabilities_are_the_softmax_of_the_logits(predicted, digits_model, digit_images):
    import keras

    logits = keras.saving.load_model(digits_model).predict(
        digit_images[0][:1].astype(np.float32), verbose=0
    )
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    for source in ("keras", "tflite", "onnx"):
        for entry in predicted[source][0]["top"]:
            assert entry["probability"] == pytest.approx(expected[int(entry["label"])], abs=1e-4)


def test_the_output_has_a_line_per_class(in_process, exports, pngs):
    ended = in_process("export", "predict", exports("tflite").path, pngs[0], "--top", 2)
    path, *lines = ended.out.splitlines()
    assert path == str(pngs[0])
    assert len(lines) == 2
    assert lines[0].strip().endswith(tuple("0123456789"))
    assert "%" in lines[0]


def test_a_top_above_the_number_of_classes_lists_all(in_process, exports, pngs):
    ended = in_process(
        "export", "predict", exports("onnx").path, pngs[0], "--top", 99, "--json", "-"
    )
    (prediction,) = ended.record["predictions"]
    assert len(prediction["top"]) == 10
    assert sum(entry["probability"] for entry in prediction["top"]) == pytest.approx(1, abs=1e-5)


def test_large_logits_do_not_overflow():
    rows = probabilities(np.array([[1e4, 0, -1e4], [3, 3, 3]], np.float32))
    np.testing.assert_allclose(rows, [[1, 0, 0], [1 / 3] * 3])


def test_rows_of_probabilities_are_unchanged():
    rows = np.array([[0.7, 0.2, 0.1], [0, 0, 1]], np.float32)
    assert (probabilities(rows) == rows).all()


def test_nan_logits_are_an_error(tmp_path, pngs, digits_model, in_process):
    import numpy as np

    from cct_export.model import checkpoint

    model = checkpoint.load(digits_model)
    weights = model.get_weights()
    weights[-1][:] = np.nan
    model.set_weights(weights)
    checkpoint.save(model, tmp_path / "nan.keras")
    ended = in_process("export", "predict", tmp_path / "nan.keras", pngs[0], "--json", "-")
    assert ended.code == 1
    assert ended.out == ""
    assert "NaN" in ended.err
