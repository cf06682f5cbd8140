"""``cct-export predict``: the same classes from the model and from what was exported of it."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cct_export
from cct_export.errors import InvalidData, InvalidRequest
from cct_export.evaluation import predict
from cct_export.evaluation.outputs import probabilities
from cct_export.evaluation.predict import classify, opened
from cct_export.records import OutputContract

CAT = Path(__file__).parents[2] / "docs/cat.jpg"
UNKNOWN = OutputContract("logits", "float32", 3)
PROGRAM = "from cct_export.commands.program import export_main; export_main()"


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


def test_the_shipped_model_is_the_default_and_knows_the_cat_of_the_documentation(in_process):
    ended = in_process("export", "predict", CAT, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["source"] == "cct_2_3x2_32"
    assert _best(ended.record["predictions"]) == ["cat"]
    assert [p.to_dict() for p in cct_export.predict(images=CAT)] == ended.record["predictions"]


@pytest.mark.parametrize("pattern", ["", "*.png", "**/*.p[n]g"])
def test_a_folder_and_a_pattern_stand_for_their_images(
    in_process, exports, pngs, predicted, pattern
):
    images = pngs[0].parent / pattern
    ended = in_process("export", "predict", exports("tflite").path, images, "--json", "-")
    expected = sorted(predicted["tflite"], key=lambda prediction: prediction["image"])
    found = ended.record["predictions"]
    assert [p["image"] for p in found] == [p["image"] for p in expected]
    assert _best(found) == _best(expected)


def test_a_run_directory_is_the_model_though_it_holds_images(in_process, digits_run, pngs):
    ended = in_process("export", "predict", digits_run, pngs[0], "--json", "-")
    assert ended.record["source"] == str(digits_run)
    ended = in_process("export", "predict", digits_run)
    assert ended.code == 2
    assert "is taken as the model" in ended.err


def test_several_images_get_a_line_each(in_process, exports, pngs):
    ended = in_process("export", "predict", exports("tflite").path, *pngs[:3], "--top", 2)
    lines = ended.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(map(str, pngs[:3]))
    for line in lines:
        assert re.search(r": \d \d+\.\d%, \d \d+\.\d%$", line)


def test_an_image_that_cannot_be_read_is_reported_and_the_others_are_classified(
    in_process, exports, pngs, predicted, tmp_path
):
    for name in ("half.png", "note.png"):
        (tmp_path / name).write_bytes(pngs[0].read_bytes()[:60])
    images = (pngs[0], tmp_path / "half.png", pngs[1], tmp_path / "note.png")
    ended = in_process("export", "predict", exports("tflite").path, *images, "--json", "-")
    assert ended.code == 1
    assert [p["image"] for p in ended.record["predictions"]] == [str(pngs[0]), str(pngs[1])]
    assert _best(ended.record["predictions"]) == _best(predicted["tflite"][:2])
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert [Path(error.split()[1]).name for error in errors] == ["half.png", "note.png"]
    with pytest.raises(InvalidData, match=r"half\.png"):
        cct_export.predict(exports("tflite").path, images=images)


@pytest.mark.parametrize("source", ["keras", "int8"])
def test_batches_do_not_change_the_predictions(
    exports, digits_model, pngs, predicted, monkeypatch, source
):
    monkeypatch.setattr(predict, "BATCH", 5)
    path = digits_model if source == "keras" else exports("tflite", "int8", "uint8").path
    found = [prediction.to_dict() for prediction in cct_export.predict(path, images=pngs)]
    assert [p["image"] for p in found] == [p["image"] for p in predicted[source]]
    for one, other in zip(found, predicted[source], strict=True):
        assert [t["label"] for t in one["top"]] == [t["label"] for t in other["top"]]
        assert [t["probability"] for t in one["top"]] == pytest.approx(
            [t["probability"] for t in other["top"]], abs=1e-6
        )


def test_images_are_decoded_a_batch_at_a_time(exports, pngs):
    images = [pngs[0]] * 64 + [Path("read only with the second batch.png")]
    with opened(exports("tflite").path) as session:
        predictions = classify(session, images=images, top=1)
        assert [next(predictions).image for _ in range(64)] == [pngs[0]] * 64
        with pytest.raises(InvalidData, match="second batch"):
            next(predictions)


def test_a_tflite_file_is_run_without_keras(exports, pngs):
    code = f"""if True:
        import sys
        sys.argv = ["cct-export", "predict", {str(exports("tflite").path)!r}, {str(pngs[0])!r}]
        from cct_export.commands.program import export_main
        try: export_main()
        except SystemExit as end: assert not end.code
        assert not {{"keras", "tensorflow"}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_on_a_terminal_predictions_and_errors_have_lines_of_their_own(exports, pngs, tmp_path):
    (tmp_path / "note.png").write_text("not an image")
    command = [sys.executable, "-c", PROGRAM, "predict", str(exports("tflite").path), "--top", "1"]
    ours, theirs = pty.openpty()
    images = [str(path) for path in (tmp_path / "note.png", *pngs[:3])]
    # Wide enough for the names of temporary folders.
    environment = os.environ | {"COLUMNS": "400", "TERM": "xterm"}
    with subprocess.Popen([*command, *images], stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown.decode()))
    assert sum(line.startswith(f"error: {images[0]} ") for line in lines) == 1
    for image in images[1:]:
        assert sum(line.startswith(f"{image}: ") for line in lines) == 1


def test_a_reader_that_is_gone_ends_the_command_quietly(exports, pngs):
    command = [sys.executable, "-c", PROGRAM, "predict", str(exports("tflite").path)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*command, *map(str, pngs)], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_top_below_one_is_refused(pngs):
    with pytest.raises(InvalidRequest, match="top must be at least 1, not 0"):
        cct_export.predict(images=pngs[0], top=0)


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
    rows = probabilities(np.array([[1e4, 0, -1e4], [3, 3, 3]], np.float32), UNKNOWN)
    np.testing.assert_allclose(rows[:, 0], [[1, 0, 0], [1 / 3] * 3])


def test_rows_of_probabilities_are_unchanged():
    rows = np.array([[0.7, 0.2, 0.1], [0, 0, 1]], np.float32)
    assert (probabilities(rows, UNKNOWN)[:, 0] == rows).all()


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
