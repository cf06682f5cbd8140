"""Splits of encoded images: corrupt ones refused or left out, threads, and memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shards import encoded, example, imagenet, png, write

from cct_export import data
from cct_export.data import encoded as encoded_images
from cct_export.errors import InvalidData, InvalidRequest

RGB = (4, 4, 3)


def _folder(root, broken=(), count=6, classes=("cat", "dog")):
    """Makes train/ and test/; training image ``i`` has the colour ``i``, or half its bytes."""
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


def test_a_corrupt_image_is_refused_by_name_with_a_hint_to_skip_it(tmp_path):
    train = data.read(_folder(tmp_path, broken=[3]), RGB).train
    assert train.images([0, 1, 2, 4])[:, 0, 0, 0].tolist() == [0, 1, 2, 4]
    with pytest.raises(InvalidData, match=r"cat/003\.png is not a readable image") as refused:
        train.images([2, 3, 4])
    assert str(refused.value).endswith(
        "remove or replace it; training leaves such images out with --skip-corrupt"
    )


def test_corrupt_images_are_skipped_on_request_and_each_is_logged(tmp_path, caplog):
    name = _folder(tmp_path, broken=[3, 7])
    with caplog.at_level("INFO", logger="cct_export"):
        dataset = data.read(name, RGB, on_corrupt="skip")
    assert _values(dataset.train) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5
    assert _values(dataset.test) == [200, 201]
    left_out = [line for line in caplog.messages if line.startswith("left out:")]
    assert ["003.png" in left_out[0], "007.png" in left_out[1], len(left_out)] == [True, True, 2]
    assert any("training images: left out 2 of 12" in line for line in caplog.messages)
    assert not any("--skip-corrupt" in line for line in caplog.messages)


def test_skipping_leaves_the_same_images_every_time(tmp_path):
    name = _folder(tmp_path, broken=[0, 11])
    first, second = (data.read(name, RGB, on_corrupt="skip").train for _ in range(2))
    assert _values(first) == _values(second) == list(range(1, 11))
    assert first.labels.tolist() == second.labels.tolist()


def test_skipping_changes_nothing_where_no_image_is_corrupt(tmp_path):
    name = _folder(tmp_path)
    skipped, plain = data.read(name, RGB, on_corrupt="skip"), data.read(name, RGB)
    assert _values(skipped.train) == _values(plain.train)
    assert skipped.classes == plain.classes


def test_corrupt_test_images_are_skipped_too(tmp_path):
    name = _folder(tmp_path)
    (tmp_path / "test/cat/0.png").write_bytes(b"")
    assert _values(data.read(name, RGB, on_corrupt="skip").test) == [201]


def test_a_sixteen_bit_image_is_skipped_as_corrupt(tmp_path):
    name = _folder(tmp_path)
    deep = np.full((4, 4), 4000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "train/cat/000.png")
    assert _values(data.read(name, RGB, on_corrupt="skip").train) == list(range(1, 12))


def test_a_class_whose_images_are_all_corrupt_is_refused_by_name(tmp_path):
    name = _folder(tmp_path, broken=range(6, 12))
    with pytest.raises(InvalidData, match="none of the class 'dog' can be read"):
        data.read(name, RGB, on_corrupt="skip")


def test_a_class_without_training_images_before_skipping_is_allowed(tmp_path):
    for name, count in (("cat", 30), ("dog", 30), *((f"rare {i}", 1) for i in range(30))):
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.png").write_bytes(png(index))
    train = data.read(str(tmp_path), RGB).train
    assert len(set(train.labels.tolist())) < 32
    position = int(np.flatnonzero(train.labels == 0)[0])
    broken = Path(train.store.name(int(train.items[position])))
    broken.write_bytes(broken.read_bytes()[:20])
    kept = data.read(str(tmp_path), RGB, on_corrupt="skip").train
    assert len(kept.labels) == len(train.labels) - 1


def test_a_split_whose_images_are_all_corrupt_is_refused(tmp_path):
    name = _folder(tmp_path, broken=range(12))
    with pytest.raises(InvalidData, match="training images: none of the 12 can be read"):
        data.read(name, RGB, on_corrupt="skip")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a file that nobody can read")
def test_an_unreadable_file_is_named_or_skipped(tmp_path):
    name = _folder(tmp_path)
    (tmp_path / "train/cat/002.png").unlink()
    (tmp_path / "train/cat/002.png").symlink_to("/proc/self/mem")
    with pytest.raises(InvalidData, match=r"002\.png is not a readable image: Input/output error"):
        _values(data.read(name, RGB).train)
    assert len(data.read(name, RGB, on_corrupt="skip").train.labels) == 11


def test_a_folder_named_like_an_image_is_ignored(tmp_path):
    name = _folder(tmp_path)
    (tmp_path / "train/cat/folder.png").mkdir()
    assert len(data.read(name, RGB).train.labels) == 12


def test_a_corrupt_image_in_a_shard_is_skipped(tmp_path, caplog):
    pictures = [png(i) for i in range(5)]
    pictures[2] = b"\xff\xd8\xff\xe0 no more of it"
    for part in ("train", "val"):
        write(tmp_path / f"{part}.tfrecord", [example(image=p, label=0) for p in pictures])
    dataset = data.read(str(tmp_path), RGB, on_corrupt="skip")
    assert _values(dataset.train) == _values(dataset.test) == [0, 1, 3, 4]
    assert any("train.tfrecord record 2 is not a readable" in line for line in caplog.messages)


def test_skipping_leaves_arrays_as_they_are(tmp_path):
    pixels = np.zeros((2, *RGB), np.uint8)
    labels = np.array([0, 1])
    path = tmp_path / "a.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    assert len(data.read(str(path), RGB, on_corrupt="skip").train.labels) == 2


def test_an_unknown_value_of_on_corrupt_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="on_corrupt='ignore': it is 'refuse' or 'skip'"):
        data.read(_folder(tmp_path), RGB, on_corrupt="ignore")


def _photographs(root, count):
    """Makes images large enough to be decoded by threads, each a colour with some noise."""
    noise = np.random.default_rng(0).integers(0, 8, (96, 96, 3))
    for part in ("train", "test"):
        (root / part / "x").mkdir(parents=True)
        for index in range(count):
            content = encoded(noise + index * 4)
            assert len(content) > encoded_images.MIN_BYTES_FOR_THREADS
            (root / f"{part}/x/{index:03}.png").write_bytes(content)
    return str(root)


def test_several_threads_give_the_same_images_in_the_same_order_as_one(tmp_path, monkeypatch):
    train = data.read(_photographs(tmp_path, 40), (32, 32, 3)).train
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(40), 3))
    monkeypatch.setattr(encoded_images, "_usable_cores", lambda: 1)
    single = train.images(order)
    monkeypatch.setattr(encoded_images, "_usable_cores", lambda: 7)
    assert np.array_equal(train.images(order), single)
    assert len(np.unique(single[:, 0, 0, 0])) > 30


def test_the_first_of_two_corrupt_images_is_named_whichever_thread_is_faster(tmp_path, monkeypatch):
    train = data.read(_photographs(tmp_path, 40), (32, 32, 3)).train
    for index in (9, 30):
        path = tmp_path / f"train/x/{index:03}.png"
        path.write_bytes(path.read_bytes()[:-2000])
    monkeypatch.setattr(encoded_images, "_usable_cores", lambda: 7)
    for order, first in ((range(40), "009.png"), (range(39, -1, -1), "030.png")):
        for _ in range(5):
            with pytest.raises(InvalidData, match=first):
                train.images(list(order))


IMAGES, SIZE, BATCH = 3000, 128, 64
ARRAY_BYTES = IMAGES * SIZE * SIZE * 3
# A batch is 3 MB, and every thread keeps memory that its allocator once had.
LIMIT_BYTES = ARRAY_BYTES // 5

READ = """
import sys
import numpy as np
from cct_export import data
from cct_export.machine import peak_rss_bytes
import PIL.Image, PIL.JpegImagePlugin, PIL.PngImagePlugin

