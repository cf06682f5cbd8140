"""A model of the paper's kind, trained a little, in every scheme of both formats."""

import functools

import numpy as np
import pytest

from cct_export.model.presets import CIFAR
from cct_export.specs import ModelSpec, TrainSpec

TFLITE = ("none", "fp16", "int8-dynamic", "int8", "int8-full", "int16x8", "int4-weight")
ONNX = ("none", "fp16", "int8-dynamic", "int8", "int4-weight")
SCHEMES = [("tflite", scheme) for scheme in TFLITE] + [("onnx", scheme) for scheme in ONNX]


@pytest.fixture(scope="module")
def paper_run(tmp_path_factory):
    """A run directory of a small model of the paper, trained on digits, well above chance."""
    import cct_export

    mean, std = CIFAR
    spec = ModelSpec(
        name="small_paper", block="paper", filters=(16, 32), padding=1, layers=2, heads=2,
        head_dim=16, mlp_units=(64, 32), mean=mean, std=std, stochastic_depth_mode="batch",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("paper") / "run"
    recipe = TrainSpec(data="digits", epochs=12, batch=64, learning_rate=3e-3)
    trained = cct_export.train(folder, recipe=recipe, model=spec)
    assert trained.top1 > 0.7
    return folder


@pytest.fixture(scope="module")
def exported(paper_run, in_process, tmp_path_factory):
    """Exports ``paper_run``; returns the file and the record."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(format, scheme):
        path = folder / f"{scheme}.{format}"
        words = ("--quantize", scheme, "--data", "digits", "--samples", 360)
        ended = in_process("export", format, paper_run, *words, "-o", path, "--json", "-")
        assert ended.code == 0, ended.err
        return path, ended.record

    return export


@pytest.mark.slow
@pytest.mark.parametrize(("format", "scheme"), SCHEMES)
def test_every_scheme_of_every_format_passes_parity(exported, format, scheme):
    path, record = exported(format, scheme)
    assert record["parity"]["passed"] is True
    assert record["parity"]["failures"] == []
    assert record["parity"]["decided"] > 250
    assert path.stat().st_size == record["artifact"]["size_bytes"]


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_attention_is_one_product_for_query_key_and_value(exported, format):
    import cct_export

    path, _ = exported(format, "none")
    found = cct_export.inspect(path)
    macs = [operator.macs for operator in found.operators]
    assert macs.count(64 * 32 * (3 * 32)) == 2, "64 tokens of width 32, once per block"


def test_an_onnx_file_takes_any_number_of_images(exported, paper_run, digit_images):
    import onnxruntime

    import cct_export

    path, record = exported("onnx", "none")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = digit_images[0][:33].astype(np.float32)
    wanted = np.asarray(cct_export.load(paper_run).model(images, training=False))
    for size in (1, 2, 33):
        found = session.run(["logits"], {"image": images[:size]})[0]
        assert found.shape == (size, 10)
        np.testing.assert_allclose(found, wanted[:size], atol=2e-4)
    assert record["artifact"]["input"]["shape"] == [None, 32, 32, 3]


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_raw_pixels_go_in_whatever_the_model_does_with_them(exported, format):
    _, record = exported(format, "none")
    wanted = record["artifact"]["input"]
    assert (wanted["range"], wanted["dtype"]) == ([0, 255], "float32")
