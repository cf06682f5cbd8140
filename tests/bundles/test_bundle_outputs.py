"""Bundles of files whose output is no logits of classes that exclude each other."""

import json

import pytest

import cct_export
from cct_export import api
from cct_export.errors import InvalidRequest

KINDS = ("softmax", "one-sigmoid", "one-logit", "multi-label")
FILES = (("tflite", "none"), ("onnx", "none"), ("tflite", "int8"), ("ncnn", "none"))


@pytest.fixture(scope="module")
def bundled(head_exports, tmp_path_factory):
    def bundle(kind, format, scheme="none", target="raspberry-pi"):
        folder = tmp_path_factory.mktemp("bundles") / f"{kind}-{format}-{scheme}"
        path = head_exports(kind, format, scheme).path
        return path, api.bundle(path, target=target, output=folder)

    return bundle


@pytest.mark.parametrize(("format", "scheme"), FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_scripts_pass_and_give_the_probabilities_of_predict(
    bundled, call, pictures, kind, format, scheme
):
    path, folder = bundled(kind, format, scheme)
    selftest = call(folder / "selftest.py", "--json")
    assert selftest.returncode == 0, selftest.stdout + selftest.stderr
    images = [pictures / "a.png", pictures / "d.png"]
    ended = call(folder / "classify.py", *images, "--json")
    assert ended.returncode == 0, ended.stderr
    predicted = cct_export.predict(path, images=images)
    for line, prediction in zip(ended.stdout.splitlines(), predicted, strict=True):
        scores = {entry["label"]: entry["probability"] for entry in json.loads(line)["top"]}
        assert scores == pytest.approx(dict(prediction.top), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_self_test_fails_with_the_logits_of_another_model(bundled, call, kind):
    import numpy as np

    _, folder = bundled(kind, "onnx")
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["logits"] = arrays["logits"] + 0.01 * np.sign(
        np.arange(arrays["logits"].size) % 2 - 0.5
    ).reshape(arrays["logits"].shape)
    np.savez(folder / "golden.npz", **arrays)
    checksums = folder / "SHA256SUMS"
    import hashlib

    lines = [line for line in checksums.read_text().splitlines() if "golden.npz" not in line]
    digest = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    checksums.write_text("\n".join([*lines, f"{digest}  golden.npz"]) + "\n")
    ended = call(folder / "selftest.py")
    assert ended.returncode == 1
    assert "SQNR" in ended.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "format"), [("raspberry-pi", "onnx"), ("linux-cpp", "onnx"), ("android", "tflite")]
)
@pytest.mark.parametrize("kind", ["slots", "several"])
def test_more_than_one_class_for_an_image_is_refused_in_one_line(
    head_exports, tmp_path, kind, target, format
):
    path = head_exports(kind, format).path
    with pytest.raises(InvalidRequest, match="one output without slots") as refused:
        api.bundle(path, target=target, output=tmp_path / "bundle")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "bundle").exists()
