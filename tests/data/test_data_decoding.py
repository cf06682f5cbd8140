"""Decoding of PNG and JPEG files, damaged ones included."""

import io
import struct
import zlib

import numpy as np
import pytest
import shards
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cct_export import data
from cct_export.data.decoding import decode, decode_bytes
from cct_export.errors import InvalidData

RGB = (4, 4, 3)
GREY = (4, 4, 1)


def _save(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def test_an_image_of_another_size_is_resized_bilinearly(tmp_path):
    _save(tmp_path / "a.png", np.array([[[0] * 3, [200] * 3]] * 2))
    pixels, size = decode(tmp_path / "a.png", RGB)
    assert size == (2, 2)
    assert pixels[..., 0].tolist() == [[0, 50, 150, 200]] * 4


def test_a_grey_file_gives_three_equal_channels_to_a_colour_model(tmp_path):
    _save(tmp_path / "g.png", np.arange(16).reshape(4, 4))
    pixels, _ = decode(tmp_path / "g.png", RGB)
    for channel in range(3):
        assert np.array_equal(pixels[..., channel], np.arange(16).reshape(4, 4))


def test_a_colour_file_gives_its_luma_to_a_grey_model(tmp_path):
    _save(tmp_path / "red.png", np.full((4, 4, 3), (255, 0, 0)))
    pixels, _ = decode(tmp_path / "red.png", GREY)
    assert pixels.shape == GREY
    assert np.unique(pixels).tolist() == [round(0.299 * 255)]


def test_transparency_and_palettes_are_flattened_to_colour(tmp_path):
    _save(tmp_path / "a.png", np.full((4, 4, 4), (10, 20, 30, 0)))
    Image.fromarray(np.full((4, 4, 3), 77, np.uint8)).convert("P").save(tmp_path / "p.png")
    assert decode(tmp_path / "a.png", RGB)[0][0, 0].tolist() == [10, 20, 30]
    assert decode(tmp_path / "p.png", RGB)[0].shape == RGB


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("RGB", (4, 4), (200, 40, 40)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    pixels, _ = decode(tmp_path / "cmyk.jpg", RGB)
    assert np.abs(pixels.astype(int) - (200, 40, 40)).max() <= 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_of_at_most_eight_bits_is_read(tmp_path, mode):
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / "a.png")
    for shape in (RGB, GREY):
        assert decode(tmp_path / "a.png", shape)[0].tolist() == np.full(shape, 255).tolist()


def test_a_sixteen_bit_image_is_refused_and_not_clipped_to_white(tmp_path):
    deep = (np.arange(16, dtype=np.uint16) * 4000).reshape(4, 4)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.raises(InvalidData, match=r"deep\.png.*8 bits"):
        decode(tmp_path / "deep.png", GREY)


def test_a_photograph_is_turned_upright_as_its_exif_data_says(tmp_path):
    image = Image.new("RGB", (8, 4), "white")
    image.paste("black", (0, 0, 2, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter to the right to see it upright
    image.save(tmp_path / "turned.png", exif=exif)
    pixels, size = decode(tmp_path / "turned.png", (8, 4, 3))
    assert size == (8, 4)
    assert pixels[:2].max() == 0 and pixels[2:].min() == 255


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def _encoded(kind):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG = _encoded("PNG"), _encoded("JPEG")
OTHERS = [_encoded(kind) for kind in ("WEBP", "BMP", "TIFF")]


@settings(deadline=None, max_examples=150)
@given(
    content=st.sampled_from([PNG, JPEG, *OTHERS]),
    changes=st.lists(st.tuples(st.integers(0, len(PNG) - 1), st.integers(0, 255)), max_size=6),
    kept=st.floats(0.1, 1),
)
def test_a_damaged_image_is_read_or_refused_and_never_crashes(scratch, content, changes, kept):
    path = scratch / "damaged.png"
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path.write_bytes(damaged[: round(kept * len(damaged))])
    try:
        pixels, _ = decode(path, RGB)
    except InvalidData as error:
        assert "damaged.png" in str(error)
    else:
        assert pixels.shape == RGB


def test_a_png_with_a_header_that_is_too_short_is_refused(tmp_path):
    # Pillow raises a bare ValueError for this one.
    (tmp_path / "short.png").write_bytes(PNG[:8] + b"\0\0\0\x05" + PNG[12:])
    with pytest.raises(InvalidData, match=r"short\.png"):
        decode(tmp_path / "short.png", RGB)


def _photo():
    """Returns a JPEG with EXIF data: orientation, resolution, maker and date."""
    exif = Image.Exif()
    for tag, value in ((0x0112, 6), (0x011A, 72.5), (0x010F, "maker"), (0x0132, "2026:01:01")):
        exif[tag] = value
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (90, 10, 200)).save(file, "JPEG", exif=exif)
    return file.getvalue()


PHOTO = _photo()


def test_a_photo_in_memory_is_turned_upright():
    pixels, size = decode_bytes(PHOTO, "photo", (8, 6, 3))
    assert (pixels.shape, size) == ((8, 6, 3), (8, 6))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(0, 220), st.integers(0, 255), min_size=1, max_size=6))
