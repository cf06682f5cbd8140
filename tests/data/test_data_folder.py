"""``--data folder``: class folders with PNG or JPEG files."""

import io
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cct_export import data
from cct_export.data.decoding import decode
from cct_export.errors import InvalidData

RGB = (4, 4, 3)
GREY = (4, 4, 1)


def _put(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


def _one_colour(value, size=4):
    return np.full((size, size, 3), value, np.uint8)


def _class_folders(root, per_class, classes=("cat", "dog")):
    """Makes class folders whose images all differ: image ``i`` is all ``i``."""
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


def test_the_test_folder_is_taken_where_val_lies_beside_it(tmp_path):
    _class_folders(tmp_path / "train", 3)
    _class_folders(tmp_path / "test", 2)
    _class_folders(tmp_path / "val", 1)
    assert len(data.read(str(tmp_path), RGB).test.labels) == 4


def test_a_test_label_is_the_index_of_the_training_class(tmp_path):
    _class_folders(tmp_path / "train", 2, ("ant", "bee", "cow"))
    _class_folders(tmp_path / "test", 2, ("cow",))
    assert data.read(str(tmp_path), RGB).test.labels.tolist() == [2, 2]


def test_plain_class_folders_are_split_ninety_to_ten(tmp_path):
    _class_folders(tmp_path, 20)
    dataset = data.read(str(tmp_path), RGB)
    train, test = _values(dataset.train), _values(dataset.test)
    assert (len(train), len(test)) == (36, 4)
    assert sorted(train + test) == list(range(40))
    for split, values in ((dataset.train, train), (dataset.test, test)):
        assert split.labels.tolist() == [value // 20 for value in values]


def test_the_split_of_plain_class_folders_is_always_the_same(tmp_path):
    _class_folders(tmp_path / "a", 20)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    first = data.read(str(tmp_path / "a"), RGB)
    second = data.read(str(tmp_path / "elsewhere"), RGB)
    assert _values(first.test) == _values(second.test)
    assert _values(first.test) != list(range(4))


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.JPG"])
def test_png_and_jpeg_files_are_read_whatever_the_case_of_their_suffix(tmp_path, name):
    _put(tmp_path / "train/x" / name, _one_colour(90))
    _put(tmp_path / "test/x" / name, _one_colour(90))
    (tmp_path / "train/x/notes.txt").write_text("no image")
    dataset = data.read(str(tmp_path), RGB)
    assert np.abs(dataset.train.images([0]).astype(int) - 90).max() <= 2
    assert len(dataset.train.labels) == 1


def test_an_image_of_another_size_is_resized_bilinearly(tmp_path):
    _put(tmp_path / "a.png", np.array([[[0] * 3, [200] * 3]] * 2))
    pixels, size = decode(tmp_path / "a.png", RGB)
    assert size == (2, 2)
    assert pixels[..., 0].tolist() == [[0, 50, 150, 200]] * 4


def test_resizing_is_said_once_with_both_sizes(tmp_path, caplog):
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
    assert "4×4 (bilinear)" in note
    assert "a.png" in note


def test_mixed_sizes_are_said_once_with_their_number(tmp_path, caplog):
    for index, size in enumerate([4, 6, 8, 6]):
        for part in ("train", "test"):
            _put(tmp_path / part / "x" / f"{index}.png", _one_colour(index, size))
    train = data.read(str(tmp_path), RGB).train
    with caplog.at_level("INFO", logger="cct_export"):
        assert train.images([0, 1, 2, 3])[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
        train.images([3])
    (note,) = caplog.messages
    assert "1.png is 6×6, the first 4 images have 3 sizes: images are resized to 4×4" in note


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path, caplog):
    _class_folders(tmp_path, 3)
    for name in ("a.webp", "notes.txt", "b.bmp"):
        (tmp_path / "dog" / name).write_text("something")
    with caplog.at_level("INFO", logger="cct_export"):
        dataset = data.read(str(tmp_path), RGB)
    assert len(dataset.train.labels) + len(dataset.test.labels) == 6
    (note,) = caplog.messages
    assert "3 files are no .png or .jpg and left out: dog/a.webp …" in note


def test_one_class_alone_is_read_and_left_to_who_needs_more(tmp_path):
    _class_folders(tmp_path, 4, ("cat",))
    dataset = data.read(str(tmp_path), RGB)
    assert dataset.classes == ("cat",)
    assert set(dataset.train.labels.tolist()) == {0}


def test_a_grey_file_gives_three_equal_channels_to_a_colour_model(tmp_path):
    _put(tmp_path / "g.png", np.arange(16).reshape(4, 4))
    pixels, _ = decode(tmp_path / "g.png", RGB)
    for channel in range(3):
        assert np.array_equal(pixels[..., channel], np.arange(16).reshape(4, 4))


def test_a_colour_file_gives_its_luma_to_a_grey_model(tmp_path):
    _put(tmp_path / "red.png", np.full((4, 4, 3), (255, 0, 0)))
    pixels, _ = decode(tmp_path / "red.png", GREY)
    assert pixels.shape == GREY
    assert np.unique(pixels).tolist() == [round(0.299 * 255)]


def test_transparency_and_palettes_are_flattened_to_colour(tmp_path):
    _put(tmp_path / "a.png", np.full((4, 4, 4), (10, 20, 30, 0)))
    Image.fromarray(_one_colour(77)).convert("P").save(tmp_path / "p.png")
    assert decode(tmp_path / "a.png", RGB)[0][0, 0].tolist() == [10, 20, 30]
    assert decode(tmp_path / "p.png", RGB)[0].shape == RGB


def test_a_jpeg_of_four_inks_becomes_colour(tmp_path):
    Image.new("RGB", (4, 4), (200, 40, 40)).convert("CMYK").save(tmp_path / "inks.jpg")
    pixels, _ = decode(tmp_path / "inks.jpg", RGB)
    assert np.abs(pixels.astype(int) - (200, 40, 40)).max() <= 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_of_eight_bits_or_fewer_is_read(tmp_path, mode):
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / "a.png")
    for shape in (RGB, GREY):
        assert decode(tmp_path / "a.png", shape)[0].tolist() == np.full(shape, 255).tolist()


def test_an_image_of_sixteen_bits_is_refused_and_not_turned_white(tmp_path):
    deep = (np.arange(16, dtype=np.uint16) * 4000).reshape(4, 4)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.raises(InvalidData, match=r"deep\.png.*8 bits"):
        decode(tmp_path / "deep.png", GREY)


@pytest.mark.parametrize("content", [b"", b"no image at all", "half a png", "half a jpeg"])
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


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def _encoded(kind):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG = _encoded("PNG"), _encoded("JPEG")


@settings(deadline=None, max_examples=150)
@given(
    content=st.sampled_from([PNG, JPEG]),
    changes=st.lists(st.tuples(st.integers(0, len(PNG) - 1), st.integers(0, 255)), max_size=6),
    kept=st.floats(0.1, 1),
)
def test_a_damaged_image_is_read_or_refused_and_never_crashes(scratch, content, changes, kept):
    _check_damaged(scratch / "damaged.png", content, changes, kept)


def test_a_png_with_a_header_that_is_too_short_is_refused(scratch):
    # Pillow raises a bare ValueError for this one.
    _check_refused(scratch / "short.png", PNG[:8] + b"\0\0\0\x05" + PNG[12:])


def _check_damaged(path, content, changes, kept):
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path.write_bytes(damaged[: round(kept * len(damaged))])
    try:
        pixels, _ = decode(path, RGB)
    except InvalidData as error:
        assert path.name in str(error)
    else:
        assert pixels.shape == RGB


def _check_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=path.name):
        decode(path, RGB)


