"""What a person sees at a terminal: progress that disappears, and messages in whole words."""

import re

import pytest
from screens import Screen

import cct_export
from cct_export.specs.progress import counted

QUICK = ("--min-runs", 5, "--min-seconds", 0.05, "--warmup-seconds", 0)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def shown_once(screen: Screen, text: str) -> bool:
    """Whether a terminal showed a text at any time."""
    return text in ESCAPE.sub("", screen.shown)


def test_a_count_is_reported_with_what_is_counted():
    messages = []
    counted(messages.append, "verifying")(400, 1000)
    assert messages == ["verifying 400/1,000"]


@pytest.mark.parametrize("width", [60, 80])
def test_an_export_shows_its_steps_and_leaves_only_its_result(on_terminal, digits_run, width):
    screen = on_terminal(
        width, "export", "tflite", digits_run, "--quantize", "int8", "-o", "m.tflite"
    )
    assert screen.code == 0, screen.lines
    assert shown_once(screen, "starting Keras")  # which takes long enough to be seen
    assert not any("starting Keras" in line for line in screen.lines)
    text = " ".join(screen.lines)
    assert "wrote m.tflite: tflite int8" in text
    assert "parity passed on" in text
    # Words are whole: the lines, joined by blanks, are the message.
    assert "top-1 agreement" in text
    assert "max |difference|" in text


def test_a_pipe_gets_no_progress_and_no_broken_lines(cct_export, digits_run):
    ended = cct_export("tflite", digits_run, "-o", "m.tflite", COLUMNS="40")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["wrote", "parity"]
    assert "\x1b" not in ended.stderr + ended.stdout
    assert ended.stdout == ""


def test_an_export_reports_every_step(digits_run, tmp_path):
    messages = []
    cct_export.export_tflite(
        digits_run,
        output=tmp_path / "m.tflite",
        scheme="int8",
        parity_samples=128,
        progress=messages.append,
    )
    assert messages[:2] == ["starting Keras", "loading the model"]
    last = {message.rstrip("0123456789/,") for message in messages[2:]}
    assert last == {"calibrating ", "quantizing step ", "running the Keras model ", "verifying "}
    assert {"calibrating 200/200", "running the Keras model 128/128", "verifying 128/128"} < {
        *messages
    }


def test_auto_names_the_scheme_it_is_at_and_ends_with_a_table(on_terminal, digits_run, tmp_path):
    messages = []
    cct_export.export_onnx(
        digits_run,
        output=tmp_path / "auto.onnx",
        scheme="auto",
        parity_samples=8,
        progress=messages.append,
    )
    stages = dict.fromkeys(message.partition(":")[0] for message in messages[2:])
    *schemes, timing = stages
    assert schemes == [
        "scheme 1/5, none", "scheme 2/5, fp16", "scheme 3/5, int8-dynamic", "scheme 4/5, int8",
        "scheme 5/5, int4-weight",
    ]  # fmt: skip
    assert timing.startswith("timing ")
    screen = on_terminal(80, "export", "onnx", digits_run, "--quantize", "auto", "-o", "m.onnx")
    assert screen.code == 0, screen.lines
    header = next(index for index, line in enumerate(screen.lines) if line.startswith("scheme"))
    schemes = [line.split()[0] for line in screen.lines[header + 1 : header + 6]]
    assert schemes == ["none", "fp16", "int8-dynamic", "int8", "int4-weight"]
    assert sum(line.endswith("chosen") for line in screen.lines) == 1


def test_auto_says_once_that_a_model_is_not_folded(on_terminal, tmp_path):
    import keras

    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "elu")]
    keras.Sequential(layers).save(tmp_path / "plain.keras")
    screen = on_terminal(
        80, "export", "tflite", "plain.keras", "--quantize", "auto", "--samples", "20"
    )
    assert screen.code == 0, screen.lines
    assert sum("not folded" in line for line in screen.lines) == 1


@pytest.mark.parametrize("width", [60, 80, 100, 132])
def test_results_fit_the_terminal_and_name_their_files(on_terminal, exports, width):
    paths = [exports("tflite").path, exports("tflite", "int8").path, exports("onnx").path]
    screen = on_terminal(width, "bench", "compare", *paths, *QUICK)
    assert screen.code == 0, screen.lines
    assert shown_once(screen, "timing 3 artifacts in turn: 0%")
    assert max(map(len, screen.lines)) <= width
    header = next(index for index, line in enumerate(screen.lines) if line.startswith("artifact"))
    assert "p50 ms" in screen.lines[header]
    for path, line in zip(paths, screen.lines[header + 1 :], strict=False):
        assert line.startswith(path.name)
        assert re.search(r" \d+\.\d{3} ", line)


@pytest.mark.slow
def test_training_leaves_a_line_for_each_epoch_and_no_bar(on_terminal):
    options = ("--data", "digits", "--epochs", 2, "--batch", 512, "--model", "cct_2_3x2_32")
    screen = on_terminal(80, "export", "train", *options, "-o", "run")
    assert screen.code == 0, screen.lines
    epochs = [line for line in screen.lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert not any("━" in line for line in screen.lines)
    assert shown_once(screen, "━")
