"""Checkpoints that anyone may have written: each ends in one line, whatever its library raises."""

import json
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest
from state_dicts import state_dict, write_safetensors

from cct_export.errors import InvalidModel
from cct_export.importers.source import load_model
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec


def _refused(path):
    """Returns the line that refuses a file."""
    with pytest.raises(InvalidModel) as error:
        load_model(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def archive(tmp_path):
    """Writes a ``.keras`` file of a small CCT in which some members are replaced."""
    spec = ModelSpec(
        name="tiny", filters=(4, 8), layers=1, heads=1, head_dim=8, mlp_units=(8, 8), classes=3
    )
    path = tmp_path / "m.keras"
    checkpoint.save(CCT(spec), path)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}

    def write(**changes):
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name, changes.get(name.replace(".", "_"), content))
        return path

    return write


CONFIGURATIONS = {
    "a list": b"[]",
    "a number": b"7",
    "nothing": b"",
    "no UTF-8": b'{"config": "\xff\xfe"}',
    "nested too deeply": b"[" * 100_000,
    "layers of text": b'{"config": {"layers": ["a", "b"]}}',
    "layers of numbers": b'{"config": {"layers": [1, null]}}',
    "layers without a class": b'{"config": {"layers": [{"registered_name": 1}]}}',
    "layers that are a number": b'{"config": {"layers": 3}}',
    "a configuration of text": b'{"config": "layers"}',
    "a number of 5,000 digits": b'{"config": ' + b"9" * 5000 + b"}",
    "an example without connections": json.dumps(
        {"config": {"layers": [{"class_name": "CCTTokenizer", "config": {}}]}}
    ).encode(),
    "an example with settings of text": json.dumps(
        {"config": {"layers": [{"class_name": "CCTTokenizer", "config": "x"}]}}
    ).encode(),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration_that_keras_does_not_write_is_refused(archive, case):
    assert "m.keras" in _refused(archive(config_json=CONFIGURATIONS[case]))


def test_the_archive_of_these_tests_is_read(archive):
    assert load_model(str(archive())).classes == 3


def _edited(path, edit):
    """Returns the bytes of an HDF5 file after a change."""
    with h5py.File(path, "a") as file:
        edit(file)
    return path.read_bytes()


def _vast(file):
    file.create_dataset("vast", (10**10,), np.float32, chunks=(1024,), compression="gzip")


def _wide(file):
    file.create_dataset("wide", (1,), "S1000000000", chunks=(1,), compression="gzip")


def _text(file):
    file.create_dataset("text", (2,), h5py.string_dtype())


def _empty(file):
    file["empty"] = h5py.Empty("f4")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_vast, "claims to hold 40,000,0"),
        (_wide, "holds no numbers"),
        (_text, "holds no numbers"),
        (_empty, "holds no numbers"),
    ],
)
def test_weights_that_are_vast_or_no_numbers_are_refused_before_they_are_read(
    archive, tmp_path, edit, reason
):
    weights = tmp_path / "x.weights.h5"
    with zipfile.ZipFile(archive()) as whole:
        weights.write_bytes(whole.read("model.weights.h5"))
    content = _edited(weights, edit)
    assert reason in _refused(archive(model_weights_h5=content))
    assert reason in _refused(weights)


def _safetensors(path, header, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + bytes(16))
    return path


def _tensor(**changes):
    return {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes}


HEADERS = {
    "a header longer than the file": (_tensor(), 2**63),
    "a header of 2^64 - 1 bytes": (_tensor(), 2**64 - 1),
    "an empty header": (b"", 0),
    "no JSON": (b"{" * 50, None),
    "no UTF-8": (b'{"\xff": 1}', None),
    "nested too deeply": (b'{"x":' * 20_000, None),
    "a list": (b"[]", None),
    "a tensor that is a number": (b'{"x": 7}', None),
    "an unknown type": (_tensor(dtype="F7"), None),
    "a type of 8 bits that numpy lacks": (_tensor(dtype="F8_E4M3", shape=[16]), None),
    "a type of 4 bits": (_tensor(dtype="F4", shape=[32]), None),
    "a negative size": (_tensor(shape=[-4]), None),
    "2^62 elements": (_tensor(shape=[2**62]), None),
    "sizes beyond 64 bits": (_tensor(shape=[2**63, 2**63]), None),
    "offsets beyond the file": (_tensor(data_offsets=[0, 2**40]), None),
    "offsets backwards": (_tensor(data_offsets=[16, 0]), None),
    "offsets of text": (_tensor(data_offsets=["0", "16"]), None),
    "no offsets": ({"x": {"dtype": "F32", "shape": [4]}}, None),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_of_safetensors_that_cannot_be_is_refused(tmp_path, case):
    assert "m.safetensors" in _refused(_safetensors(tmp_path / "m.safetensors", *HEADERS[case]))


@pytest.mark.parametrize("part", [0, 7, 8, 200, -1])
def test_a_truncated_safetensors_file_is_refused(tmp_path, part):
    path = write_safetensors(tmp_path / "m.safetensors", state_dict())
    path.write_bytes(path.read_bytes()[:part])
    assert "not a readable .safetensors file" in _refused(path)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """The files of a SavedModel that Keras did not write."""
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self):
            self.kernel = tf.Variable(tf.ones((3, 3, 3, 2)))
            self.trainable_variables_ = [self.kernel]

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="image")])
        def __call__(self, image):
            return tf.reduce_mean(tf.nn.conv2d(image, self.kernel, 1, "SAME"), [1, 2])

    folder, module = tmp_path_factory.mktemp("saved"), Module()
    signature = module.__call__.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def _write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
def test_a_saved_model_that_is_truncated_is_refused(saved_model, tmp_path, name, share):
    content = saved_model[name]
    part = content[: int(share * len(content))]
    assert str(tmp_path) in _refused(_write(tmp_path, saved_model | {name: part}))


def test_a_constant_that_one_number_makes_vast_is_refused_before_it_is_made(saved_model, tmp_path):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString(saved_model["saved_model.pb"])
    node = saved.meta_graphs[0].graph_def.node.add(name="vast", op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = 1
    tensor.float_val.append(1.0)
    for _ in range(2):
        tensor.tensor_shape.dim.add(size=1 << 20)
    files = saved_model | {"saved_model.pb": saved.SerializeToString()}
    assert "claims to hold 4,398,046,511," in _refused(_write(tmp_path, files))


def test_keras_itself_reads_the_weights_that_pass(archive):
    keras.saving.load_model(archive(), compile=False)
