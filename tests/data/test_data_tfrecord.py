"""``--data folder`` with TFRecord shards, written by TensorFlow's own writer."""

import gzip
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from shards import encoded, example, imagenet, png, write

from cct_export import data
from cct_export.errors import InvalidData

RGB = (4, 4, 3)


def _values(split):
    """Returns the colour of every single-colour image."""
    return split.images(range(len(split.labels)))[:, 0, 0, 0].tolist()


def _imagenet(root, train="train-{:05}-of-00002", test="validation-00000-of-00001"):
    """Makes shards of 3 and 2 training and 2 test images; image ``i`` has the colour ``i``."""
    write(root / train.format(0), [imagenet(png(i), 1 + i % 2, b"cat dog".split()[i % 2])
                                   for i in range(3)])  # fmt: skip
    write(root / train.format(1), [imagenet(png(i), 3, b"emu") for i in (3, 4)])
    write(root / test, [imagenet(png(10), 3), imagenet(png(11), 1)])
    return str(root)


def test_shards_become_the_two_splits_in_the_order_of_their_records(tmp_path):
    dataset = data.read(_imagenet(tmp_path), RGB)
    assert _values(dataset.train) == [0, 1, 2, 3, 4]
    assert _values(dataset.test) == [10, 11]
    assert dataset.train.labels.tolist() == [0, 1, 0, 2, 2]
    assert dataset.test.labels.tolist() == [2, 0]
    assert dataset.train.labels.dtype == np.int64
    assert dataset.classes == ("cat", "dog", "emu")


def test_images_are_read_in_any_order_and_repeatedly(tmp_path):
    train = data.read(_imagenet(tmp_path), RGB).train
    assert train.images([4, 0, 3, 0])[:, 0, 0, 0].tolist() == [4, 0, 3, 0]
    assert train.images(np.array([], np.int64)).shape == (0, *RGB)


def test_a_record_gives_the_same_pixels_as_an_image_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
    images = [encoded(noise[0], "JPEG"), encoded(noise[1])]
    for part in ("train", "val"):
        write(tmp_path / f"shards/{part}.tfrecord", [imagenet(p, 1) for p in images])
        (tmp_path / f"files/{part}/0").mkdir(parents=True)
        for name, image in zip(("a.jpg", "b.png"), images, strict=True):
            (tmp_path / f"files/{part}/0/{name}").write_bytes(image)
    ours, files = (data.read(str(tmp_path / kind), RGB) for kind in ("shards", "files"))
    assert np.array_equal(ours.train.images([0, 1]), files.train.images([0, 1]))
    assert np.array_equal(ours.test.images([1, 0]), files.test.images([1, 0]))


def test_labels_from_one_become_labels_from_zero_with_a_log_line(tmp_path, caplog):
    with caplog.at_level("INFO", logger="cct_export"):
        dataset = data.read(_imagenet(tmp_path), RGB)
    assert dataset.train.labels.min() == 0
    assert any("no image has label 0" in line and "0 to 2" in line for line in caplog.messages)


@pytest.mark.parametrize("label", [0, 1])
def test_labels_from_zero_stay_even_if_only_test_images_have_a_zero(tmp_path, caplog, label):
    write(tmp_path / "train.tfrecord", [imagenet(png(0), label), imagenet(png(1), 1)])
    write(tmp_path / "test.tfrecord", [imagenet(png(2), 0)])
    with caplog.at_level("INFO", logger="cct_export"):
        dataset = data.read(str(tmp_path), RGB)
    assert dataset.train.labels.tolist() == [label, 1]
    assert dataset.test.labels.tolist() == [0]
    assert dataset.classes == ("0", "1")
    assert not any("label 0" in line for line in caplog.messages)


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt", "label.labels.txt"])
def test_class_names_are_read_from_a_file_beside_the_shards(tmp_path, name):
    _imagenet(tmp_path)
    (tmp_path / name).write_text("ä\nb b\n\nc\n", "utf-8")
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("ä", "b b", "c")
    assert dataset.train.labels.tolist() == [0, 1, 0, 2, 2]


def test_class_names_may_be_numbered_as_tf_slim_writes_them(tmp_path):
    _imagenet(tmp_path)
    (tmp_path / "labels.txt").write_text("0:a\n1:b\n2: c\n")
    assert data.read(str(tmp_path), RGB).classes == ("a", "b", "c")


def test_a_background_class_keeps_the_labels_as_they_are(tmp_path):
    _imagenet(tmp_path)
    (tmp_path / "labels.txt").write_text("background\na\nb\nc\n")
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("background", "a", "b", "c")
    assert dataset.train.labels.tolist() == [1, 2, 1, 3, 3]


