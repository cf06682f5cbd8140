"""Every command and option has help, and help is quick: nothing heavy is loaded for it."""

import json
import subprocess
import sys

import click
import pytest

from cct_export.commands import program

HEAVY = {
    "numpy", "PIL", "plotly", "psutil", "tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx", 
    "ai_edge_litert", "ai_edge_quantizer", "sklearn", "h5py", "matplotlib", "jax", "torch",
    "safetensors", "huggingface_hub",
}  # fmt: skip
GROUPS = {"device": ("remove", "setup")}
COMMANDS = [
    (name, f"{command} {inner}".strip())
    for name in ("export", "bench")
    for command in sorted(getattr(program, name).commands)
    for inner in GROUPS.get(command, ("",))
]


def _command(name, words):
    found = getattr(program, name)
    for word in words.split():
        found = found.get_command(None, word)
    return found


def test_the_commands_are_those_that_are_documented():
    assert COMMANDS == [
        ("export", "bundle"), ("export", "doctor"), ("export", "import"), ("export", "inspect"),
        ("export", "onnx"), ("export", "predict"), ("export", "push"),
        ("export", "quantize-report"), ("export", "tflite"), ("export", "train"),
        ("export", "verify"), ("bench", "check"), ("bench", "compare"),
        ("bench", "device remove"), ("bench", "device setup"),
        ("bench", "keras"), ("bench", "onnx"), ("bench", "tflite"),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "command"), [("export", None), ("bench", None), *COMMANDS])
def test_help_loads_nothing_heavy(name, command):
    code = (
        f"import json, sys; from cct_export.commands.program import {name}_main as main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    arguments = [*(command or "").split(), "--help"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    exit_code, modules = json.loads(done.stderr)
    assert exit_code == 0
    assert done.stdout.startswith("Usage: ")
    assert not HEAVY.intersection(modules)


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_and_every_option_has_help(name, command):
    found = _command(name, command)
    assert found.help
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_long_option_may_be_written_with_underscores(name, command, in_process):
    for option in _command(name, command).params:
        for spelled in [*option.opts, *option.secondary_opts]:
            if not spelled.startswith("--") or "-" not in spelled[2:]:
                continue
            underscored = "--" + spelled[2:].replace("-", "_")
            value = () if option.is_flag else (1,)
            ended = in_process(name, *command.split(), underscored, *value, "--help")
            assert ended.code == 0, ended.err
    assert in_process(name, *command.split(), "--no_such_option", "--help").code == 2


def test_commands_have_no_option_without_a_place_in_help(in_process):
    for name, command in COMMANDS:
        told = in_process(name, *command.split(), "--help").out
        for option in _command(name, command).params:
            if isinstance(option, click.Option):
                assert option.opts[-1] in told


@pytest.mark.parametrize("name", ["export", "bench"])
def test_both_programs_tell_their_version(name, in_process):
    import cct_export

    ended = in_process(name, "--version")
    assert ended.code == 0
    assert ended.out.strip().endswith(cct_export.__version__)


@pytest.mark.parametrize("name", ["export", "bench"])
def test_an_unknown_command_is_a_usage_error(name, in_process):
    ended = in_process(name, "coreml")
    assert ended.code == 2
    assert "No such command 'coreml'" in ended.err