def test_a_folder_without_images_says_what_it_needs(tmp_path):
    with pytest.raises(InvalidData, match="needs class folders"):
        data.read(str(tmp_path), RGB)
    _put(tmp_path / "loose.png", _one_colour(1))
    with pytest.raises(InvalidData, match="needs class folders"):
        data.read(str(tmp_path), RGB)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_train_or_test_folder_is_named(tmp_path, part):
    for one in ("train", "test"):
        _class_folders(tmp_path / one, 1)
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
    with pytest.raises(InvalidData, match="no test/ or val/"):
        data.read(str(tmp_path), RGB)


def test_a_path_that_is_not_there_is_refused_with_what_data_takes(tmp_path):
    with pytest.raises(InvalidData, match=r"no such data: .*nothing.*cifar10, cifar100, digits"):
        data.read(str(tmp_path / "nothing"), RGB)
    assert not data.at_hand(str(tmp_path / "nothing"))
    assert data.at_hand(str(tmp_path))


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_the_name_of_a_kind_of_path_is_no_name_of_data(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidData, match="no such data"):
        data.read(name, RGB)
    assert not data.at_hand(name)


def test_what_other_programs_hide_is_neither_class_nor_image(tmp_path):
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
    with pytest.raises(InvalidData, match=r"dog: no \.png or \.jpg"):
        data.read(str(tmp_path), RGB)


def test_a_photograph_is_turned_upright_as_its_exif_data_says(tmp_path):
    image = Image.new("RGB", (8, 4), "white")
    image.paste("black", (0, 0, 2, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter to the right to see it upright
    image.save(tmp_path / "turned.png", exif=exif)
    pixels, size = decode(tmp_path / "turned.png", (8, 4, 3))
    assert size == (8, 4)
    assert pixels[:2].max() == 0 and pixels[2:].min() == 255
