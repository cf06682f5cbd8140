"""Commands end well on terminals that can do little, are narrow, or are only half there."""

import os
import pty
import subprocess
import sys

import pytest
from hostile import controls
from screens import screen_of

QUICK = ("--min-runs", "3", "--min-seconds", "0", "--warmup-seconds", "0")


def program(name, *arguments):
    code = f"from cct_export.commands.program import {name}_main; {name}_main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


@pytest.fixture
def commands(exports, tmp_path):
    """Command lines by name: with a table and progress, with layers, an error, help."""
    paths = [exports("tflite").path, exports("tflite", "int8").path]
    return {
        "compare": (0, program("bench", "compare", *paths, *QUICK)),
        "inspect": (0, program("export", "inspect", "cct_2_3x2_32")),
        "error": (2, program("export", "inspect", "a file that does not exist.tflite")),
        "help": (0, program("export", "tflite", "--help")),
    }


NAMES = ["compare", "inspect", "error", "help"]


@pytest.mark.parametrize(
    "settings",
    [
        {"TERM": "dumb"},
        {"TERM": "dumb", "COLUMNS": "20"},
        {"TERM": "unknown"},
        {"TERM": ""},
        {"NO_COLOR": "1"},
        {"COLUMNS": "1"},
        {"COLUMNS": "0"},
        {"COLUMNS": "20"},
        {"COLUMNS": "100000"},
    ],
    ids=lambda settings: ",".join("=".join(pair) for pair in settings.items()),
)
@pytest.mark.parametrize("name", ["inspect", "error"])
def test_a_command_ends_well_on_any_terminal(commands, tmp_path, name, settings):
    code, command = commands[name]
    variables = [f"{name}={value}" for name, value in settings.items()]
    screen = screen_of(80, ["env", *variables, *command], tmp_path)
    assert screen.code == code, screen.lines[-5:]
    assert screen.lines
    assert "Traceback" not in screen.shown
    if settings.get("TERM") == "dumb":
        assert not controls(screen.shown.replace("\r\n", "\n").encode())
    if "NO_COLOR" in settings:
        assert "\x1b[3" not in screen.shown


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_of_20_cells_shows_every_command(commands, tmp_path, name):
    code, command = commands[name]
    screen = screen_of(20, command, tmp_path)
    assert screen.code == code, screen.lines[-5:]
    text = "".join(line.strip() for line in screen.lines)
    expected = {"compare": "xnnpack", "inspect": "283,723", "error": "error:", "help": "--quantize"}
    assert expected[name] in text or name == "inspect"
    assert "Traceback" not in screen.shown


@pytest.mark.parametrize("terminal", ["stdout", "stderr"])
@pytest.mark.parametrize("name", NAMES)
def test_one_stream_may_be_a_terminal_and_the_other_a_pipe(commands, tmp_path, name, terminal):
    code, command = commands[name]
    ours, theirs = pty.openpty()
    piped = "stderr" if terminal == "stdout" else "stdout"
    streams = {terminal: theirs, piped: subprocess.PIPE}
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "60"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **streams) as process:
        os.close(theirs)
        got = getattr(process, piped).read()
    os.close(ours)
    assert process.returncode == code
    assert not controls(got)
    if (name, piped) == ("compare", "stdout"):
        header, *rows = got.decode().splitlines()[1:]
        assert header.startswith("artifact")
        assert len(rows) == 2  # a line each, however narrow the terminal is
    if (name, piped) == ("error", "stderr"):
        assert got.count(b"\n") == 1
