"""Every command and option has help, and help is quick: nothing heavy is loaded for it."""

import json
import subprocess
import sys

import click
import pytest

from cct_export.commands import program

HEAVY = {
    "numpy", "PIL", "psutil", "tensorflow", "keras", "ncnn", "onnx", "onnxruntime", "tf2onnx",
    "ai_edge_litert", "ai_edge_quantizer", "sklearn", "h5py", "matplotlib", "jax", "torch",
    "safetensors", "huggingface_hub", "jinja2", "rich", "msgspec",
}  # fmt: skip
GROUPS = {"device": ("remove", "setup")}
COMMANDS = [
    (name, f"{command} {inner}".strip())
    for name in ("export", "bench")
    for command in sorted(getattr(program, name).commands)
    for inner in GROUPS.get(command, ("",))
]


def _command(name, words):
    command = getattr(program, name)
    for word in words.split():
        command = command.get_command(None, word)
    return command


def test_the_commands_are_those_that_are_documented():
    assert COMMANDS == [
        ("export", "auto"), ("export", "bundle"), ("export", "doctor"), ("export", "export"),
        ("export", "import"), ("export", "inspect"), ("export", "ncnn"), ("export", "onnx"),
        ("export", "predict"), ("export", "push"), ("export", "quantize-report"),
        ("export", "tflite"), ("export", "train"), ("export", "verify"), ("bench", "check"),
        ("bench", "compare"), ("bench", "device remove"), ("bench", "device setup"),
        ("bench", "keras"), ("bench", "ncnn"), ("bench", "onnx"), ("bench", "tflite"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["export", "bench"])
def test_help_loads_nothing_heavy(name):
    code = (
        "import json, sys; from cct_export.commands import program\n"
        f"for command in [[], *({[c.split() for n, c in COMMANDS if n == name]})]:\n"
        "    try: program.%s([*command, '--help'], 'cct')\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    ) % name
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage: ") == 1 + sum(name == other for other, _ in COMMANDS)
    assert not HEAVY.intersection(json.loads(done.stderr))


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_and_every_option_has_help(name, command):
    documented = _command(name, command)
    assert documented.help
    for parameter in documented.params:
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
        help_text = in_process(name, *command.split(), "--help").out
        for option in _command(name, command).params:
            if isinstance(option, click.Option):
                assert option.opts[-1] in help_text


@pytest.mark.parametrize("name", ["export", "bench"])
def test_both_programs_print_their_version(name, in_process):
    import cct_export

    ended = in_process(name, "--version")
    assert ended.code == 0
    assert ended.out.strip().endswith(cct_export.__version__)


@pytest.mark.parametrize("name", ["export", "bench"])
def test_an_unknown_command_is_a_usage_error(name, in_process):
    ended = in_process(name, "coreml")
    assert ended.code == 2
    assert "no command is called 'coreml': choose from" in ended.err
