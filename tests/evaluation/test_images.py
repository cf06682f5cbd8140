"""Which words name images and which a model, and the files that names stand for."""

from pathlib import Path

import pytest
from PIL import Image

from cct_export.errors import InvalidRequest
from cct_export.evaluation.images import find_images, names_images


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory: images at three depths, beside files that are none."""
    monkeypatch.chdir(tmp_path)
    names = ("c.png", "a.JPG", "photos/b.jpeg", "photos/2024/d.png", "photos/.hidden/e.png")
    for name in (*names, ".f.png", "cct_2_3x2_32/g.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name, format="PNG")
    Path("photos/note.txt").write_text("no image")
    Path("empty").mkdir()
    return tmp_path


@pytest.fixture
def saved_model():
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_text("")
    Path("saved/curves.png").write_bytes(Path("c.png").read_bytes())


def _found(*names):
    return [path.as_posix() for path in find_images(names)]


@pytest.mark.parametrize(
    "argument", ["c.png", "missing.png", "IMG.JPEG", "photos", ".", "photos/*", "**/*.jpg", "p?"]
)
def test_images_folders_and_patterns_name_images(argument):
    assert names_images(argument)


@pytest.mark.parametrize(
    "argument",
    [
        "m.tflite", "missing.onnx", "m.keras", "w.weights.h5", "w.safetensors", "w.pth",
        "cct_keras_io", "hf:owner/name", "keras-io/cct", "no_preset", "photos/note.txt",
    ],
)  # fmt: skip
def test_anything_else_names_a_model(argument):
    assert not names_images(argument)


def test_a_preset_is_a_model_and_a_folder_of_its_name_has_to_be_written_as_a_path():
    assert not names_images("cct_2_3x2_32")
    assert names_images("./cct_2_3x2_32")


def test_a_folder_with_a_model_is_the_model_whatever_images_it_holds(saved_model, digits_run):
    assert (digits_run / "curves.png").is_file()
    assert not names_images(str(digits_run))
    assert not names_images("saved")


def test_a_folder_stands_for_the_visible_images_at_any_depth_by_path():
    assert _found("photos") == ["photos/2024/d.png", "photos/b.jpeg"]
    assert _found(".") == [
        "a.JPG", "c.png", "cct_2_3x2_32/g.png", "photos/2024/d.png", "photos/b.jpeg",
    ]  # fmt: skip


def test_a_pattern_stands_for_the_images_among_the_files_that_match():
    assert _found("*.png") == ["c.png"]
    assert _found("photos/*") == ["photos/b.jpeg"]
    assert _found("photos/**") == _found("photos")
    assert _found("**/*.png") == ["c.png", "cct_2_3x2_32/g.png", "photos/2024/d.png"]


def test_files_keep_the_order_in_which_they_are_named():
    names = ["photos/note.txt", "c.png", "a.JPG", "c.png"]
    assert _found(*names) == names
    assert _found("photos", "c.png") == [*_found("photos"), "c.png"]


def test_a_file_with_brackets_in_its_name_is_no_pattern():
    Path("c.png").rename("c[1].png")
    Path("c1.png").write_bytes(Path("a.JPG").read_bytes())
    assert _found("c[1].png") == ["c[1].png"]


def test_a_home_directory_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert find_images(["~/c.png"]) == [folder / "c.png"]
    assert find_images(["~/*.png"]) == [folder / "c.png"]


def test_links_to_images_are_followed_and_links_to_folders_are_not():
    Path("photos/loop").symlink_to("..")
    Path("photos/link.png").symlink_to("../c.png")
    assert _found("photos") == ["photos/2024/d.png", "photos/b.jpeg", "photos/link.png"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no image to predict"),
        (["c.png", "missing.png"], "no such image: missing.png"),
        (["empty"], r"no image \(.png, .jpg, …\) in the folder empty"),
        (["*.gif"], r"no image \(.png, .jpg, …\) matches \*.gif"),
        (["photos/*.txt"], r"no image \(.png, .jpg, …\) matches"),
    ],
)
def test_a_name_that_stands_for_no_image_is_refused(names, reason):
    with pytest.raises(InvalidRequest, match=reason):
        find_images(names)
