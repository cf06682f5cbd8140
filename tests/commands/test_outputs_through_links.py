"""Outputs that are devices and pipes, and links that lead to them or to other files."""

import hashlib
import os
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def null(tmp_path):
    """A copy of the null device: the machine's own must survive a failing test."""
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, Path("/dev/null").stat().st_rdev)
        path.open("wb").close()
    except PermissionError as error:
        pytest.skip(f"no device can be made here: {error}")
    return path


def test_every_output_may_be_the_null_device_and_several_at_a_time(in_process, exports, null):
    options = ("--json", null, "--csv", null, "--markdown", null)
    ended = in_process("export", "inspect", exports("tflite").path, *options)
    assert ended.code == 0, ended.err
    assert stat.S_ISCHR(null.stat().st_mode)
    assert [path.name for path in null.parent.iterdir()] == ["null"]


def test_a_pipe_takes_one_output(in_process, exports, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = exports("tflite").path
    ended = in_process("export", "inspect", source, "--json", pipe, "--markdown", pipe)
    assert ended.code == 2
    assert f"{pipe} is named twice" in ended.err


def test_a_plot_and_a_file_may_go_through_links_to_a_device(in_process, digits_run, tmp_path, null):
    for name in ("plot.png", "m.tflite"):
        (tmp_path / name).symlink_to("null")
    plot = ("--plot", tmp_path / "plot.png", "--samples", 4)
    ended = in_process("export", "quantize-report", digits_run, *plot)
    assert ended.code == 0, ended.err
    output = ("-o", tmp_path / "m.tflite", "--samples", 8)
    ended = in_process("export", "tflite", digits_run, *output)
    assert ended.code == 0, ended.err
    assert stat.S_ISCHR(null.stat().st_mode)
    assert (tmp_path / "m.tflite").is_symlink()


def test_an_imported_model_may_go_through_a_pipe(tmp_path, digits_model):
    from cct_export.api import import_model

    pipe, got = tmp_path / "m.keras", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    imported = import_model(digits_model, classes=4, output=pipe)
    reader.join(timeout=60)
    assert imported.size_bytes == len(got[0])
    assert imported.sha256 == hashlib.sha256(got[0]).hexdigest()


@pytest.mark.parametrize("source", ["model", "data"])
def test_an_export_through_a_link_to_what_it_reads_is_refused(
    in_process, digits_run, digit_images, tmp_path, source
):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    images, labels = digit_images
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "data.npz", **arrays)
    read = {"model": run / "best.keras", "data": tmp_path / "data.npz"}[source]
    (tmp_path / "m.tflite").symlink_to(read)
    before = read.read_bytes()
    output = ("-o", tmp_path / "m.tflite", "--data", tmp_path / "data.npz")
    ended = in_process("export", "tflite", run, *output)
    assert ended.code == 2
    assert "name another file" in ended.err
    assert read.read_bytes() == before


def test_an_output_that_leads_to_an_artifact_or_a_run_is_refused(in_process, exports, tmp_path):
    for name in ("m.tflite", "best.keras", "run.json"):
        (tmp_path / name).write_text("kept")
        link = tmp_path / f"to {name}.json"
        link.symlink_to(name)
        ended = in_process("export", "inspect", exports("tflite").path, "--json", link)
        assert ended.code == 2
        assert "choose another" in ended.err
        assert (tmp_path / name).read_text() == "kept"


def test_links_in_a_circle_are_one_line(in_process, exports, tmp_path, digits_run):
    loop = tmp_path / "loop.tflite"
    loop.symlink_to("loop.tflite")
    for arguments in (
        ("inspect", exports("tflite").path, "--csv", tmp_path / "x.csv", "--json", loop / "a"),
        ("tflite", digits_run, "-o", loop),
        ("tflite", digits_run, "-o", loop, "--json", tmp_path / "a.json"),
        ("train", "-o", loop, "--data", "digits", "--json", tmp_path / "a.json"),
        ("bundle", exports("tflite").path, "--target", "android", "-o", loop),
    ):
        ended = in_process("export", *arguments)
        assert ended.code == 1, ended.err
        (line,) = ended.err.splitlines()
        assert line.startswith("error: cannot write")
        assert "Too many levels of symbolic links" in line
    assert [path.name for path in tmp_path.iterdir()] == ["loop.tflite"]
