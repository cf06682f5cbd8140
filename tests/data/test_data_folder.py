"""``--data folder``: class folders with PNG or JPEG files."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cct_export import data
from cct_export.data.folder import images_below
from cct_export.errors import InvalidData, InvalidRequest

RGB = (4, 4, 3)


def _put(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


def _one_colour(value, size=4):
    return np.full((size, size, 3), value, np.uint8)


def _class_folders(root, per_class, classes=("cat", "dog")):
    """Makes class folders; image ``i`` has the colour ``i``."""
    for position, name in enumerate(classes):
        for index in range(per_class):
            value = position * per_class + index
            _put(root / name / f"{value:03}.png", _one_colour(value))


def _values(split):
    """Returns the colour of every image of ``_class_folders`` in a split."""
    return split.images(range(len(split.labels)))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("second", ["test", "val"])
def test_train_and_test_folders_become_the_two_splits(tmp_path, second):
    _class_folders(tmp_path / "train", 3)
    _class_folders(tmp_path / second, 2)
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert _values(dataset.train) == [0, 1, 2, 3, 4, 5]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert _values(dataset.test) == [0, 1, 2, 3]
    assert dataset.train.labels.dtype == np.int64


def test_test_is_preferred_to_val_where_both_exist(tmp_path):
    _class_folders(tmp_path / "train", 3)
    _class_folders(tmp_path / "test", 2)
    _class_folders(tmp_path / "val", 1)
    assert len(data.read(str(tmp_path), RGB).test.labels) == 4


def test_a_test_label_is_the_index_of_the_training_class(tmp_path):
    _class_folders(tmp_path / "train", 2, ("ant", "bee", "cow"))
    _class_folders(tmp_path / "test", 2, ("cow",))
    assert data.read(str(tmp_path), RGB).test.labels.tolist() == [2, 2]


def test_class_folders_alone_are_split_ninety_to_ten(tmp_path):
    _class_folders(tmp_path, 20)
    dataset = data.read(str(tmp_path), RGB)
    train, test = _values(dataset.train), _values(dataset.test)
    assert (len(train), len(test)) == (36, 4)
    assert sorted(train + test) == list(range(40))
    for split, values in ((dataset.train, train), (dataset.test, test)):
        assert split.labels.tolist() == [value // 20 for value in values]


def test_the_split_of_class_folders_is_always_the_same(tmp_path):
    _class_folders(tmp_path / "a", 20)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    first = data.read(str(tmp_path / "a"), RGB)
    second = data.read(str(tmp_path / "elsewhere"), RGB)
    assert _values(first.test) == _values(second.test)
    assert _values(first.test) != list(range(4))


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.JPG"])
def test_png_and_jpeg_suffixes_are_read_in_any_case(tmp_path, name):
    _put(tmp_path / "train/x" / name, _one_colour(90))
    _put(tmp_path / "test/x" / name, _one_colour(90))
    (tmp_path / "train/x/notes.txt").write_text("no image")
    dataset = data.read(str(tmp_path), RGB)
    assert np.abs(dataset.train.images([0]).astype(int) - 90).max() <= 2
    assert len(dataset.train.labels) == 1


def test_resizing_is_logged_once_with_both_sizes(tmp_path, caplog):
    for name in "ab":
        _put(tmp_path / "train/x" / f"{name}.png", np.zeros((6, 5, 3)))
        _put(tmp_path / "test/x" / f"{name}.png", _one_colour(1))
    dataset = data.read(str(tmp_path), RGB)
    with caplog.at_level("INFO", logger="cct_export"):
        dataset.test.images([0, 1])
        assert not caplog.messages
        dataset.train.images([0, 1])
        dataset.train.images([1])
    (note,) = caplog.messages
    assert "5×6" in note
    assert "4×4 (bilinear, with antialiasing" in note
    assert "a.png" in note


def test_mixed_sizes_are_logged_once_with_their_number(tmp_path, caplog):
    for index, size in enumerate([4, 6, 8, 6]):
        for part in ("train", "test"):
            _put(tmp_path / part / "x" / f"{index}.png", _one_colour(index, size))
    train = data.read(str(tmp_path), RGB).train
    with caplog.at_level("INFO", logger="cct_export"):
        assert train.images([0, 1, 2, 3])[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
        train.images([3])
    (note,) = caplog.messages
    assert "1.png is 6×6, the first 4 images have 3 sizes: images are resized to 4×4" in note


def test_other_files_are_left_out_and_counted(tmp_path, caplog):
    _class_folders(tmp_path, 3)
    for name in ("a.gif", "notes.txt", "b.svg"):
        (tmp_path / "dog" / name).write_text("something")
    with caplog.at_level("INFO", logger="cct_export"):
        dataset = data.read(str(tmp_path), RGB)
    assert len(dataset.train.labels) + len(dataset.test.labels) == 6
    (note,) = caplog.messages
    assert "left out 3 files that are no images: dog/a.gif …" in note


@pytest.mark.parametrize("other", ["test", "val", "valid", "validation"])
def test_any_usual_name_of_the_folder_beside_train_is_taken(tmp_path, other):
    _put(tmp_path / "train" / "x" / "a.png", _one_colour(1))
    _put(tmp_path / other / "x" / "a.png", _one_colour(2))
    test = data.read(str(tmp_path), RGB).test
    assert test.images([0])[0, 0, 0].tolist() == [2, 2, 2]


def test_of_train_valid_and_test_the_test_images_are_tested_on(tmp_path, caplog):
    caplog.set_level("INFO", logger="cct_export")
    for value, part in enumerate(("train", "valid", "test")):
        _put(tmp_path / part / "x" / "a.png", _one_colour(value))
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.train.images([0]).max() == 0
    assert dataset.test.images([0]).min() == 2
    assert any(f"{tmp_path / 'valid'} is not used" in message for message in caplog.messages)


def test_a_folder_with_one_class_is_read(tmp_path):
    _class_folders(tmp_path, 4, ("cat",))
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("cat",)
    assert set(dataset.train.labels.tolist()) == {0}


@pytest.mark.parametrize("content", [b"", b"not an image", "half a png", "half a jpeg"])
def test_an_unreadable_image_is_named(tmp_path, content):
    if isinstance(content, str):
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(buffer, content.split()[-1])
        content = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    _class_folders(tmp_path, 2)
    (tmp_path / "cat/broken.png").write_bytes(content)
    dataset = data.read(str(tmp_path), RGB)
    with pytest.raises(InvalidData, match=r"broken\.png"):
        for split in (dataset.train, dataset.test):
            split.images(range(len(split.labels)))


def test_an_image_that_vanished_is_named(tmp_path):
    _class_folders(tmp_path, 2)
    dataset = data.read(str(tmp_path), RGB)
    shutil.rmtree(tmp_path / "cat")
    with pytest.raises(InvalidData, match=r"no such image: .*cat"):
        dataset.train.images(range(len(dataset.train.labels)))


def test_a_folder_without_images_is_refused_with_what_it_needs(tmp_path):
    with pytest.raises(InvalidData, match="needs class folders"):
        data.read(str(tmp_path), RGB)
    _put(tmp_path / "loose.png", _one_colour(1))
    with pytest.raises(InvalidData, match="needs class folders"):
        data.read(str(tmp_path), RGB)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_train_or_test_folder_is_named(tmp_path, part):
    for name in ("train", "test"):
        _class_folders(tmp_path / name, 1)
    shutil.rmtree(tmp_path / part)
    (tmp_path / part).mkdir()
    with pytest.raises(InvalidData, match=f"{part}: no images in it"):
        data.read(str(tmp_path), RGB)


def test_a_single_image_cannot_be_split(tmp_path):
    _class_folders(tmp_path, 1, ("cat",))
    with pytest.raises(InvalidData, match="one image"):
        data.read(str(tmp_path), RGB)


def test_a_test_class_that_training_lacks_is_named(tmp_path):
    _class_folders(tmp_path / "train", 2, ("cat", "dog"))
    _class_folders(tmp_path / "test", 2, ("cat", "emu"))
    with pytest.raises(InvalidData, match="'emu'"):
        data.read(str(tmp_path), RGB)


def test_a_train_folder_alone_is_refused(tmp_path):
    _class_folders(tmp_path / "train", 2)
    with pytest.raises(InvalidData, match="no test/, val/ or valid/"):
        data.read(str(tmp_path), RGB)


@pytest.mark.parametrize(
    "parts", [("test", "valid"), ("test",), ("Train", "Test"), ("training", "val")]
)
def test_splits_without_training_images_are_no_classes(tmp_path, parts):
    for part in parts:
        _class_folders(tmp_path / part, 2)
    with pytest.raises(InvalidData, match="but no train/: ") as refused:
        data.read(str(tmp_path), RGB)
    assert f"there is {' and '.join(f'{part}/' for part in sorted(parts))}" in str(refused.value)


@pytest.mark.parametrize("part", ["", "train"])
def test_pictures_outside_of_class_folders_are_said_to_be(tmp_path, part):
    for name in ("0.png", "1.png"):
        _put(tmp_path / part / name, _one_colour(1))
    if part:
        _class_folders(tmp_path / "test", 1)
    with pytest.raises(
        InvalidData, match="2 images outside of class folders: it needs class folders"
    ):
        data.read(str(tmp_path), RGB)


def test_a_missing_path_is_refused_with_what_data_takes(tmp_path):
    with pytest.raises(InvalidRequest, match=r"no such data: .*nothing.*cifar10, cifar100, digits"):
        data.read(str(tmp_path / "nothing"), RGB)
    assert not data.is_available(str(tmp_path / "nothing"))
    assert data.is_available(str(tmp_path))


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_the_name_of_a_reader_is_not_a_data_set(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match="no such data"):
        data.read(name, RGB)
    assert not data.is_available(name)


def test_hidden_files_and_folders_are_ignored(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog", ".ipynb_checkpoints"):
            _put(tmp_path / split / name / "1.png", _one_colour(1))
        _put(tmp_path / split / "cat" / "._1.png", _one_colour(1))
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.train.labels) == len(dataset.test.labels) == 2


def test_a_class_without_images_is_refused_by_name(tmp_path):
    for split in ("train", "test"):
        _put(tmp_path / split / "cat" / "1.png", _one_colour(1))
        (tmp_path / split / "dog").mkdir()
    with pytest.raises(InvalidData, match=r"dog: no image in it"):
        data.read(str(tmp_path), RGB)


def test_links_that_lead_nowhere_or_in_a_circle_are_ignored(tmp_path):
    _class_folders(tmp_path, 2, ("cat", "dog"))
    for name in ("loop", "loop.png"):
        (tmp_path / name).symlink_to(name)
        (tmp_path / "cat" / name).symlink_to(name)
    (tmp_path / "gone").symlink_to("nowhere")
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.train.labels) + len(dataset.test.labels) == 4
    assert len(images_below(tmp_path)) == 4


def test_a_class_folder_whose_name_is_not_utf8_is_refused_before_training(tmp_path):
    _class_folders(tmp_path, 2, ("cat", os.fsdecode(b"dog\xff")))
    with pytest.raises(InvalidData, match=r"the class 'dog\\udcff' is no text in UTF-8: rename it"):
        data.read(str(tmp_path), RGB)
