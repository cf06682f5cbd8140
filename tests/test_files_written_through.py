"""What is no regular file is written through; links are followed; leftovers are removed."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cct_export import files
from cct_export.errors import OutputError
from cct_export.files import TEMPORARY, check_writable, locked, replacing, write_bytes, write_text

TWO_HOURS = 7200


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    """The system's temporary folder, empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(files.tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def device(tmp_path):
    """Returns a copy of a device, such as null: the machine's own must survive a failing test."""

    def make(name):
        path = tmp_path / name
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, Path("/dev", name).stat().st_rdev)
            path.open("wb").close()
        except PermissionError as error:
            pytest.skip(f"no device can be made here: {error}")
        return path

    return make


def _in_process(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", f"import pathlib, sys\n{code}", *map(str, arguments)],
        text=True, timeout=60, **options,
    )  # fmt: skip


WRITE = "from cct_export.files import write_text; write_text(pathlib.Path(sys.argv[1]), 'new')"


def test_a_device_stays_a_device(device, temporary):
    null = device("null")
    check_writable(null)
    write_bytes(null, b"content")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert _names(null.parent) == ["null"]
    assert _names(temporary) == []


def test_a_full_device_is_one_error_that_names_it(device, temporary):
    full = device("full")
    with pytest.raises(OutputError, match=rf"^cannot write {full}: No space left on device$"):
        write_bytes(full, b"content")
    assert stat.S_ISCHR(full.stat().st_mode)
    assert _names(temporary) == []


def test_the_reader_of_a_pipe_gets_the_content(tmp_path, temporary):
    pipe, got = tmp_path / "pipe.npz", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with replacing(pipe) as written:
        assert written.parent == temporary
        assert written.suffix == ".npz"
        np.savez(written, x=np.arange(30_000))  # a writer that seeks, and more than a pipe holds
        expected = written.read_bytes()
    reader.join(timeout=30)
    assert got == [expected]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert _names(temporary) == []


def test_nothing_reaches_a_pipe_when_the_block_fails(tmp_path, temporary):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ZeroDivisionError), replacing(pipe) as written:
        written.write_bytes(b"half")
        _ = 1 / 0
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert _names(temporary) == []


