"""``--data x.npz``."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from malformed_npz import npy

from cct_export import data
from cct_export.data.dataset import checked_labels
from cct_export.errors import InvalidData

SHAPE = (5, 4, 3)


def _arrays(**changes):
    pixels = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), np.uint8)
    arrays = {
        "x_train": pixels,
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": pixels[:2],
        "y_test": np.array([2, 1]),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def _saved(folder, **changes):
    path = folder / "a.npz"
    np.savez(path, **_arrays(**changes))
    return str(path)


def test_arrays_are_read_as_they_were_saved(tmp_path):
    dataset = data.read(_saved(tmp_path), SHAPE)
    arrays = _arrays()
    assert np.array_equal(dataset.train.images([5, 0]), arrays["x_train"][[5, 0]])
    assert np.array_equal(dataset.test.images([1]), arrays["x_test"][[1]])
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.test.labels.tolist() == [2, 1]
    assert dataset.classes == ("0", "1", "2")


def test_classes_are_counted_over_both_splits(tmp_path):
    dataset = data.read(_saved(tmp_path, y_test=np.array([4, 0])), SHAPE)
    assert dataset.classes == ("0", "1", "2", "3", "4")


def test_class_names_are_read(tmp_path):
    dataset = data.read(_saved(tmp_path, classes=np.array(["ä", "b", "c", "d"])), SHAPE)
    assert dataset.classes == ("ä", "b", "c", "d")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_be_a_column_as_in_cifar10(tmp_path, dtype):
    column = np.array([[0], [1], [2], [0], [1], [2]], dtype)
    dataset = data.read(_saved(tmp_path, y_train=column), SHAPE)
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.train.labels.dtype == np.int64


def test_grey_images_need_no_channel_axis(tmp_path):
    pixels = np.arange(40, dtype=np.uint8).reshape(2, 5, 4)
    path = _saved(
        tmp_path, x_train=pixels, x_test=pixels, y_train=np.array([0, 1]), y_test=np.array([0, 1])
    )
    assert np.array_equal(data.read(path, (5, 4, 1)).train.images([1])[..., 0], pixels[[1]])


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named(tmp_path, key):
    with pytest.raises(InvalidData, match=rf"a\.npz: no {key} in it"):
        data.read(_saved(tmp_path, **{key: None}), SHAPE)


INVALID = {
    "float images": ({"x_train": np.zeros((6, *SHAPE), np.float32)}, "x_train: .*uint8.*float32"),
    "another size": ({"x_test": np.zeros((2, 4, 4, 3), np.uint8)}, r"x_test: .*\(2, 4, 4, 3\)"),
    "channels first": ({"x_test": np.zeros((2, 3, 5, 4), np.uint8)}, r"x_test: .*\(2, 3, 5, 4\)"),
    "flat images": ({"x_train": np.zeros((6, 60), np.uint8)}, r"x_train: .*\(6, 60\)"),
    "no images": ({"x_test": np.zeros((0, *SHAPE), np.uint8)}, "x_test: it holds no images"),
    "float labels": ({"y_train": np.zeros(6)}, "y_train: labels must be integers.*float64"),
    "text labels": ({"y_train": np.array(["0"] * 6)}, "y_train: labels must be integers"),
    "one-hot labels": ({"y_train": np.eye(6, dtype=int)}, r"y_train: labels .*\(6, 6\)"),
    "huge label": ({"y_test": np.array([0, 10**9])}, "label 1000000000 is out of range"),
    "huge unsigned label": (
        {"y_test": np.array([0, 2**63], np.uint64)},
        "label 9223372036854775808 is out of range",
    ),
    "negative label": ({"y_test": np.array([0, -1])}, "y_test: label -1 is out of range"),
    "too few labels": ({"y_test": np.array([0])}, "y_test: 1 labels for 2 images"),
    "a number as label": ({"y_test": np.array(1)}, "y_test: labels must be integers"),
    "label too high": (
        {"classes": np.array(["a", "b"])},
        "y_train: label 2 is out of range: there are 2 classes",
    ),
    "one string as classes": ({"classes": np.array("abc")}, "classes"),
    "a table as classes": ({"classes": np.array([["a", "b", "c"]])}, "classes"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_arrays_are_refused_with_file_key_and_reason(tmp_path, case):
    changes, message = INVALID[case]
    with pytest.raises(InvalidData, match=rf"a\.npz.*{message}"):
        data.read(_saved(tmp_path, **changes), SHAPE)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("key", ["x_train", "y_test", "classes"])
def test_a_pickled_object_is_refused_and_never_executed(tmp_path, key):
    marker = tmp_path / "executed"
    path = _saved(tmp_path, **{key: np.array([Payload(marker)] * 6, object)})
    with pytest.raises(InvalidData, match=r"a\.npz cannot be read"):
        data.read(path, SHAPE)
    assert not marker.exists()
    np.load(path, allow_pickle=True)[key]
    assert marker.exists(), "the payload of this test does nothing"


@pytest.mark.parametrize("part", [0, 0.3, 0.95])
def test_a_truncated_file_is_refused(tmp_path, part):
    path = Path(_saved(tmp_path))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(InvalidData, match=r"a\.npz cannot be read"):
        data.read(str(path), SHAPE)


def test_other_kinds_of_files_are_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        for key in _arrays():
            archive.writestr(key, b"not an array")
    for name in ("array.npy", "text.npz", "zip.npz"):
        with pytest.raises(InvalidData, match=rf"{name} cannot be read"):
            data.read(str(tmp_path / name), SHAPE)


def _bytes(save):
    buffer = io.BytesIO()
    save(buffer, **_arrays(classes=np.array(["a", "b", "c"])))
    return buffer.getvalue()


STORED, COMPRESSED = _bytes(np.savez), _bytes(np.savez_compressed)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "damaged.npz"


@settings(deadline=None, max_examples=250)
@given(
    content=st.sampled_from([STORED, COMPRESSED]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_a_damaged_file_is_read_or_refused_and_never_crashes(scratch, content, changes):
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    scratch.write_bytes(damaged)
    try:
        dataset = data.read(str(scratch), SHAPE)
    except InvalidData as error:
        assert "damaged.npz" in str(error)
    else:
        assert len(dataset.train.labels) == len(dataset.train.images(range(6)))


def test_damaged_compression_is_refused(scratch):
    place = COMPRESSED.index(b"PK", 30) - 200
    damaged = COMPRESSED[:place] + b"\xff" * 100 + COMPRESSED[place + 100 :]
    scratch.write_bytes(damaged)
    with pytest.raises(InvalidData, match=r"damaged\.npz cannot be read"):
        data.read(str(scratch), SHAPE)


@given(
    labels=npst.arrays(
        st.sampled_from([np.int8, np.uint8, np.int64]),
        st.integers(0, 8),
        elements=st.integers(0, 12),
    ),
    classes=st.none() | st.integers(1, 12),
    shift=st.integers(-2, 0),
)
def test_labels_pass_unchanged_exactly_if_all_are_in_range(labels, classes, shift):
    labels = labels.astype(np.int64) + shift
    in_range = all(0 <= label < (classes or 100) for label in labels.tolist())
    if in_range:
        assert checked_labels(labels, len(labels), classes, "f").tolist() == labels.tolist()
    else:
        with pytest.raises(InvalidData, match="out of range"):
            checked_labels(labels, len(labels), classes, "f")


def _hostile(folder, **members):
    """Returns a file in which some arrays are replaced by bytes of any kind."""
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in _arrays(classes=np.array(["a", "b", "c"])).items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{key}.npy", members.get(key, file.getvalue()))
    return str(path)


@pytest.mark.parametrize("key", ["x_train", "y_test", "classes"])
def test_an_array_that_declares_far_more_than_it_holds_is_refused(tmp_path, key):
    with pytest.raises(InvalidData, match=r"a\.npz cannot be read as \.npz: .*claims to hold"):
        data.read(_hostile(tmp_path, **{key: npy("<U0", (10**18,))}), SHAPE)


@pytest.mark.parametrize(
    ("descr", "content"),
    [
        ("<U1", b"\xff\xff\xff\xff" * 3),
        ("|S1", b"abc"),
        ("<f8", bytes(24)),
        ([("a", "<i4")], bytes(12)),
        ("<M8[s]", bytes(24)),
    ],
)
def test_class_names_that_are_no_text_are_refused(tmp_path, descr, content):
    with pytest.raises(InvalidData, match=r"a\.npz classes"):
        data.read(_hostile(tmp_path, classes=npy(descr, (3,), content)), SHAPE)


def test_arrays_in_fortran_order_are_read(tmp_path):
    arrays = _arrays()
    path = _saved(tmp_path, x_train=np.asfortranarray(arrays["x_train"]))
    assert np.array_equal(data.read(path, SHAPE).train.images([5, 0]), arrays["x_train"][[5, 0]])