name, size, batch, on_corrupt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
before = peak_rss_bytes()
train = data.read(name, (size, size, 3), on_corrupt).train
order = np.random.default_rng(0).permutation(len(train.labels))
total = 0
for start in range(0, len(order), batch):
    total += len(train.images(order[start : start + batch]))
print(total, peak_rss_bytes() - before)
"""


def _jpegs():
    """Returns a few JPEGs of some 10 KB, as photographs of this size have."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (8, SIZE // 4, SIZE // 4, 3), np.uint8)
    return [encoded(noise.repeat(4, 0).repeat(4, 1), "JPEG", quality=85) for noise in coarse]


def _many_files(root):
    jpegs = _jpegs()
    for part, count in (("train", IMAGES), ("test", 8)):
        for label in range(4):
            (root / part / str(label)).mkdir(parents=True)
        for index in range(count):
            path = root / part / str(index % 4) / f"{index}.jpg"
            path.write_bytes(jpegs[index % len(jpegs)])


def _many_records(root):
    records = [imagenet(jpeg, 1 + label) for label, jpeg in enumerate(_jpegs())]
    for part, shards in (("train", 4), ("validation", 1)):
        for shard in range(shards):
            path = root / f"{part}-{shard:05}-of-{shards:05}"
            write(path, (records[index % 8] for index in range(IMAGES // 4)))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux")
@pytest.mark.parametrize(("make", "on_corrupt"), [(_many_records, "refuse"), (_many_files, "skip")])
def test_reading_in_batches_takes_a_fraction_of_the_memory_of_all_images(
    tmp_path, make, on_corrupt
):
    make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), str(SIZE), str(BATCH), on_corrupt],
        capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    total, growth_bytes = map(int, done.stdout.split())
    assert total == IMAGES, done.stderr
    assert growth_bytes < LIMIT_BYTES
