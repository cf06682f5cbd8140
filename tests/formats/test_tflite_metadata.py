"""Standard metadata of TFLite files: what MediaPipe reads is also run in tests/system."""

import io
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from cct_export.formats import tflite_metadata
from cct_export.records.artifact import Contract

COLOUR = Contract(format="tflite", source="m.keras", image_shape=(8, 8, 3), labels=("cat", "dög"))


def _root(content):
    assert content[4:8] == b"M001"
    return Table(bytearray(content), encode.Get(number_types.UOffsetTFlags.packer_type, content, 0))


def _offset(table, number):
    return table.Offset(4 + 2 * number)


def _child(table, number, index=None):
    """Returns the table in a field, or that at an index of the vector in it."""
    at = table.Pos + _offset(table, number)
    if index is None:
        return Table(table.Bytes, table.Indirect(at))
    return Table(table.Bytes, table.Indirect(table.Vector(_offset(table, number)) + 4 * index))


def _text(table, number):
    return table.String(table.Pos + _offset(table, number)).decode()


def _byte(table, number):
    return table.Get(number_types.Uint8Flags, table.Pos + _offset(table, number))


def _floats(table, number):
    vector, size = table.Vector(_offset(table, number)), table.VectorLen(_offset(table, number))
    return [table.Get(number_types.Float32Flags, vector + 4 * i) for i in range(size)]


@pytest.mark.parametrize(("channels", "colours"), [(3, 1), (1, 2)])
def test_the_input_is_an_image_of_raw_pixels(channels, colours):
    contract = Contract(source="m", image_shape=(8, 8, channels))
    graph = _child(_root(tflite_metadata.metadata(contract)), 3, 0)
    image = _child(graph, 2, 0)
    content, unit = _child(image, 3), _child(image, 4, 0)
    assert _byte(content, 0) == 2  # ImageProperties
    assert _byte(_child(content, 1), 0) == colours
    assert _byte(unit, 0) == 1  # NormalizationOptions
    assert (_floats(_child(unit, 1), 0), _floats(_child(unit, 1), 1)) == ([0.0], [1.0])


def test_the_output_names_the_label_file():
    scores = _child(_child(_root(tflite_metadata.metadata(COLOUR)), 3, 0), 3, 0)
    file = _child(scores, 6, 0)
    assert (_text(file, 0), _byte(file, 2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def test_without_labels_there_is_no_label_file():
    contract = Contract(source="m", image_shape=(8, 8, 3))
    scores = _child(_child(_root(tflite_metadata.metadata(contract)), 3, 0), 3, 0)
    assert _offset(scores, 6) == 0
    assert tflite_metadata.with_labels(b"model", ()) == b"model"


def test_labels_follow_the_model_as_a_zip_archive_with_a_line_each():
    content = tflite_metadata.with_labels(b"model", ["cat", "two\nlines", "dög"])
    assert content.startswith(b"model")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode() == "cat\ntwo lines\ndög\n"


def test_a_path_that_is_no_text_does_not_stop_an_export():
    tflite_metadata.metadata(Contract(source="m\udcff.keras", image_shape=(8, 8, 3)))


@pytest.mark.parametrize("scheme", ["none", "int8", "int8-full"])
def test_an_exported_file_has_both_and_runs(exports, digit_images, scheme):
    path = exports("tflite", scheme, "uint8").path
    model = flatbuffer_utils.read_model(str(path))
    entries = {entry.name.decode(): entry.buffer for entry in model.metadata}
    _root(bytes(model.buffers[entries["TFLITE_METADATA"]].data))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split() == list("0123456789")
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(image["index"], digit_images[0][:1])
    interpreter.invoke()
    assert np.ptp(interpreter.get_tensor(logits["index"])) > 0
