"""Images that cannot be decoded among those that can: refused, or left out."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shards import encoded, example, png, write

from cct_export import data
from cct_export.data import encoded as encoded_images
from cct_export.data.decoding import decode_bytes
from cct_export.errors import InvalidData, InvalidRequest

RGB = (4, 4, 3)


def _folder(root, broken=(), count=6, classes=("cat", "dog")):
    """Makes train/ and test/; the training image ``i`` is all ``i``, or half a file."""
    for label, name in enumerate(classes):
        for part in ("train", "test"):
            (root / part / name).mkdir(parents=True)
        for index in range(count):
            value = label * count + index
            content = png(value)
            (root / f"train/{name}/{value:03}.png").write_bytes(
                content[: len(content) // 2] if value in broken else content
            )
        (root / f"test/{name}/0.png").write_bytes(png(200 + label))
    return str(root)


def _values(split):
    return split.images(range(len(split.labels)))[:, 0, 0, 0].tolist()


def test_a_corrupt_image_in_the_middle_is_refused_with_its_name_and_the_way_around(tmp_path):
    train = data.read(_folder(tmp_path, broken=[3]), RGB).train
    assert train.images([0, 1, 2, 4])[:, 0, 0, 0].tolist() == [0, 1, 2, 4]
    with pytest.raises(InvalidData, match=r"cat/003\.png is no readable image") as refused:
        train.images([2, 3, 4])
    assert str(refused.value).endswith(
        "remove or replace it; training leaves such images out with --skip-corrupt"
    )


def test_corrupt_images_are_left_out_where_that_is_asked_for_and_each_is_named(tmp_path, caplog):
    name = _folder(tmp_path, broken=[3, 7])
    with caplog.at_level("INFO", logger="cct_export"):
        dataset = data.read(name, RGB, on_corrupt="skip")
    assert _values(dataset.train) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5
    assert _values(dataset.test) == [200, 201]
    left_out = [line for line in caplog.messages if line.startswith("left out:")]
    assert ["003.png" in left_out[0], "007.png" in left_out[1], len(left_out)] == [True, True, 2]
    assert any("training images: 2 of 12 left out" in line for line in caplog.messages)
    assert not any("--skip-corrupt" in line for line in caplog.messages)


def test_what_is_left_is_the_same_every_time(tmp_path):
    name = _folder(tmp_path, broken=[0, 11])
    first, second = (data.read(name, RGB, on_corrupt="skip").train for _ in range(2))
    assert _values(first) == _values(second) == list(range(1, 11))
    assert first.labels.tolist() == second.labels.tolist()


def test_with_nothing_corrupt_skipping_changes_nothing(tmp_path):
    name = _folder(tmp_path)
    skipped, plain = data.read(name, RGB, on_corrupt="skip"), data.read(name, RGB)
    assert _values(skipped.train) == _values(plain.train)
    assert skipped.classes == plain.classes


def test_corrupt_test_images_are_left_out_too(tmp_path):
    name = _folder(tmp_path)
    (tmp_path / "test/cat/0.png").write_bytes(b"")
    assert _values(data.read(name, RGB, on_corrupt="skip").test) == [201]


def test_an_image_of_sixteen_bits_is_left_out_as_one_that_cannot_be_used(tmp_path):
    from PIL import Image

    name = _folder(tmp_path)
    deep = np.full((4, 4), 4000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "train/cat/000.png")
    assert _values(data.read(name, RGB, on_corrupt="skip").train) == list(range(1, 12))


def test_a_class_whose_images_are_all_corrupt_is_refused_by_name(tmp_path):
    name = _folder(tmp_path, broken=range(6, 12))
    with pytest.raises(InvalidData, match="none of the class 'dog' can be read"):
        data.read(name, RGB, on_corrupt="skip")


def test_a_class_that_a_split_never_had_is_not_missed(tmp_path):
    for name, count in (("cat", 30), ("dog", 30), *((f"rare {i}", 1) for i in range(30))):
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.png").write_bytes(png(index))
    train = data.read(str(tmp_path), RGB).train
    assert len(set(train.labels.tolist())) < 32
    position = int(np.flatnonzero(train.labels == 0)[0])
    broken = Path(train.store.where(int(train.items[position])))
    broken.write_bytes(broken.read_bytes()[:20])
    kept = data.read(str(tmp_path), RGB, on_corrupt="skip").train
    assert len(kept.labels) == len(train.labels) - 1


def test_a_split_whose_images_are_all_corrupt_is_refused(tmp_path):
    name = _folder(tmp_path, broken=range(12))
    with pytest.raises(InvalidData, match="training images: none of the 12 can be read"):
        data.read(name, RGB, on_corrupt="skip")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a file that nobody can read")
def test_a_file_that_cannot_be_read_is_named_or_left_out(tmp_path):
    name = _folder(tmp_path)
    (tmp_path / "train/cat/002.png").unlink()
    (tmp_path / "train/cat/002.png").symlink_to("/proc/self/mem")
    with pytest.raises(InvalidData, match=r"002\.png is no readable image: Input/output error"):
        _values(data.read(name, RGB).train)
    assert len(data.read(name, RGB, on_corrupt="skip").train.labels) == 11


def test_a_folder_with_the_name_of_an_image_is_no_image(tmp_path):
    name = _folder(tmp_path)
    (tmp_path / "train/cat/folder.png").mkdir()
    assert len(data.read(name, RGB).train.labels) == 12


def test_a_corrupt_picture_in_a_shard_is_left_out(tmp_path, caplog):
    pictures = [png(i) for i in range(5)]
    pictures[2] = b"\xff\xd8\xff\xe0 no more of it"
    for part in ("train", "val"):
        write(tmp_path / f"{part}.tfrecord", [example(image=p, label=0) for p in pictures])
    dataset = data.read(str(tmp_path), RGB, on_corrupt="skip")
    assert _values(dataset.train) == _values(dataset.test) == [0, 1, 3, 4]
    assert any("train.tfrecord record 2 is no readable" in line for line in caplog.messages)


def test_arrays_have_nothing_to_leave_out(tmp_path):
    pixels = np.zeros((2, *RGB), np.uint8)
    labels = np.array([0, 1])
    path = tmp_path / "a.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    assert len(data.read(str(path), RGB, on_corrupt="skip").train.labels) == 2


def test_another_wish_for_corrupt_images_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="on_corrupt='ignore': it is 'refuse' or 'skip'"):
        data.read(_folder(tmp_path), RGB, on_corrupt="ignore")


def _photographs(root, count):
    """Makes images large enough to be decoded by threads, each of one colour and some noise."""
    noise = np.random.default_rng(0).integers(0, 8, (96, 96, 3))
    for part in ("train", "test"):
        (root / part / "x").mkdir(parents=True)
        for index in range(count):
            content = encoded(noise + index * 4)
            assert len(content) > encoded_images.WORTH_A_THREAD_BYTES
            (root / f"{part}/x/{index:03}.png").write_bytes(content)
    return str(root)


def test_threads_give_the_images_that_one_thread_gives_in_the_order_asked_for(
    tmp_path, monkeypatch
):
    train = data.read(_photographs(tmp_path, 40), (32, 32, 3)).train
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(40), 3))
    monkeypatch.setattr(encoded_images, "_cores", lambda: 1)
    alone = train.images(order)
    monkeypatch.setattr(encoded_images, "_cores", lambda: 7)
    assert np.array_equal(train.images(order), alone)
    assert len(np.unique(alone[:, 0, 0, 0])) > 30


def test_of_two_corrupt_images_the_first_asked_for_is_named_whichever_thread_is_first(
    tmp_path, monkeypatch
):
    train = data.read(_photographs(tmp_path, 40), (32, 32, 3)).train
    for index in (9, 30):
        path = tmp_path / f"train/x/{index:03}.png"
        path.write_bytes(path.read_bytes()[:-2000])
    monkeypatch.setattr(encoded_images, "_cores", lambda: 7)
    for order, first in ((range(40), "009.png"), (range(39, -1, -1), "030.png")):
        for _ in range(5):
            with pytest.raises(InvalidData, match=first):
                train.images(list(order))


def _photo():
    """Returns a JPEG that says which way up it was taken, when and by what."""
    exif = Image.Exif()
    for tag, value in ((0x0112, 6), (0x011A, 72.5), (0x010F, "maker"), (0x0132, "2026:01:01")):
        exif[tag] = value
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (90, 10, 200)).save(file, "JPEG", exif=exif)
    return file.getvalue()


PHOTO = _photo()


def test_a_photo_is_turned_upright():
    pixels, size = decode_bytes(PHOTO, "photo", (8, 6, 3))
    assert (pixels.shape, size) == ((8, 6, 3), (8, 6))


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.integers(0, 220), st.integers(0, 255), min_size=1, max_size=6))
def test_whatever_is_damaged_in_a_photo_it_is_read_or_refused_by_name(damage):
    content = bytearray(PHOTO)
    for place, value in damage.items():
        content[place % len(content)] = value
    try:
        pixels, _ = decode_bytes(bytes(content), "photo", (6, 8, 3))
    except InvalidData as error:
        assert str(error).startswith("photo ")
    else:
        assert pixels.shape == (6, 8, 3)
