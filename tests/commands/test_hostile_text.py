"""Text of files and devices does not control the terminal, whatever field or argument it is in."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile import FILE_NAME, HOSTILE, UTF8_NAME, controls, controls_on_terminal
from PIL import Image
from screens import screen_of

from cct_export.records import CONTRACT_KEY, sidecar

QUICK = ("--min-runs", "3", "--min-seconds", "0", "--warmup-seconds", "0")


def program(name, *arguments):
    code = f"from cct_export.commands.program import {name}_main; {name}_main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


@pytest.fixture(scope="module")
def folder(once, exports, digits_model):
    """Files with hostile names; the ONNX file has hostile text in every field of its own too."""

    def make(folder):
        import onnx

        for format in ("tflite", "onnx"):
            source = exports(format).path
            for suffix, path in (("", source), (".json", sidecar.path_of(source))):
                shutil.copy(path, folder / f"m{UTF8_NAME}.{format}{suffix}")
        model = onnx.load(exports("onnx").path)
        rename(model)
        onnx.save(model, folder / f"text{UTF8_NAME}.onnx")
        shutil.copy(digits_model, folder / f"m{UTF8_NAME}.keras")
        pictures = folder / f"pictures{FILE_NAME}"
        pictures.mkdir()
        for name in ("a", "b"):
            pixels = np.full((32, 32, 3), 90, np.uint8)
            Image.fromarray(pixels).save(pictures / f"{name}{FILE_NAME}.png")
        (pictures / f"broken{FILE_NAME}.png").write_bytes(b"no picture")
        (folder / f"record{FILE_NAME}.json").write_text("{}")

    return once("hostile", make)


def rename(model):
    """Puts hostile text into the names and metadata of an ONNX model; it still runs."""
    text = HOSTILE.replace("\udce9", "")
    names = {}
    for node in model.graph.node:
        node.name += text
        node.doc_string = text
        for outputs in (node.input, node.output):
            for index, name in enumerate(outputs):
                outputs[index] = names.setdefault(name, name and name + text)
    for value in [*model.graph.initializer, *model.graph.input, *model.graph.output,
                  *model.graph.value_info]:  # fmt: skip
        value.name = names.get(value.name, value.name)
    model.graph.name = model.producer_name = model.doc_string = text
    for entry in model.metadata_props:
        if entry.key == CONTRACT_KEY:
            entry.value = entry.value.replace('"0"', '"zero\\u001b[2J\\u009b31m\\n\\u202e"')
        else:
            entry.value += text


COMMANDS = {
    "inspect tflite": ("export", "inspect", "{tflite}", "--tensors"),
    "inspect onnx": ("export", "inspect", "{text}"),
    "inspect two": ("export", "inspect", "{text}", "--against", "{tflite}"),
    "predict one": ("export", "predict", "{text}", "{a}"),
    "predict several": ("export", "predict", "{text}", "{pictures}"),
    "verify": ("export", "verify", "{tflite}", "--samples", "8"),
    "verify without a source": ("export", "verify", "{text}"),
    "bundle": ("export", "bundle", "{tflite}", "--target", "raspberry-pi"),
    "bench": ("bench", "tflite", "{tflite}", *QUICK),
    "bench verbosely": ("bench", "onnx", "{text}", *QUICK, "--profile-ops", "-v"),
    "compare": ("bench", "compare", "{tflite}", "{onnx}", *QUICK),
    "compare a record": ("bench", "compare", "{record}"),
    "check": ("bench", "check", "--baseline", "{record}"),
    "export": ("export", "tflite", "{keras}", "--samples", "8", "-o", "out" + UTF8_NAME + "/"),
    "report": ("export", "quantize-report", "{keras}", "--samples", "4"),
    "import": ("export", "import", "{keras}", "-o", "x" + UTF8_NAME + ".keras"),
    "a model as a command": ("export", "{keras}"),
    "no command": ("export", HOSTILE.replace("\x00", "")),
    "no option": ("export", "inspect", "--" + FILE_NAME),
    "no file": ("export", "inspect", FILE_NAME + ".tflite"),
    "no number": ("bench", "tflite", "--threads", FILE_NAME),
    "no choice": ("bench", "tflite", "--profile", FILE_NAME),
    "no device": ("bench", "device", "remove", FILE_NAME),
    "one argument too many": ("export", "verify", "a.tflite", FILE_NAME),
}


# Those that a terminal shows in other ways than a pipe: tables, a line of status, an error.
ON_TERMINAL = ("inspect onnx", "predict one", "predict several", "compare", "no file")


@pytest.fixture
def command_line(folder):
    """Returns a program and its words by the name of the command line."""
    pictures = folder / f"pictures{FILE_NAME}"
    files = {
        "tflite": folder / f"m{UTF8_NAME}.tflite",
        "onnx": folder / f"m{UTF8_NAME}.onnx",
        "text": folder / f"text{UTF8_NAME}.onnx",
        "keras": folder / f"m{UTF8_NAME}.keras",
        "record": folder / f"record{FILE_NAME}.json",
        "pictures": pictures,
        "a": pictures / f"a{FILE_NAME}.png",
    }

    def get(name):
        program, *words = COMMANDS[name]
        return program, *(files[word[1:-1]] if word[0] == "{" else word for word in words)

    return get


@pytest.mark.parametrize("name", list(COMMANDS))
def test_no_command_passes_control_characters_to_a_pipe(
    name, command_line, in_process, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ended = in_process(*command_line(name))
    assert ended.out + ended.err
    assert not controls((ended.out + ended.err).encode())
    assert "this is a bug" not in ended.err


@pytest.mark.parametrize("name", ON_TERMINAL)
def test_no_command_passes_control_characters_to_a_terminal(name, command_line, tmp_path):
    screen = screen_of(80, program(*command_line(name)), tmp_path)
    assert screen.lines
    assert not controls_on_terminal(screen.shown.encode())
    assert "\x1b]" not in screen.shown


FILES = ("html", "markdown", "csv", "json")


def test_files_with_results_hold_no_control_characters(folder, in_process, tmp_path):
    outputs = [word for kind in FILES for word in (f"--{kind}", tmp_path / f"table.{kind}")]
    files = [folder / f"text{UTF8_NAME}.onnx", folder / f"m{UTF8_NAME}.tflite"]
    ended = in_process("bench", "compare", *files, *QUICK, "--profile-ops", *outputs)
    assert ended.code == 0, ended.err
    for kind in ("html", "markdown", "json"):
        content = (tmp_path / f"table.{kind}").read_bytes()
        assert content
        assert not controls(content), kind
    assert "<b>" not in (tmp_path / "table.html").read_text()
    _, _, *rows = (tmp_path / "table.markdown").read_text().splitlines()
    assert len(rows) == 2
    assert len(list(csv.DictReader((tmp_path / "table.csv").open(newline="")))) == 2


@pytest.mark.parametrize("line", ["cct-export tflite ", "cct-export predict "])
def test_completion_offers_no_file_whose_name_controls_a_terminal(tmp_path, line):
    for name in (f"cct{FILE_NAME}.keras", "cct\nplain,--evil", "cct.keras"):
        (tmp_path / name).touch()
    environment = os.environ | {
        "_CCT_EXPORT_COMPLETE": "bash_complete", "COMP_CWORD": "2", "COMP_WORDS": line + "cct",
    }  # fmt: skip
    done = subprocess.run(program("export"), cwd=tmp_path, env=environment, capture_output=True)
    offered = done.stdout.splitlines()
    assert b"plain,cct.keras" in offered
    assert not controls(done.stdout + done.stderr)
    assert not [word for word in offered if b"evil" in word]


WARNING = """
import warnings
import click
from cct_export.commands.group import Group
from cct_export.commands.options import Outcome, common

@click.command()
@common
def command():
    warnings.warn(TEXT)
    print(TEXT)
    raise ValueError(TEXT)

Group(commands={"command": command}).main(prog_name="program")
"""


def test_warnings_tracebacks_and_output_of_libraries_are_cleaned_too():
    script = WARNING.replace("TEXT", ascii(FILE_NAME))
    done = subprocess.run([sys.executable, "-c", script, "command", "-v"], capture_output=True)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert b"UserWarning" in done.stderr
    assert b"link" in done.stdout
    assert not controls(done.stdout + done.stderr)


def test_the_name_of_a_file_does_not_begin_another_line(in_process, exports, tmp_path):
    folder = tmp_path / "new\nerror: folder"
    path = folder / "x\nerror: disk on fire\rok.csv"
    ended = in_process("export", "inspect", exports("tflite").path, "--csv", path)
    assert ended.code == 0
    assert path.is_file()
    assert [line.split()[0] for line in ended.err.splitlines()] == ["made", "wrote"]
    ended = in_process("export", "inspect", Path("a\nb\r.tflite"))
    assert len(ended.err.splitlines()) == 1