def test_a_socket_is_refused_and_stays(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(tmp_path):
        listening.bind("socket")
        for write in (check_writable, lambda path: write_bytes(path, b"x")):
            with pytest.raises(OutputError, match=r"cannot write .*: it is a socket; name a file"):
                write(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert _names(tmp_path) == ["socket"]


def test_a_disk_is_refused(tmp_path):
    path = tmp_path / "disk"
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except PermissionError as error:
        pytest.skip(f"no device can be made here: {error}")
    with pytest.raises(OutputError, match=r"it is a disk; name a file"):
        write_bytes(path, b"x")


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there/a.txt", tmp_path / "link.txt"
    target.write_text("old")
    (tmp_path / "between").symlink_to("there/a.txt")
    link.symlink_to("between")
    before = target.stat().st_ino
    with replacing(link) as written:
        assert written.parent == target.parent
        written.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_ino != before
    assert _names(target.parent) == ["a.txt"]
    assert _names(tmp_path) == ["between", "link.txt", "there"]


def test_a_dangling_link_creates_its_target(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("new/folder/a.txt")
    check_writable(link)
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "new/folder/a.txt").read_text() == "new"


def test_a_loop_of_links_is_one_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a/x.txt"):
        for write in (check_writable, lambda path: write_bytes(path, b"x")):
            with pytest.raises(OutputError, match=r"^cannot write .*Too many levels of symbolic"):
                write(path)
    assert _names(tmp_path) == ["a", "b"]


def test_a_file_that_is_there_keeps_its_permissions(tmp_path):
    path = tmp_path / "a"
    for mode in (0o600, 0o755, 0o444, 0o200):
        path.write_bytes(b"old")
        path.chmod(mode)
        write_bytes(path, b"new")
        assert path.stat().st_mode & 0o7777 == mode
        path.chmod(0o600)
        assert path.read_bytes() == b"new"


@pytest.fixture
def stream(tmp_path):
    """Returns a link such as /dev/stdout, which itself must survive a failing test."""

    def link(name):
        path = tmp_path / "links" / name
        path.parent.mkdir()
        path.symlink_to(Path("/dev", name).readlink())
        return path

    return link


@pytest.mark.parametrize("name", ["link", "/dev/fd/1", "/proc/self/fd/1", "file"])
def test_a_file_that_is_standard_output_is_appended_to(tmp_path, stream, name):
    code = f"print('before', flush=False); {WRITE}; print('after')"
    path = tmp_path / "out.txt"
    name = {"link": stream("stdout"), "file": path}.get(name, name)
    with path.open("w") as stdout:
        stdout.write("first ")
        stdout.flush()
        done = _in_process(code, name, stdout=stdout, stderr=subprocess.PIPE)
    assert done.stderr == ""
    assert path.read_text() == "first before\nnewafter\n"
    assert _names(tmp_path) == ["links", "out.txt"]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_standard_output_may_be_a_pipe_or_a_socket(stream, kind):
    link = stream("stdout")
    if kind == "pipe":
        done = _in_process(WRITE, link, stdout=subprocess.PIPE)
        assert done.stdout == "new"
        return
    here, there = socket.socketpair()
    with here, there:
        assert _in_process(WRITE, link, stdout=there).returncode == 0
        there.close()
        assert here.recv(10) == b"new"


def test_standard_error_is_written_where_what_native_code_prints_is_hidden(stream, device):
    code = (
        "from cct_export.files import write_text\n"
        "from cct_export.streams import native_stderr_hidden\n"
        "with native_stderr_hidden(): write_text(pathlib.Path(sys.argv[1]), 'new')"
    )
    done = _in_process(code, stream("stderr"), capture_output=True)
    assert (done.stdout, done.stderr) == ("", "new")
    # There descriptor 2 is the null device, which is not standard error.
    done = _in_process(code, device("null"), capture_output=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_process_substitution_gets_the_content(tmp_path):
    shell = f'{sys.executable} -c "import pathlib, sys; {WRITE}" >(cat > "$0"); wait $!'
    done = subprocess.run(
        ["bash", "-c", shell, tmp_path / "a"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert (tmp_path / "a").read_text() == "new"


def _leftover(folder, name, age_s=TWO_HOURS):
    path = folder / name
    if name.endswith("/"):
        path.mkdir()
        (path / "file").write_bytes(b"half")
    else:
        path.write_bytes(b"half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_a_killed_process_left_is_removed_by_the_next_write_into_the_folder(tmp_path):
    _leftover(tmp_path, f"{TEMPORARY}abc.tflite")
    _leftover(tmp_path, f"{TEMPORARY}bundle/")
    kept = [
        _leftover(tmp_path, f"{TEMPORARY}now.tflite", age_s=60),
        _leftover(tmp_path, ".tmp-abc.tflite"),
        _leftover(tmp_path, "mine" + TEMPORARY),
    ]
    link = tmp_path / f"{TEMPORARY}link"
    link.symlink_to(kept[1])
    pipe = tmp_path / f"{TEMPORARY}pipe"
    os.mkfifo(pipe)
    os.utime(pipe, (0, 0))
    if os.geteuid() == 0:
        kept.append(_leftover(tmp_path, f"{TEMPORARY}other"))
        os.chown(kept[-1], 12345, 12345)
        os.utime(kept[-1], (0, 0))
    write_bytes(tmp_path / "a", b"x")
    assert _names(tmp_path) == sorted(path.name for path in (*kept, link, pipe, tmp_path / "a"))


def test_what_was_left_in_the_temporary_folder_is_removed_too(device, temporary):
    _leftover(temporary, f"{TEMPORARY}abc.json")
    write_bytes(device("null"), b"x")
    assert _names(temporary) == []


def test_a_locked_folder_makes_others_wait_and_nothing_is_left(tmp_path):
    code = (
        "from cct_export.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), wait_s=30): print('locked', flush=True)"
    )
    command = [sys.executable, "-c", f"import pathlib, sys\n{code}", tmp_path]
    with locked(tmp_path, wait_s=1):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=2)
    assert other.communicate(timeout=30)[0] == "locked\n"
    assert _names(tmp_path) == []


def test_a_lock_that_another_program_keeps_is_not_waited_for_forever(tmp_path):
    with locked(tmp_path, wait_s=1):
        start = time.monotonic()
        with locked(tmp_path, wait_s=0.3):
            assert 0.2 < time.monotonic() - start < 10
