"""Every numeric option of every command refuses what is no number that can be."""

import click
import pytest

from cct_export.commands import program
from cct_export.errors import InvalidRequest

# As a user may write them; a word for those that are too long to be a test's name.
WORDS = {
    "nan": "nan",
    "inf": "inf",
    "-inf": "-inf",
    "1e400": "1e400",
    "400 digits": "1" + "0" * 400,
    "5000 digits": "1" + "0" * 5000,
    "10^31": "1" + "0" * 31,
    "Arabic digits": "\u0661\u0662",
    "underscore": "1_0",
    "true": "true",
    "empty": "",
}


def _commands(name, group):
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _commands(f"{name} {command.name}", command)
        else:
            yield f"{name} {command.name}", command


def _is_numeric(parameter):
    number = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
    return number or parameter.type.name in (
        "PERCENT", "DURATION", "N[,N...]", "NUMBER", "NUMBER[,NUMBER...]",
    )  # fmt: skip


OPTIONS = [
    (name, parameter.opts[0])
    for program_name in ("export", "bench")
    for name, command in _commands(program_name, getattr(program, program_name))
    for parameter in command.params
    if isinstance(parameter, click.Option) and _is_numeric(parameter)
]


def test_the_numeric_options_are_found():
    names = {option for _, option in OPTIONS}
    assert {
        "--threads", "--batch", "--min-runs", "--min-seconds", "--warmup-seconds", "--repeats",
        "--sustained", "--max-regression", "--max-drop", "--min-sqnr", "--samples", "--top",
        "--calibration-samples", "--parity-samples", "--opset", "--image-size", "--classes",
        "--heads", "--epochs", "--learning-rate", "--seed", "--mean", "--std", "--scale",
    } <= names  # fmt: skip
    assert len(OPTIONS) > 60


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_number_that_cannot_be_is_refused_in_one_line(
    in_process, tmp_path, command, option, word
):
    program_name, *names = command.split()
    required = {
        "predict": ["gone.png"], "verify": ["gone.tflite"], "import": ["gone.pth"],
        "compare": ["gone.tflite"], "check": ["--baseline", "gone.json"],
        "train": ["-o", tmp_path / "run"],
    }.get(names[-1], [])  # fmt: skip
    ended = in_process(program_name, *names, *required, f"{option}={WORDS[word]}")
    assert ended.code == 2, ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 400
    assert "gone" not in line, "something was looked for before the number was refused"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("compare", "m.tflite", "--threads", "1025"), "1025 is not in the range 1<=x<=1024"),
        (("tflite", "--threads", "1,2000"), "each of them must be at most 1024, not 2000"),
        (("tflite", "--batch", "0"), "'0' is not a list of positive integers"),
        (("tflite", "--min-seconds", "1e400"), "inf is not in the range 0<=x<=3600"),
        (("tflite", "--min-seconds", "nan"), "'nan' is not a number such as 0.5"),
        (("tflite", "--sustained", "48h"), "the seconds must be at most 86400, not 172800.0"),
        (
            ("check", "--max-regression", "9" * 400 + "%"),
            "proportion must be a number, not inf",
        ),
        (("tflite", "--repeats", "1" * 400), "a number of 400 digits is not in the range"),
    ],
)
def test_the_line_says_what_is_possible(in_process, arguments, why):
    assert why in in_process("bench", *arguments).err


def test_numbers_that_can_be_are_taken_as_they_are_written(in_process):
    for value in ("1e-3", ".5", "5.", "+2", "0"):
        ended = in_process("bench", "tflite", "gone.tflite", "--min-seconds", value)
        assert "no such file" in ended.err
    ended = in_process("bench", "tflite", "gone.tflite", "--threads", "1, 2", "--sustained", "1h")
    assert "no such file" in ended.err


@pytest.mark.parametrize("port", ["0", "65536", "1" * 30, "1" * 5000, "\u0662\u0662", "nan", ""])
def test_a_port_that_cannot_be_is_refused(in_process, port):
    ended = in_process("bench", "tflite", "gone.tflite", "--device", f"ssh:pi@host:{port}")
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "no device 'ssh:pi@host:" in line
    assert len(line) < 300


@pytest.mark.parametrize("count", ["0", "3", "1" * 5000, "\u0661", "nan", "-1", ""])
def test_a_number_of_blocks_to_freeze_that_cannot_be_is_refused(small_spec, count):
    from cct_export.training.transfer import frozen_layers

    assert frozen_layers(["blocks:2"], small_spec) == {"block_0", "block_1"}
    with pytest.raises(InvalidRequest, match="of 2 blocks") as raised:
        frozen_layers([f"blocks:{count}"], small_spec)
    assert len(str(raised.value)) < 200
