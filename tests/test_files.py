"""A reader sees the old file or the new one, never half of one."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from cct_export.errors import OutputError
from cct_export.files import check_writable, replacing, sha256, write_bytes, write_text

KILOBYTES_64 = 64 * 1024


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_new_content_replaces_the_old(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert _names(tmp_path) == ["a.txt"]


def test_missing_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a/b/c.bin", b"x")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"x"


def test_an_error_inside_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def test_the_temporary_file_has_the_suffix_and_lies_in_the_same_folder(tmp_path):
    with replacing(tmp_path / "m.keras") as temporary:
        assert temporary.suffix == ".keras"
        assert temporary.parent == tmp_path


def test_a_new_file_has_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", [".", "file/a.bin", "file/deeper/a.bin"])
def test_what_cannot_be_written_is_refused_and_named(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        check_writable(tmp_path / name)
    with pytest.raises(OutputError, match="cannot write"):
        write_bytes(tmp_path / name, b"x")
    assert _names(tmp_path) == ["file"]


def test_the_checksum_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    told = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, text=True)
    assert sha256(tmp_path / "a") == told.stdout.split()[0]


def _small_files_only():
    resource.setrlimit(resource.RLIMIT_FSIZE, (KILOBYTES_64, KILOBYTES_64))


def test_a_write_that_does_not_fit_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = (
        "import sys, pathlib; from cct_export.files import write_bytes\n"
        "write_bytes(pathlib.Path(sys.argv[1]), b'x' * 200_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        preexec_fn=_small_files_only,
    )
    assert "OutputError: cannot write" in done.stderr
    assert "too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def _export(model, output, **options):
    code = "from cct_export.commands.program import export_main; export_main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "tflite", model, "-o", output, "--samples", "8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _assert_refused(process, folder):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: cannot ")
    assert out == ""
    assert _names(folder) == ["m.tflite", "m.tflite.json"]
    assert (folder / "m.tflite").read_bytes() == b"the old file"
    assert (folder / "m.tflite.json").read_bytes() == b"its sidecar"


def _with_old_file(folder):
    (folder / "m.tflite").write_bytes(b"the old file")
    (folder / "m.tflite.json").write_bytes(b"its sidecar")


def test_an_export_that_may_not_write_so_much_says_so_and_leaves_the_old_file(
    tmp_path, digits_model
):
    _with_old_file(tmp_path)
    process = _export(digits_model, tmp_path / "m.tflite", preexec_fn=_small_files_only)
    _assert_refused(process, tmp_path)


@pytest.fixture
def small_disk(mounted):
    """A file system of 64 kB."""
    return mounted(64)


def test_an_export_to_a_full_disk_says_so_and_leaves_the_old_file(small_disk, digits_model):
    _with_old_file(small_disk)
    process = _export(digits_model, small_disk / "m.tflite")
    _assert_refused(process, small_disk)


def test_a_process_killed_while_it_writes_leaves_old_or_new(tmp_path):
    path = tmp_path / "a.bin"
    size = 8_000_000
    path.write_bytes(b"a" * size)
    code = (
        "import itertools, sys, pathlib; from cct_export.files import write_bytes\n"
        "for letter in itertools.cycle((b'a', b'b')):\n"
        f"    write_bytes(pathlib.Path(sys.argv[1]), letter * {size})\n"
        "    print(flush=True)"
    )
    seen = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(seen.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        content = path.read_bytes()
        assert content in (b"a" * size, b"b" * size)


def test_an_export_killed_while_it_writes_leaves_old_or_new(tmp_path, digits_model):
    from cct_export.records import sidecar
    from cct_export.runtimes import litert

    path = tmp_path / "m.tflite"
    path.write_bytes(b"the old file")
    process = _export(digits_model, path)
    with process:
        # From the first temporary file on, the two files are written and renamed.
        while process.poll() is None and not list(tmp_path.glob(".tmp-*")):
            with contextlib.suppress(FileNotFoundError):
                if path.read_bytes() != b"the old file":
                    break
        process.kill()
    if path.read_bytes() == b"the old file":
        assert sidecar.read(path) is None
    else:
        assert sidecar.read(path).golden.images.shape == (8, 32, 32, 3)
        litert.open_session(path, trusted=True)
