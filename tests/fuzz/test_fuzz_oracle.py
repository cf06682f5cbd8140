"""The oracle finds every kind of bad ending, and the guard what no output shows."""

import dataclasses
import json
import multiprocessing
import os
import socket
import subprocess
import sys

import pytest

from fuzz.guard import Forbidden, Guard
from fuzz.oracle import MAX_MEMORY, Ended, documented_codes, failures

REFUSED = Ended(1, "", "error: m.onnx cannot be read: it is damaged\n")
RECORD = json.dumps(
    {"predictions": [{"image": "0.png", "top": [{"label": "a", "probability": 0.75}]}]}
)
PREDICTED = Ended(0, RECORD, "")


def _found(ended, **changes):
    expected = changes.pop("expected", None)
    return failures(dataclasses.replace(ended, **changes), limit_s=20, expected=expected)


def test_a_refusal_in_one_line_is_right():
    assert _found(REFUSED) == []
    assert _found(REFUSED, err=f"made the folder out\n{REFUSED.err}") == []


def test_a_prediction_as_promised_is_right():
    assert _found(PREDICTED, expected=RECORD) == []
    assert _found(PREDICTED) == []


def test_the_exit_codes_are_those_of_the_page():
    assert {0, 1, 2, 3, 4, 5, 6, 7, 130, 141} <= documented_codes()
    assert 139 not in documented_codes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"why": "hang"}, "hang"),
        ({"why": "crash"}, "crash"),
        ({"why": "memory"}, "memory"),
        ({"code": 99}, "exit code 99"),
        ({"code": None}, "exit code None"),
        ({"seconds": 21.0}, "slow"),
        ({"memory_bytes": MAX_MEMORY + 1}, "memory"),
        ({"left": ("m.tflite",)}, "left: m.tflite"),
        ({"contacts": ("socket.connect x",)}, "contact: socket.connect x"),
        ({"native": "libprotobuf: failed\n"}, "native code printed"),
        ({"err": "error: \x1b[2Jx is damaged\n"}, "control characters"),
        ({"err": "error: \N{RIGHT-TO-LEFT OVERRIDE}x is damaged\n"}, "control characters"),
        ({"err": "Traceback (most recent call last):\nerror: a line\n"}, "a traceback"),
        ({"err": "error: unexpected KeyError: x (this is a bug: -v shows)\n"}, "not foreseen"),
        ({"err": "x.py:1: RuntimeWarning: overflow\nerror: a line\n"}, "a warning of a library"),
        ({"err": ""}, "0 error lines"),
        ({"err": "m.onnx is damaged\n"}, "0 error lines"),
        ({"err": "error: one line\nerror: another\n"}, "2 error lines"),
        ({"err": "error: one line\nand one more\n"}, "1 error lines, 2 lines"),
        ({"err": "error: \n"}, "says nothing"),
        ({"out": "half a table\n"}, "standard output beside an error"),
    ],
)
def test_a_bad_refusal_is_found(changes, reason):
    assert any(reason in failure for failure in _found(REFUSED, **changes)), _found(
        REFUSED, **changes
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"out": RECORD.replace("0.75", "0.7")}, "other answers"),
        ({"out": RECORD.replace('"a"', '"b"')}, "other answers"),
        ({"err": "error: something\n"}, "an error line without an error"),
        ({"out": f"{RECORD}\x9b31m"}, "control characters"),
    ],
)
def test_a_bad_success_is_found(changes, reason):
    found = _found(PREDICTED, **({"expected": RECORD} if "other" in reason else {}), **changes)
    assert any(reason in failure for failure in found), found


def test_other_answers_are_right_where_the_command_says_that_the_file_is_changed():
    changed = {"out": RECORD.replace("0.75", "0.7"), "err": "m.tflite was changed\n"}
    assert _found(PREDICTED, **changed, expected=RECORD) == []


def _misbehave(root, connection):
    """Does in a process of its own, where the hook stays, everything that the guard looks for."""
    guard = Guard(root)
    with guard.watching() as seen:
        for act in (
            lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.getaddrinfo("localhost", 9),
            lambda: subprocess.run(["true"]),
            lambda: os.system("true"),
            lambda: (root.parent / "outside").write_text("x"),
            (root.parent / "folder").mkdir,
            lambda: (root / "inside").write_text("x"),
            lambda: subprocess.run([sys.executable, "-c", ""]),
        ):
            try:
                act()
            except Forbidden:
                seen.append("blocked")
    (root.parent / "later").write_text("x")
    connection.send(seen)


def test_the_guard_sees_connections_programs_and_files_elsewhere(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_misbehave, args=(root, theirs))
    process.start()
    seen = ours.recv()
    process.join()
    assert seen == [
        "socket.getaddrinfo 127.0.0.1", "blocked", "socket.getaddrinfo localhost", "blocked",
        "ran true", "blocked", "os.system b'true'", f"wrote {tmp_path / 'outside'}",
        f"wrote {tmp_path / 'folder'}",
    ]  # fmt: skip
