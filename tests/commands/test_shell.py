"""What a shell sees: completion in bash, and a reader that closes the pipe."""

import os
import subprocess
import sys

import pytest

COMPLETE = """
compopt() { :; }  # works in an interactive shell alone
eval "$(_CCT_EXPORT_COMPLETE=bash_source cct-export)"
eval "$(_CCT_BENCH_COMPLETE=bash_source cct-bench)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
program=${1//-/_}
"_${program}_completion" "$1"
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def programs(tmp_path):
    """The environment of a shell that finds the two programs."""
    for name in ("export", "bench"):
        script = tmp_path / f"cct-{name}"
        main = f"from cct_export.commands.program import {name}_main; {name}_main()"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{main}" "$@"\n')
        script.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.fixture
def bash(programs, tmp_path):
    """Runs a script in bash, in a folder with a model; returns the process."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "cct.keras").touch()

    def run(script, *arguments):
        command = ["bash", "-c", script, "bash", *arguments]
        return subprocess.run(command, cwd=folder, env=programs, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("cct-export t", "tflite train"),
        ("cct-export tflite --quan", "--quantize"),
        ("cct-export tflite --quantize int8", "int8-dynamic int8 int8-full"),
        ("cct-export onnx --target ", "x86 arm64"),
        ("cct-export tflite cct", "cct_keras_io cct_2_3x2_32 cct_keras_io_example cct.keras"),
        ("cct-export inspect cct_14_7x2_384", "cct_14_7x2_384 cct_14_7x2_384_sine"),
        ("cct-export tflite --optimize s", "size speed"),
        ("cct-export tflite --no-fold query", "query-scale query-key"),
        ("cct-export train --optimizer ", "adamw muon sgd"),
        ("cct-export auto --engines o", "onnxruntime openvino"),
        ("cct-export auto --engines openvino,o", "openvino,onnxruntime"),
        ("cct-export bundle x.tflite --target r", "raspberry-pi"),
        ("cct-export verify x", ""),  # bash completes files itself
        ("cct-bench onnx --delegate c", "cpu cuda coreml"),
        ("cct-bench tflite --data c", "cifar10 cifar100 cct.keras"),
        ("cct-bench device s", "setup"),
    ],
)
def test_bash_completes_commands_options_names_and_files(bash, words, completions):
    ended = bash(COMPLETE, *words.split(" "))
    assert (ended.stdout.strip(), ended.stderr) == (completions, "")


def test_completing_imports_nothing_heavy(programs):
    code = (
        "import atexit, sys; from cct_export.commands.program import export_main\n"
        "atexit.register(lambda: print('numpy' in sys.modules, file=sys.stderr))\n"
        "export_main()"
    )
    environment = programs | {
        "_CCT_EXPORT_COMPLETE": "bash_complete", "COMP_CWORD": "3",
        "COMP_WORDS": "cct-export tflite --quantize ",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "plain,int8-full" in ended.stdout
    assert ended.stderr == "False\n"


@pytest.mark.parametrize(
    "line",
    ["cct-export inspect m.tflite", "cct-export inspect m.tflite --json -", "cct-export --help",
     "cct-export tflite --help", "cct-export tflite gone.keras 2>&1"],
)  # fmt: skip
def test_a_reader_that_closes_the_pipe_ends_a_command_quietly(bash, exports, line):
    path = exports("tflite").path
    script = f"{line.replace('m.tflite', str(path))} | true; echo ${{PIPESTATUS[0]}}"
    ended = bash(script)
    assert ended.stdout == "141\n"
    # With --json - the tables are on standard error.
    assert "Broken pipe" not in ended.stderr
    assert "error" not in ended.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_may_be_closed(tmp_path, closed):
    code = "from cct_export.commands.program import export_main; export_main()"
    record = 2 if ">&- 2" in closed or closed == ">&-" else 0
    for arguments, expected in (
        ("tflite --quantize int9", 2),
        ("inspect cct_keras_io", 0),
        ("inspect cct_keras_io --json -", record),  # which would be lost
    ):
        command = f'"{sys.executable}" -c "{code}" {arguments} {closed}'
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == expected, done.stderr
        assert "Traceback" not in done.stderr
