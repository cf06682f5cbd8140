"""Every output of every command on a disk that is full: old files stay whole, the error is a line.

``small_disk`` is a file system of its own, mounted where this machine lets us.
"""

import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

QUICK = ("--min-runs", 5, "--min-seconds", 0, "--warmup-seconds", 0)
OLD = b"the old file"
# Python takes another temporary folder where it cannot write a few bytes.
PROBED = 8192
# What is exported to one file or several, and everything else that a command writes.
COMMANDS = {
    "tflite": ("export", "tflite", "{run}", "--samples", 8, "-o", "{disk}/m.tflite"),
    "tflite int8": ("export", "tflite", "{run}", "--quantize", "int8", "-o", "{disk}/m.tflite"),
    "onnx": ("export", "onnx", "{run}", "--samples", 8, "-o", "{disk}/m.onnx"),
    "export": ("export", "export", "{run}", "--quantize", "none", "-o", "{disk}"),
    "import": ("export", "import", "{run}", "--classes", 4, "-o", "{disk}/m.keras"),
    "bundle": ("export", "bundle", "{file}", "--target", "raspberry-pi", "-o", "{disk}/bundle"),
    "bundle android": ("export", "bundle", "{file}", "--target", "android", "-o", "{disk}/bundle"),
    "train": ("export", "train", "--data", "{data}", "--epochs", 1, "-o", "{disk}/run"),
    **{
        f"{command[0]} {kind}": ("export", *command, f"--{kind}", f"{{disk}}/table.{kind}")
        for kind in ("json", "csv", "markdown")
        for command in (
            ("inspect", "{file}"),
            ("predict", "{file}", "{picture}"),
            ("quantize-report", "{run}", "--samples", 4),
        )
    },
    "quantize-report plot": (
        "export", "quantize-report", "{run}", "--samples", 4, "--plot", "{disk}/table.png",
    ),
    "verify json": ("export", "verify", "{file}", "--samples", 8, "--json", "{disk}/table.json"),
    "tflite json": (
        "export", "tflite", "{run}", "-o", "{here}/m.tflite", "--json", "{disk}/table.json",
    ),
    **{
        f"{command} {kind}": ("bench", command, "{file}", *QUICK, f"--{kind}", f"{{disk}}/t.{kind}")
        for command, kind in (
            ("tflite", "html"), ("tflite", "csv"), ("compare", "markdown"), ("compare", "json"),
        )
    },
}  # fmt: skip


@pytest.fixture
def small_disk(mounted):
    """A file system of 256 kB."""
    return mounted(256)


@pytest.fixture
def places(tmp_path, digits_run, exports, digit_images):
    """What stands for the names in ``COMMANDS``."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    images, labels = (array[:60] for array in digit_images)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "data.npz", **arrays)
    return {
        "run": digits_run, "file": exports("tflite").path, "picture": tmp_path / "red.png",
        "data": tmp_path / "data.npz", "here": tmp_path,
    }  # fmt: skip


def _content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _fill(folder, free=0):
    """Fills a disk but for some bytes."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            filler.truncate(filler.tell() - free)


def _outputs(command, places):
    """Returns the paths below the disk that a command names."""
    words = [str(word) for word in command if "{disk}/" in str(word)]
    return [word.format(**places) for word in words]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("is_old", [True, False], ids=["over an old file", "new"])
def test_a_full_disk_is_one_line_and_old_files_stay_whole(
    in_process, small_disk, places, name, is_old
):
    places |= {"disk": small_disk}
    program, *arguments = COMMANDS[name]
    for output in _outputs(arguments, places) if is_old else ():
        if not output.endswith(("/run", "/bundle")):
            (small_disk / output).write_bytes(OLD)
    _fill(small_disk)
    before = _content(small_disk)
    words = [str(word).format(**places) for word in arguments]
    ended = in_process(program, *words, "-q")
    assert ended.code == 1, ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("error: cannot write"), line
    assert "No space left on device" in line
    after = _content(small_disk)
    # The lock of a run directory is an empty file that every run has.
    after.pop((small_disk / "run/.lock").relative_to(small_disk), None)
    assert after == before


def test_a_full_disk_in_the_middle_of_a_run_leaves_a_run_that_can_be_resumed(
    in_process, small_disk, places
):
    run = small_disk / "run"
    options = ("train", "--data", places["data"], "-o", run, "-q")
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    short = ("--epochs", 1, "--schedule", "constant", "--warmup", 0)
    ended = in_process("export", *options, *short)
    assert ended.code == 0, ended.err
    _fill(small_disk)
    before = {path: content for path, content in _content(run).items() if path.name != "run.json"}
    longer = ("--epochs", 2, "--resume")
    ended = in_process("export", *options, *longer)
    assert ended.code == 1
    assert "No space left on device" in ended.err
    assert len(ended.err.splitlines()) == 1, ended.err
    after = {path: content for path, content in _content(run).items() if path.name != "run.json"}
    assert after == before
    (small_disk / "filler").unlink()
    ended = in_process("export", *options, *longer)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("name", ["tflite", "onnx", "quantize-report json"])
def test_a_full_temporary_folder_is_one_line_and_old_files_stay_whole(
    cct_export, small_disk, places, tmp_path, name
):
    places |= {"disk": tmp_path / "out"}
    places["disk"].mkdir()
    arguments = COMMANDS[name][1:]
    (output,) = _outputs(arguments, places)
    (tmp_path / output).write_bytes(OLD)
    _fill(small_disk, free=PROBED)
    words = [str(word).format(**places) for word in arguments]
    ended = cct_export(*words, "-q", TMPDIR=str(small_disk))
    if name.startswith("quantize-report"):  # needs no temporary file
        assert ended.returncode == 0, ended.stderr
        return
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: cannot ")
    assert "No space left on device" in line
    assert _content(places["disk"]) == {(tmp_path / output).relative_to(places["disk"]): OLD}
    # Engines may keep files of their own there, as ONNX Runtime its .ses.
    assert not [path for path in small_disk.iterdir() if path.name.startswith(("tmp", ".tmp"))]


def test_what_is_written_through_needs_a_temporary_folder_and_says_so(
    cct_export, small_disk, exports, tmp_path
):
    os.mkfifo(tmp_path / "pipe")
    _fill(small_disk, free=PROBED)
    path, options = exports("tflite").path, ("--json", tmp_path / "pipe", "-q")
    ended = cct_export("inspect", path, *options, TMPDIR=str(small_disk))
    assert ended.returncode == 1
    assert ended.stderr == f"error: cannot write {tmp_path}/pipe: No space left on device\n"


def test_an_export_that_fills_the_disk_half_way_leaves_no_half(in_process, small_disk, digits_run):
    path = small_disk / "m.onnx"
    path.write_bytes(OLD)
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
    before = _content(small_disk)
    ended = in_process("export", "onnx", digits_run, "--samples", 8, "-o", path, "-q")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert _content(small_disk) == before
