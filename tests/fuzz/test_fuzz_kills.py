"""What is checked after a kill can fail, and a real command is killed."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fuzz import kills, remains, seeds
from fuzz.starter import MARK, Starter


def test_a_documented_ending_is_right():
    assert remains.ending(130, signal.SIGINT, "interrupted\n") == []
    assert remains.ending(0, signal.SIGTERM, "") == []


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (1, "error: x\n", "ended with 1"),
        (-11, "", "ended with -11"),
        (130, "Traceback (most recent call last):\n", "said"),
    ],
)
def test_a_bad_ending_is_found(code, said, reason):
    (failure,) = remains.ending(code, signal.SIGINT, said)
    assert reason in failure


def test_files_that_are_old_or_new_are_right(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").write_bytes(b"new b")
    old, new = {"a": b"old"}, {"a": b"new", "b": b"new b", "c": b"new c"}
    assert remains.torn(tmp_path, old, new) == []


@pytest.mark.parametrize("content", [b"ne", b"", b"other", None])
def test_a_torn_file_is_found(tmp_path, content):
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    (failure,) = remains.torn(tmp_path, {"a": b"old"}, {"a": b"new"})
    assert failure.startswith("a is ")


def test_a_record_that_is_half_written_is_found(tmp_path):
    (tmp_path / "out.json").write_bytes(b'{"results": [')
    assert remains.torn(tmp_path, {}, {"out.json": b"{}\n"}) != []
    (tmp_path / "out.json").write_bytes(b'{"results": []}\n')
    assert remains.torn(tmp_path, {}, {"out.json": b"{}\n"}) == []


def test_temporary_files_are_found(tmp_path):
    (tmp_path / "run").mkdir()
    assert remains.temporary(tmp_path) == []
    (tmp_path / "run/.tmp-x.npz").touch()
    assert [path.name for path in remains.temporary(tmp_path)] == [".tmp-x.npz"]


def _archive(value):
    packed = io.BytesIO()
    np.savez(packed, weight=np.full(3, value, np.float32))
    return packed.getvalue()


def test_weights_that_differ_in_one_bit_are_found():
    assert not remains.differing(_archive(1), _archive(1))
    assert remains.differing(_archive(1), _archive(np.nextafter(np.float32(1), np.float32(2))))


def test_a_process_that_outlives_its_command_is_found():
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env=os.environ | {MARK: "here"}
    )
    try:
        (name,) = remains.processes("here", limit_s=0.5)
        assert "time.sleep" in name
        assert remains.processes("elsewhere", limit_s=0) == []
    finally:
        child.kill()
        child.wait()
    assert remains.processes("here", limit_s=5) == []


@pytest.mark.slow
def test_a_command_is_killed_and_its_old_output_stays(once, tmp_path):
    folder = Path(once("fuzz", lambda folder: seeds.make(folder / "seeds"))) / "seeds"
    scenario = next(each for each in kills.SCENARIOS if each.name == "predict")
    with Starter() as starter:
        killer = kills.Killer(scenario, folder, starter, tmp_path)
        assert killer.kill(signal.SIGKILL, 0.0, "at the start") == []
        assert (tmp_path / "files/out.json").read_bytes() == killer._old["out.json"]
        assert killer.kill(signal.SIGKILL, 1000.0, "never") == []
        assert (tmp_path / "files/out.json").read_bytes() == killer._new["out.json"]