def test_too_few_class_names_are_refused_with_their_file(tmp_path):
    _imagenet(tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(InvalidData, match=r"labels\.txt.*label 2 is out of range: .* 2 classes"):
        data.read(str(tmp_path), RGB)


def test_classes_with_the_same_name_get_their_label_as_a_suffix(tmp_path):
    records = [imagenet(png(i), i, b"ant" if i == 1 else b"crane") for i in range(3)]
    for part in ("train", "val"):
        write(tmp_path / f"{part}.tfrecord", records)
    assert data.read(str(tmp_path), RGB).classes == ("crane (0)", "ant", "crane (2)")


def test_shards_of_tensorflow_datasets_are_read(tmp_path):
    root = tmp_path / "pets/3.0.0"
    for part, count in (("train", 3), ("test", 2)):
        write(
            root / f"pets-{part}.tfrecord-00000-of-00001",
            [example(image=png(i), label=i, id=b"x") for i in range(count)],
        )
    (root / "label.labels.txt").write_text("a\nb\nc\n")
    (root / "features.json").write_text("{}")
    dataset = data.read(str(root), RGB)
    assert dataset.classes == ("a", "b", "c")
    assert _values(dataset.train) == dataset.train.labels.tolist() == [0, 1, 2]


LAYOUTS = {
    "ImageNet": ("train-{:05}-of-00002", "validation-00000-of-00001"),
    "suffix": ("train-{}.tfrecord", "val-0.tfrecord"),
    "suffix of many": ("train_{}.tfrecords", "test.tfrecords"),
    "words around": ("mine-train-part{}.tfrecord", "mine-valid.tfrecord"),
    "folders": ("train/train-{:05}-of-00002", "validation/validation-00000-of-00001"),
    "folders alone": ("training/{}.tfrecord", "test/0.tfrecord"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_recognized_by_file_or_folder_name(tmp_path, layout):
    dataset = data.read(_imagenet(tmp_path, *LAYOUTS[layout]), RGB)
    assert _values(dataset.train) == [0, 1, 2, 3, 4]
    assert _values(dataset.test) == [10, 11]


def test_test_shards_are_preferred_to_validation_shards(tmp_path):
    _imagenet(tmp_path)
    write(tmp_path / "test-00000-of-00001", [imagenet(png(20), 1)])
    assert _values(data.read(str(tmp_path), RGB).test) == [20]


@pytest.mark.parametrize("source", ["folder", "file"])
def test_shards_without_a_split_in_their_name_are_split_ninety_to_ten(tmp_path, source):
    path = write(tmp_path / "all.tfrecord", [imagenet(png(i), i % 2) for i in range(20)])
    dataset = data.read(str(tmp_path if source == "folder" else path), RGB)
    train, test = _values(dataset.train), _values(dataset.test)
    assert (len(train), len(test)) == (18, 2)
    assert sorted(train + test) == list(range(20))
    assert dataset.train.labels.tolist() == [value % 2 for value in train]


@pytest.mark.parametrize("suffix", ["", ".tfrecord", ".tfrecords"])
def test_a_missing_shard_is_named(tmp_path, suffix):
    _imagenet(tmp_path, f"train-{{:05}}-of-00002{suffix}")
    missing = f"train-00000-of-00002{suffix}"
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidData, match=rf"1 of 2 shards .* {re.escape(missing)} is missing"):
        data.read(str(tmp_path), RGB)


def test_train_shards_alone_and_test_shards_alone_are_refused(tmp_path):
    write(tmp_path / "train.tfrecord", [imagenet(png(0), 1)])
    with pytest.raises(InvalidData, match="no test or validation shards"):
        data.read(str(tmp_path), RGB)
    (tmp_path / "train.tfrecord").rename(tmp_path / "test.tfrecord")
    with pytest.raises(InvalidData, match="no shards for training"):
        data.read(str(tmp_path), RGB)


def _three(folder):
    """Makes a shard of three records; returns its path, its bytes, and where records begin."""
    records = [imagenet(png(i), i) for i in range(3)]
    path = write(folder / "all.tfrecord", records)
    starts = np.cumsum([0] + [len(content) + 16 for content in records]).tolist()
    content = path.read_bytes()
    assert len(content) == starts[3]
    return path, content, starts


def _message(path):
    with pytest.raises(InvalidData) as refused:
        dataset = data.read(str(path), RGB)
        for split in (dataset.train, dataset.test):
            _values(split)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("kept", [1, 11, 12, 100, -1])
def test_a_truncated_shard_is_refused_with_file_and_record(tmp_path, kept):
    path, content, starts = _three(tmp_path)
    path.write_bytes(content[: starts[2] + (kept if kept > 0 else len(content) - starts[2] - 1)])
    assert f"all.tfrecord ends within record 2 (byte {starts[2]}): it is truncated" in (
        _message(path)
    )


@pytest.mark.parametrize("byte", range(12))
def test_a_damaged_header_is_refused_with_file_and_record(tmp_path, byte):
    path, content, starts = _three(tmp_path)
    damaged = bytearray(content)
    damaged[starts[1] + byte] ^= 0x10
    path.write_bytes(damaged)
    assert f"all.tfrecord is damaged at record 1 (byte {starts[1]})" in _message(path)


def test_a_damaged_record_is_detected_by_its_checksum(tmp_path):
    pytest.importorskip("google_crc32c", reason="google-crc32c is not installed")
    path, content, starts = _three(tmp_path)
    assert len(data.read(str(path), RGB).train.images([0, 1])) == 2
    damaged = bytearray(content)
    # Not in the pixels, whose own checksum Pillow verifies, but in the name of the file.
    place = content.index(b"n01440764", starts[1])
    damaged[place] ^= 1
    path.write_bytes(damaged)
    assert "all.tfrecord: record 1 is damaged, its checksum differs" in _message(path)


def test_a_compressed_shard_is_refused(tmp_path):
    path, content, _ = _three(tmp_path)
    path.write_bytes(gzip.compress(content))
    assert "all.tfrecord is compressed" in _message(path)


def test_another_file_named_like_a_shard_is_refused(tmp_path):
    path = tmp_path / "all.tfrecord"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "all.tfrecord is not a TFRecord file" in _message(path)


def test_shards_without_records_are_refused(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write(tmp_path / name, [])
    assert "there are no images in" in _message(tmp_path)
    assert "train-00000-of-00002 … train-00001-of-00002" in _message(tmp_path)


def test_an_empty_shard_among_others_is_allowed(tmp_path):
    _imagenet(tmp_path, "train-{:05}-of-00003")
    (tmp_path / "train-00001-of-00003").rename(tmp_path / "train-00002-of-00003")
    write(tmp_path / "train-00001-of-00003", [])
    assert _values(data.read(str(tmp_path), RGB).train) == [0, 1, 2, 3, 4]


INVALID = {
    "no label": ({"image": png(0)}, "no feature image/class/label or label"),
    "label of text": ({"label": b"cat", "image": png(0)}, "not a list of integers"),
    "label of floats": ({"label": 1.5, "image": png(0)}, "not a list of integers"),
    "two labels": ({"label": [1, 2], "image": png(0)}, "2 labels and 1 images: one each is needed"),
    "many labels": ({"label": [1] * 5000, "image": png(0)}, "a list of integers that is too long"),
    "text of numbers": (
        {"label": 1, "image": png(0), "image__class__text": 5}, "numbers instead of bytes"
    ),
    "no image": ({"label": 1}, "no feature image/encoded or image"),
    "image of numbers": ({"label": 1, "image": [1, 2]}, "numbers instead of bytes"),
    "two images": ({"label": 1, "image": [png(0)] * 2}, "1 labels and 2 images: one each is"),
    "negative label": ({"label": -1, "image": png(0)}, "label -1 is out of range"),
    "huge label": ({"label": 10**9, "image": png(0)}, "label 1000000000 is out of range"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_a_record_that_is_not_a_labelled_image_is_refused_with_the_reason(tmp_path, case):
    features, message = INVALID[case]
    good = example(image=png(0), label=0)
    path = write(tmp_path / "all.tfrecord", [good, good, example(**features)])
    error = _message(path)
    assert re.search(message, error)
    assert "all.tfrecord" in error
    if "range" not in error:
        assert "record 2" in error


def test_a_record_of_other_bytes_is_refused(tmp_path):
    path = write(tmp_path / "all.tfrecord", [example(image=png(0), label=0), b"\x0a\xff\xff"])
    assert "all.tfrecord record 1: " in _message(path)


def test_a_corrupt_image_is_refused_with_file_and_record(tmp_path):
    images = [png(0), png(1)[:-30], png(2)]
    path = write(tmp_path / "all.tfrecord", [example(image=p, label=0) for p in images])
    error = _message(path)
    assert "all.tfrecord record 1 is not a readable image" in error
    assert "--skip-corrupt" in error


def test_a_shard_that_vanished_is_named(tmp_path):
    dataset = data.read(_imagenet(tmp_path), RGB)
    (tmp_path / "train-00001-of-00002").unlink()
    assert len(dataset.train.images([0])) == 1
    with pytest.raises(InvalidData, match="train-00001-of-00002 cannot be read"):
        dataset.train.images([4])


def test_a_shard_that_changed_since_it_was_read_is_refused(tmp_path):
    dataset = data.read(_imagenet(tmp_path), RGB)
    write(tmp_path / "train-00001-of-00002", [imagenet(png(0, 64), 1)] * 2)
    with pytest.raises(InvalidData, match=r"train-00001-of-00002 changed since"):
        dataset.train.images([3])


def test_reading_shards_needs_no_tensorflow(tmp_path):
    code = """
import sys
from cct_export import data
images = data.read(sys.argv[1], (4, 4, 3)).train.images([0, 4])
print(images[:, 0, 0, 0].tolist(), sorted({"tensorflow", "google.protobuf"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, _imagenet(tmp_path)],
        capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert done.stdout.strip() == "[0, 4] []", done.stderr