def test_a_photo_with_damaged_exif_data_is_read_or_refused_by_name(damage):
    content = bytearray(PHOTO)
    for place, value in damage.items():
        content[place % len(content)] = value
    try:
        pixels, _ = decode_bytes(bytes(content), "photo", (6, 8, 3))
    except InvalidData as error:
        assert str(error).startswith("photo ")
    else:
        assert pixels.shape == (6, 8, 3)


def _png(width, height, depth, kind, rows=b"", **chunks):
    """Returns a PNG with any header: ``kind`` 0 is grey, 2 RGB, 3 palette, 4 and 6 with alpha."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(rows), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(k.encode(), v) for k, v in parts.items())


CHANNELS = {"grey": (0, 1), "RGB": (2, 3), "grey with alpha": (4, 2), "RGB with alpha": (6, 4)}


@pytest.mark.parametrize("shape", [RGB, GREY])
@pytest.mark.parametrize("name", CHANNELS)
def test_sixteen_bits_per_channel_are_refused_whatever_the_channels(name, shape):
    kind, channels = CHANNELS[name]
    deep = _png(4, 4, 16, kind, (b"\0" + b"\x12\x34" * 4 * channels) * 4)
    assert Image.open(io.BytesIO(deep)).load() is not None, "Pillow reads it"
    with pytest.raises(InvalidData, match="photo has more than 8 bits per channel"):
        decode_bytes(deep, "photo", shape)
    shallow = _png(4, 4, 8, kind, (b"\0" + b"\x12" * 4 * channels) * 4)
    assert decode_bytes(shallow, "photo", shape)[0].shape == shape


def test_a_palette_of_sixteen_bits_does_not_exist_and_is_refused():
    deep = _png(4, 4, 16, 3, (b"\0" + b"\0\1" * 4) * 4, PLTE=bytes(range(6)))
    with pytest.raises(InvalidData, match="not a readable image"):
        decode_bytes(deep, "photo", RGB)


def test_a_jpeg_of_twelve_bits_is_refused_by_its_bits():
    deep = JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c")
    assert deep != JPEG
    with pytest.raises(
        InvalidData, match="no PNG, JPEG, WebP, BMP or TIFF with 8 bits per channel"
    ):
        decode_bytes(deep, "photo", RGB)


def test_of_an_animated_png_the_first_picture_is_read(tmp_path):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    assert decode(tmp_path / "a.png", RGB)[0][0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("side", [12_000, 13_300, 40_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore:Image size")
def test_a_png_that_declares_far_more_pixels_than_it_holds_is_refused_undecoded(side):
    bomb = _png(side, side, 8, 6)
    with pytest.raises(InvalidData, match=r"photo is not a readable image: .*(claims|exceeds)"):
        decode_bytes(bomb, "photo", RGB)


def test_a_large_drawing_of_one_colour_is_read():
    rows = zlib.compress((b"\0" + bytes(6000)) * 6000)
    drawing = _png(6000, 6000, 8, 0, zlib.decompress(rows))
    assert len(drawing) < 100_000
    assert decode_bytes(drawing, "drawing", RGB)[1] == (6000, 6000)


@pytest.mark.parametrize("kind", CHANNELS)
def test_deep_images_are_refused_in_folders_and_in_shards(tmp_path, kind):
    number, channels = CHANNELS[kind]
    deep = _png(4, 4, 16, number, (b"\0" + b"\x12\x34" * 4 * channels) * 4)
    for name in ("cat", "dog"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "a.png").write_bytes(deep)
    shards.write(tmp_path / "a.tfrecord", [shards.imagenet(deep, label) for label in (0, 1)])
    for name in ("folder", "a.tfrecord"):
        split = data.read(str(tmp_path / name), RGB).train
        with pytest.raises(InvalidData, match="more than 8 bits per channel"):
            split.images([0])
        with pytest.raises(InvalidData, match="none of the 1 can be read"):
            data.read(str(tmp_path / name), RGB, on_corrupt="skip")
