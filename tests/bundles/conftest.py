"""Bundles of small models, and ways to run their scripts."""

import functools
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

KINDS = [
    ("tflite", "none", "float32"),
    ("tflite", "int8", "uint8"),
    ("tflite", "int8-full", "int8"),
    ("onnx", "none", "float32"),
    ("onnx", "int8", "uint8"),
    ("ncnn", "none", "float32"),
    ("ncnn", "int8", "float32"),
]
DEFAULT_KIND = KINDS[1]
ROTATED = 6  # EXIF: the camera was rotated by 90°


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request):
    """Format, scheme and input type of a file: each kind that bundles are made of."""
    return request.param


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory, exports, in_process):
    """Returns the Raspberry Pi bundle of a kind of file, made once; do not change it."""
    folder = tmp_path_factory.mktemp("bundles")

    @functools.cache
    def make(kind):
        path = folder / f"it's {'-'.join(kind)}"
        target = ("--target", "raspberry-pi", "-o", path)
        ended = in_process("export", "bundle", exports(*kind).path, *target)
        assert ended.code == 0, ended.err
        return path

    return lambda kind=DEFAULT_KIND: make(kind)


@pytest.fixture
def bundle(bundle_of, tmp_path):
    """A bundle that the test may change."""
    return Path(shutil.copytree(bundle_of(), tmp_path / "bundle"))


@pytest.fixture
def run(tmp_path):
    """Runs a bundle's script in a process with a clean environment; returns the process."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(script, *arguments, options=()):
        return subprocess.run(
            [sys.executable, *options, str(script), *map(str, arguments)],
            cwd=elsewhere, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    return run


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a bundle's script in this process, which is quicker; returns what ``run`` does."""

    def call(script, *arguments):
        command = [str(script), *map(str, arguments)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "dont_write_bytecode", True)
            patch.syspath_prepend(script.parent)
            patch.delitem(sys.modules, "model", raising=False)
            capsys.readouterr()
            try:
                runpy.run_path(command[0], run_name="__main__")
                code = 0
            except SystemExit as exit:
                code = exit.code
            finally:
                sys.modules.pop("model", None)
        out, err = capsys.readouterr()
        if isinstance(code, str):
            code, err = 1, f"{err}{code}\n"
        return subprocess.CompletedProcess(command, code, out, err)

    return call


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, digit_images):
    """Image files of several kinds: sizes, colours, a rotated camera, names with spaces."""
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
