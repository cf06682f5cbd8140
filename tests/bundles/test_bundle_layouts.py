"""Bundles of files whose input has the channels first."""

import json

import numpy as np
import pytest
from cases.other_classifiers import small
from PIL import Image

import cct_export
from cct_export import api


@pytest.mark.parametrize(("scheme", "io"), [("none", "float32"), ("int8", "uint8")])
def test_the_scripts_transpose_pixels_and_give_the_probabilities_of_predict(
    call, tmp_path, scheme, io
):
    path, picture = tmp_path / "m.onnx", tmp_path / "a.png"
    model = small(shape=(16, 24, 3))
    cct_export.export_onnx(
        model, output=path, scheme=scheme, io=io, layout="nchw", parity_samples=64
    )
    folder = api.bundle(path, target="raspberry-pi", output=tmp_path / "bundle")
    selftest = call(folder / "selftest.py", "--json")
    assert selftest.returncode == 0, selftest.stdout + selftest.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    ended = call(folder / "classify.py", picture, "--json")
    assert ended.returncode == 0, ended.stderr
    scores = {entry["label"]: entry["probability"] for entry in json.loads(ended.stdout)["top"]}
    (prediction,) = cct_export.predict(path, images=[picture])
    assert scores == pytest.approx(dict(prediction.top), abs=1e-6)
