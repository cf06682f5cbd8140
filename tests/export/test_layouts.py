"""ONNX files with the channels first: the same logits, in every command."""

from contextlib import closing

import keras
import numpy as np
import onnx
import pytest
from cases.other_classifiers import small
from keras import layers
from PIL import Image

import cct_export
from cct_export.data.sampling import timing_images
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import run

SHAPE = (16, 24, 3)
FEW = {"parity_samples": 64, "calibration_samples": 32}
IMAGES = timing_images(SHAPE, 5)


def planned():
    return small(layers.BatchNormalization(), layers.MaxPooling2D(2), shape=SHAPE)


def traced():
    """A dilated convolution of groups, which no plan has."""
    return small(layers.Conv2D(8, 3, groups=4, dilation_rate=2), shape=SHAPE)


def resized():
    """A model whose first step takes the channels last."""
    return small(front=[layers.Reshape((24, 16, 3)), layers.Rescaling(1 / 255)], shape=SHAPE)


def logits(path, *, trusted=True):
    with closing(engine_of("onnx").open_session(path, trusted=trusted)) as session:
        assert session.layout == ("NCHW" if "nchw" in path.name else "NHWC")
        assert session.image_shape == SHAPE
        return run(session, IMAGES)


def both(model, folder, **options):
    """Returns a file of each layout."""
    return [
        cct_export.export_onnx(
            model, output=folder / f"{layout}.onnx", layout=layout, **FEW, **options
        )
        for layout in ("nhwc", "nchw")
    ]


@pytest.mark.parametrize("build", [planned, traced, resized])
@pytest.mark.parametrize("options", [
    {}, {"scheme": "int8", "io": "uint8"}, {"scheme": "int8-dynamic", "io": "uint8"},
    {"scheme": "int8"}, {"scheme": "int4-weight"}, {"scheme": "fp16"}, {"opset": 13}, {"opset": 23},
    {"dynamic_batch": False, "io": "uint8"},
])  # fmt: skip
def test_channels_first_give_the_logits_of_channels_last(tmp_path, build, options):
    last, first = both(build(), tmp_path, **options)
    assert first.parity.passed, first.parity.failures
    expected, actual = logits(last.artifact.path), logits(first.artifact.path)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("build", [planned, traced])
def test_the_contract_and_the_graph_say_where_the_channels_are(tmp_path, build):
    _, first = both(build(), tmp_path, io="uint8")
    contract = first.artifact.contract
    assert (contract.input.layout, contract.input.shape) == ("NCHW", (None, 3, 16, 24))
    assert contract.image_shape == SHAPE
    graph = onnx.load(first.artifact.path).graph
    sizes = [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert sizes[1:] == [3, 16, 24]
    inspected = cct_export.inspect(first.artifact.path)
    assert not inspected.contradiction


@pytest.mark.parametrize("build", [planned, traced])
@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_no_image_is_transposed_where_a_convolution_is_first(tmp_path, build, scheme):
    _, first = both(build(), tmp_path, scheme=scheme)
    kinds = [node.op_type for node in onnx.load(first.artifact.path).graph.node]
    assert "Transpose" not in kinds[: kinds.index("Conv")]


@pytest.mark.parametrize("build", [planned, traced])
def test_a_file_of_another_tool_with_channels_first_is_understood(tmp_path, build):
    _, first = both(build(), tmp_path)
    expected = logits(first.artifact.path)
    graph = onnx.load(first.artifact.path)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "foreign-nchw.onnx")
    for trusted in (True, False):
        actual = logits(tmp_path / "foreign-nchw.onnx", trusted=trusted)
        np.testing.assert_array_equal(actual, expected)


def test_a_contract_of_the_other_layout_contradicts_the_graph(tmp_path):
    _, first = both(planned(), tmp_path)
    graph = onnx.load(first.artifact.path)
    for entry in graph.metadata_props:
        entry.value = entry.value.replace('"NCHW"', '"NHWC"')
    onnx.save(graph, tmp_path / "nchw-changed.onnx")
    with pytest.raises(InvalidArtifact, match=r"input\.layout is NHWC in the contract"):
        logits(tmp_path / "nchw-changed.onnx")


@pytest.mark.parametrize("width", [1, 3])
def test_images_as_wide_as_they_have_channels_are_refused(tmp_path, width):
    image = keras.Input((16, width, 3))
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(image)))
    with pytest.raises(InvalidRequest, match=rf"{width} wide.*leave --layout nchw out"):
        cct_export.export_onnx(model, output=tmp_path / "m.onnx", layout="nchw", **FEW)
    assert list(tmp_path.iterdir()) == []


def test_verify_predict_and_bench_take_a_file_with_channels_first(tmp_path, in_process):
    planned().save(tmp_path / "m.keras")
    few = ("--parity-samples", 64, "--calibration-samples", 32)
    for layout in ("NHWC", "NCHW"):
        path = tmp_path / f"{layout}.onnx"
        ended = in_process(
            "export", "onnx", tmp_path / "m.keras", "--layout", layout, "-o", path, *few
        )
        assert ended.code == 0, ended.err
    picture = tmp_path / "picture.png"
    Image.fromarray(IMAGES[0]).save(picture)
    last, first = [
        cct_export.predict(tmp_path / f"{layout}.onnx", images=[picture])[0]
        for layout in ("NHWC", "NCHW")
    ]
    assert [label for label, _ in first.top] == [label for label, _ in last.top]
    assert cct_export.verify(path, against=tmp_path / "m.keras", samples=64).passed
    (result,) = cct_export.benchmark("onnx", sources=path, repeats=1, min_runs=3, min_s=0.05)
    assert result.parity.passed
