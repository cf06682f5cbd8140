"""Bundles of small models, and processes that know nothing of this package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import FAST
from PIL import Image

ROTATED = 6  # EXIF: the camera was turned by 90°


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory, exports, in_process):
    """Returns the bundle of a kind of file, made once; do not change it."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def get(kind):
        if kind not in made:
            made[kind] = folder / f"it's {'-'.join(kind)}"
            target = ("--target", "raspberry-pi", "-o", made[kind])
            ended = in_process("export", "bundle", exports(*kind).path, *target)
            assert ended.code == 0, ended.err
        return made[kind]

    return get


@pytest.fixture
def bundle(bundle_of, tmp_path):
    """A bundle that the test may change."""
    return Path(shutil.copytree(bundle_of(FAST), tmp_path / "bundle"))


@pytest.fixture
def run(tmp_path):
    """Runs a bundle's program elsewhere, in a clean environment; returns the process."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(script, *arguments, path="/usr/bin:/bin"):
        return subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            cwd=elsewhere, env={"PATH": path}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, digit_images):
    """Image files of several kinds: size, colours, a camera that was turned, a name with blanks."""
    folder = tmp_path_factory.mktemp("some pictures")
    digits = [Image.fromarray(pixels) for pixels in digit_images[0][:5]]
    digits[0].save(folder / "a.png")
    digits[1].resize((100, 80), Image.Resampling.BICUBIC).save(folder / "b c.JPG", "JPEG")
    digits[2].convert("L").save(folder / "d.png")
    digits[3].convert("RGBA").save(folder / "e.png")
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    digits[4].resize((64, 48)).rotate(90, expand=True).save(folder / "it's.jpeg", exif=exif)
    (folder / "notes.txt").write_text("no image")
    return folder
