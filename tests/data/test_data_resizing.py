"""Formats of image files beside PNG and JPEG, and resizing them as a model was trained."""

import io
import struct

import keras
import numpy as np
import pytest
from PIL import Image

from cct_export import data
from cct_export.data.decoding import decode, decode_bytes
from cct_export.errors import InvalidData, InvalidRequest
from cct_export.records import InputContract
from cct_export.records.artifact import Contract
from cct_export.specs import Resize

EVERY = [
    Resize(filter, fit) for filter in ("antialiased", "bilinear") for fit in ("squash", "crop")
]


def _photo(height, width, channels=3):
    random = np.random.default_rng(height)
    return random.integers(0, 256, (height, width, channels), np.uint8)


def _png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".TIFF"])
def test_the_pixels_of_other_lossless_formats_are_read(tmp_path, suffix, mode):
    image = Image.fromarray(_photo(8, 6)).convert(mode)
    image.save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    pixels, size = decode(tmp_path / f"a{suffix}", (8, 6, 3))
    assert size == (8, 6)
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


def test_they_are_images_of_a_folder_too(tmp_path):
    for index, suffix in enumerate((".webp", ".bmp", ".tif", ".tiff")):
        (tmp_path / "x").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (index,) * 3).save(tmp_path / "x" / f"{index}{suffix}")
    dataset = data.read(str(tmp_path), (4, 4, 3))
    assert len(dataset.train.labels) + len(dataset.test.labels) == 4


def _tiff(bits, samples, kind=1):
    """Returns an uncompressed TIFF of 4×4 pixels that have ``samples`` channels of ``bits``."""
    pixels = bytes(4 * 4 * samples * bits // 8)
    photometric = 2 if samples >= 3 else 1
    entries = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, samples, bits), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, 4),
        (279, 4, 1, len(pixels)), (339, 3, samples, kind),
    ]  # fmt: skip
    if samples in (2, 4):
        entries.insert(-1, (338, 3, 1, 2))
    start = 8 + len(pixels)
    extra = start + 2 + 12 * len(entries) + 4
    directory, long_values = struct.pack("<H", len(entries)), b""
    for tag, type, count, value in entries:
        if count > 2:
            field = struct.pack("<I", extra + len(long_values))
            long_values += struct.pack(f"<{count}H", *[value] * count)
        elif type == 3:
            field = struct.pack("<2H", value, value if count == 2 else 0)
        else:
            field = struct.pack("<I", value)
        directory += struct.pack("<HHI", tag, type, count) + field
    header = struct.pack("<2sHI", b"II", 42, start)
    return header + pixels + directory + struct.pack("<I", 0) + long_values


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_a_tiff_of_more_than_eight_bits_is_refused_whatever_the_channels(samples):
    assert decode_bytes(_tiff(8, samples), "scan", (4, 4, 3))[0].shape == (4, 4, 3)
    with pytest.raises(InvalidData, match=r"scan .*8 bits per channel"):
        decode_bytes(_tiff(16, samples), "scan", (4, 4, 3))


def test_a_tiff_of_floats_is_refused():
    with pytest.raises(InvalidData, match="scan has more than 8 bits per channel"):
        decode_bytes(_tiff(32, 1, kind=3), "scan", (4, 4, 1))


@pytest.mark.parametrize("size", [(24, 40), (97, 331), (9, 5), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_bilinear_is_what_tensorflow_does_by_default(size, channels):
    photo = _photo(48, 60, channels)
    content = _png(photo if channels == 3 else photo[..., 0])
    resized, _ = decode_bytes(content, "photo", (*size, channels), Resize("bilinear"))
    expected = keras.ops.image.resize(photo.astype(np.float32), size, "bilinear", antialias=False)
    difference = np.abs(resized.astype(float) - keras.ops.convert_to_numpy(expected))
    assert difference.max() <= 0.5 + 1e-3


def test_antialiased_averages_all_pixels_of_a_larger_image():
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    content = _png(checkers.astype(np.uint8))
    smooth, _ = decode_bytes(content, "photo", (8, 8, 1))
    assert np.abs(smooth.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("shape", [(40, 100, 3), (100, 40, 3), (30, 30, 3), (1, 90, 3)])
@pytest.mark.parametrize("filter", ["antialiased", "bilinear"])
def test_a_crop_is_the_centre_resized(shape, filter):
    photo = _photo(*shape)
    side = min(shape[:2])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    centre = photo[top : top + side, left : left + side]
    cropped, _ = decode_bytes(_png(photo), "photo", (16, 16, 3), Resize(filter, "crop"))
    expected, _ = decode_bytes(_png(centre), "photo", (16, 16, 3), Resize(filter))
    assert np.array_equal(cropped, expected)


@pytest.mark.parametrize("resize", EVERY, ids=str)
def test_an_image_of_the_right_size_stays_as_it_is(resize):
    photo = _photo(8, 12)
    assert np.array_equal(decode_bytes(_png(photo), "photo", (8, 12, 3), resize)[0], photo)


@pytest.mark.parametrize("resize", EVERY, ids=str)
def test_a_folder_is_resized_as_requested(tmp_path, resize):
    (tmp_path / "x").mkdir()
    photos = [_photo(20 + index, 50) for index in range(2)]
    for index, photo in enumerate(photos):
        (tmp_path / "x" / f"{index}.png").write_bytes(_png(photo))
    dataset = data.read(str(tmp_path), (8, 8, 3), resize=resize)
    images = {split.images([0]).tobytes() for split in (dataset.train, dataset.test)}
    shape = (8, 8, 3)
    expected = {decode_bytes(_png(photo), "", shape, resize)[0].tobytes() for photo in photos}
    assert images == expected


@pytest.mark.parametrize("resize", EVERY, ids=str)
def test_a_contract_tells_how_images_are_resized(resize):
    contract = Contract(input=InputContract.of("float32", 1, (8, 8, 3), resize))
    assert Contract.from_dict(contract.to_dict()).resize == resize
    assert Resize.parse(str(resize)) == resize


def test_a_contract_of_an_earlier_version_antialiases_and_squashes():
    assert Contract.from_dict(
        {"input": {"layout": "NHWC", "shape": [1, 8, 8, 3], "dtype": "uint8"}}
    )
    assert Contract().resize == Resize("antialiased", "squash")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bicubic", "no way to resize"),
        ("crop,squash", "both crop and squash"),
        ("", "way to resize"),
    ],
)
def test_words_that_name_no_resizing_are_refused(words, message):
    with pytest.raises(InvalidRequest, match=message):
        Resize.parse(words)
