"""ONNX files that cannot be: refused in one line by what parses them and by what runs them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cct_export
from cct_export.errors import InvalidArtifact
from cct_export.runtimes import onnxruntime as engine


@pytest.fixture
def model():
    """A quantized graph of one image, small enough to be changed by hand."""
    constants = {"scale": np.float32([0.5] * 3), "zero": np.int8([0] * 3), "size": np.int64([1, 3])}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=3),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], axis=3),
            helper.make_node("Reshape", ["d", "size"], ["y"]),
        ],
        "malformed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.fixture
def refused(tmp_path):
    """Returns what is said about a file, by the inspection and by ONNX Runtime."""

    def read(content):
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        lines = []
        for reader in (cct_export.inspect, engine.open_session):
            with pytest.raises(InvalidArtifact, match=r"m\.onnx") as error:
                reader(path)
            lines.append(str(error.value))
        return lines

    return read


def test_the_graph_of_these_tests_is_read(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    assert len(cct_export.inspect(tmp_path / "m.onnx").operators) == 3
    assert engine.open_session(tmp_path / "m.onnx").image_shape == (1, 1, 3)


EXTERNAL = {
    "a negative offset": {"location": "w.bin", "offset": "-4"},
    "a negative length": {"location": "w.bin", "length": "-4"},
    "an offset beyond the file": {"location": "w.bin", "offset": "999999999999999999999999"},
    "a length beyond the file": {"location": "w.bin", "length": "999999999999"},
    "a length of other tensors": {"location": "w.bin", "length": "3"},
    "an offset that is no number": {"location": "w.bin", "offset": "x"},
    "no location": {"offset": "0"},
    "a file that is missing": {"location": "missing.bin"},
    "a folder": {"location": "."},
    "a device": {"location": "/dev/zero"},
    "a file of the folder above": {"location": "../w.bin"},
    "a link that leaves the folder": {"location": "link.bin"},
}


@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data_that_is_not_there_or_not_in_the_folder_is_refused(
    model, refused, tmp_path, case
):
    for folder in (tmp_path, tmp_path.parent):
        (folder / "w.bin").write_bytes(bytes(64))
    (tmp_path / "link.bin").symlink_to("../w.bin")
    scale = model.graph.initializer[0]
    scale.ClearField("raw_data")
    scale.data_location = TensorProto.EXTERNAL
    for key, value in EXTERNAL[case].items():
        entry = scale.external_data.add()
        entry.key, entry.value = key, value
    refused(model.SerializeToString())


def _shorter(tensor):
    tensor.raw_data = tensor.raw_data[:-3]


def _longer(tensor):
    tensor.raw_data += b"\0"


def _unknown_type(tensor):
    tensor.data_type = 99


def _float8(tensor):
    tensor.data_type = TensorProto.FLOAT8E4M3FN


def _text(tensor):
    tensor.data_type = TensorProto.STRING


def _negative(tensor):
    tensor.dims[0] = -4


def _vast(tensor):
    tensor.dims[0] = 1 << 62


CHANGES = [_shorter, _longer, _unknown_type, _float8, _text, _negative, _vast]


@pytest.mark.parametrize("change", CHANGES)
def test_a_scale_that_cannot_be_is_refused(model, refused, change):
    change(model.graph.initializer[0])
    refused(model.SerializeToString())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [1, 2])
def test_another_tensor_that_cannot_be_is_refused_or_left_alone(model, tmp_path, change, number):
    change(model.graph.initializer[number])
    _refuse_or_read(tmp_path / "m.onnx", model.SerializeToString())


def test_a_type_that_numpy_lacks_is_named(model, refused):
    _unknown_type(model.graph.initializer[0])
    assert "it has a tensor of type 99" in refused(model.SerializeToString())[0]


def test_metadata_that_is_not_utf8_is_refused(model, refused):
    entry = model.metadata_props.add()
    entry.key, entry.value = "cct_export.json", '{"format": "onnx"}'
    content = model.SerializeToString()
    for line in refused(content.replace(b'"onnx"', b'"on\xff\xfe"')):
        assert line.endswith("it is no text in UTF-8")


def test_names_that_are_not_utf8_are_refused_or_read(model, tmp_path):
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    content = model.SerializeToString().replace(b"image", b"im\xff\xfee")
    assert _refuse_or_read(tmp_path / "m.onnx", content) > 0


def _refuse_or_read(path, content):
    """Returns how many readers refuse a file; they raise nothing else."""
    path.write_bytes(content)
    refusals = 0
    for reader in (cct_export.inspect, engine.open_session):
        try:
            reader(path)
        except InvalidArtifact as error:
            assert "m.onnx" in str(error)
            refusals += 1
    return refusals
