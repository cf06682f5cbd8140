"""Wrong arguments: refused at once, in the same words by commands and API, as wrong use."""

import json
import os
import subprocess
import sys

import pytest

import cct_export
from cct_export.errors import InvalidRequest, NotAvailable, UnsupportedScheme

PROGRAM = """
import atexit, json, sys
slow = ("keras", "tensorflow", "jax", "onnx", "tf2onnx")
atexit.register(lambda: print(json.dumps([name for name in slow if name in sys.modules])))
from cct_export.commands.program import {name}_main
{name}_main()
"""
# What a new user may mistype, and what the line that refuses it says.
WRONG = [
    ("export tflite cct_2_3x2_33", "did you mean cct_2_3x2_32?"),
    ("export tflite cct_7_3x1_32", "ships no weights: train it"),
    ("export tflite modle.keras", "did you mean model.keras?"),
    ("export tflite note.txt", "is not a model that can be read: MODEL is a .keras"),
    ("export tflite folder", "a folder without run.json"),
    ("export onnx m.tflite", "is an exported file already"),
    ("export onnx m.tflite", "`cct-bench tflite m.tflite` measures the file"),
    ("export tflite --quantize int9", "did you mean int8? (none, fp16, int8-dynamic, int8, "),
    ("export tflite --quantize int9", "int4-weight, auto)"),
    ("export onnx --quantize INT16X8 --opset 20", "opset 20 has no uint16 activations: choose 21"),
    ("export onnx --quantize int8-full --opset 17", "opset 17 has no GELU as one operator"),
    ("export onnx --quantize int8-full --dynamic-axes", "int8-full is for NPUs, which take one"),
    ("export onnx --quantize int8-full --activations int4", "choose from uint8, uint16"),
    (
        "export onnx --quantize int8 --activations uint8",
        "choose --quantize int8-full",
    ),
    ("export onnx --quantize int16x8 --activations uint8", "int16x8 has no uint8 activations"),
    ("export onnx --quantize int8-full --min-sqnr 40", "int8-full has integers only"),
    ("export onnx --quantize int4-weight --opset 17", "choose 21 to 23"),
    ("export onnx --opset 30", "choose 13 to 23"),
    ("export tflite --io int16", "'int16': choose from float32, uint8, int8"),
    ("export tflite --no-fold querykey", "did you mean query-key?"),
    ("export tflite --calibrate msee", "did you mean mse?"),
    ("export tflite --rounding gptk", "did you mean gptq?"),
    ("export onnx --target x68", "choose from x86, arm64"),
    ("export onnx --target tflm", "no target of onnx is called 'tflm': choose from x86, arm64"),
    ("export tflite --target tfml", "did you mean tflm? (litert, tflm)"),
    ("export tflite --optimize speed --quantize int8", "leave it out, or int8"),
    ("export tflite --optimize sped", "did you mean speed? (size, speed)"),
    ("export train --quantize int8-full", "quantize int8-full fine-tunes a trained model"),
    ("export tflite --target tflm", "choose --quantize int8-full"),
    ("export export --quantize int8-full --target tflm", "no target of onnx is called 'tflm'"),
    ("bench tflite --engine tflm m.tflite --threads 2", "leave --threads out"),
    ("bench tflite --engine tflm", "takes .tflite files: name one"),
    ("bench tflite --engine tfml m.tflite", "did you mean tflm?"),
    ("export tflite --max-drop 1", "is for --quantize auto"),
    ("export tflite --quantize auto --max-drop 1", "give labelled images with --data"),
    ("export tflite --quantize auto --calibrate best", "auto tries them all"),
    ("export tflite --quantize int16x8 --min-sqnr 30", "int16x8 has integers only"),
    ("export tflite --data cifar11", "did you mean cifar10?"),
    ("export tflite -o model.onnx", "choose a name that ends in .tflite"),
    ("export auto --engines onnx", "did you mean onnxruntime?"),
    ("export auto --engines litert,opnvino", "(litert, onnxruntime, openvino, ncnn)"),
    ("export auto -o m.tflite", "leave .tflite out"),
    ("export auto -o m.ncnn.param", "leave .ncnn.param out"),
    ("export auto --max-drop 1", "give labelled images with --data"),
    ("export auto --calibrate best", "auto tries them all"),
    ("export auto modle.keras", "did you mean model.keras?"),
    ("export quantize-report --quantize auto", "no quantization scheme is called 'auto'"),
    ("export quantize-report --format onxn", "did you mean onnx?"),
    ("export inspect cct_2_3x2_33", "did you mean cct_2_3x2_32?"),
    ("export inspect n.tflite", "no such file: n.tflite: did you mean m.tflite?"),
    ("export inspect m.tflite --against gone.onnx", "no such file: gone.onnx"),
    ("export verify gone.onnx", "no such file: gone.onnx"),
    ("export verify note.txt", "is no .tflite, .onnx or .ncnn.param file"),
    ("export verify m.tflite --against modle.keras", "did you mean model.keras?"),
    ("export verify m.tflite --data cifar11", "did you mean cifar10?"),
    ("export predict modle.keras note.txt", "did you mean model.keras?"),
    ("export bundle m.tflite --target raspbery-pi", "did you mean raspberry-pi?"),
    ("export bundle gone.tflite --target android", "no such file"),
    ("export import gone.pth", "no such model file"),
    ("export import model.keras -o x.keras --normalize imagnet", "did you mean imagenet?"),
    ("export import model.keras -o x.keras --labels gone.txt", "no such file: gone.txt"),
    ("export train --model cct_2_3x2_33", "did you mean cct_2_3x2_32?"),
    ("export train --from modle.keras", "did you mean model.keras?"),
    ("export train --data cifar11", "did you mean cifar10?"),
    ("export train --recipe shrt", "did you mean short?"),
    ("export train --recipe gone.toml", "no such recipe: gone.toml"),
    ("export train --optimizer adam", "did you mean adamw?"),
    ("export train --freeze haed --from cct_keras_io", "did you mean head?"),
    ("export train --log wandbb", "did you mean wandb?"),
    ("export train --distribute locall", "did you mean local?"),
    ("export push me/cct --run folder", "folder is not a run directory"),
    ("bench tflite n.tflite", "no such file: n.tflite: did you mean m.tflite?"),
    ("bench tflite cct_2_3x2_33", "did you mean cct_2_3x2_32?"),
    ("bench tflite --quantize int9", "did you mean int8?"),
    ("bench tflite --data cifar11", "did you mean cifar10?"),
    ("bench tflite m.tflite --delegate xnpack", "did you mean xnnpack?"),
    ("bench tflite --delegate cpu", "'cpu': choose from default, xnnpack"),
    ("bench tflite --delegate cuda", "no delegate of LiteRT is called 'cuda'"),
    ("bench onnx --delegate cda", "did you mean cuda?"),
    ("bench keras --delegate gpuu", "did you mean gpu?"),
    ("bench tflite --delegate external:gone.so", "no such delegate: gone.so"),
    ("bench tflite --device lokal", "did you mean local?"),
    ("bench tflite --device adb", "name that with --benchmark-binary"),
    ("bench tflite --device adb --benchmark-binary gone", "no such program: gone"),
    ("bench tflite --device adb --benchmark-binary note.txt --delegate gpuu", "did you mean gpu?"),
    ("bench tflite --profile strikt", "did you mean strict?"),
    ("bench onnx m.tflite", "`cct-bench tflite m.tflite` measures it"),
    ("bench keras m.tflite", "`cct-bench tflite m.tflite` measures it"),
    ("bench compare m.tflite gone.json", "no such file: gone.json"),
    ("bench check --baseline gone.json", "no such file: gone.json"),
    ("bench device setup ssh:pi --engine lite", "did you mean litert?"),
    ("bench device setpu ssh:pi", "did you mean setup?"),
    ("export tflite --quant int8", "did you mean --quantize?"),
    ("export bundel", "did you mean bundle?"),
    ("bench tflte", "did you mean tflite?"),
    ("export m.tflite", "type `cct-export inspect m.tflite`"),
    ("export cct_2_3x2_32", "type `cct-export tflite cct_2_3x2_32`"),
    ("bench m.tflite", "type `cct-bench tflite m.tflite`"),
    ("bench model.keras", "type `cct-bench keras model.keras`"),
    ("bench result.json", "type `cct-bench compare result.json`"),
    ("export predict", "missing argument"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files that need not be read to be refused."""
    path = tmp_path_factory.mktemp("wrong")
    for name in ("m.tflite", "model.keras", "note.txt"):
        (path / name).touch()
    (path / "folder").mkdir()
    return path


@pytest.mark.parametrize(("line", "reason"), WRONG)
def test_a_wrong_argument_is_refused_before_keras_is_imported(folder, line, reason):
    name, *arguments = line.split()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=name), *arguments],
        cwd=folder, env=os.environ | {"XDG_CACHE_HOME": str(folder)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    (message,) = ended.stderr.splitlines()
    assert message.startswith("error: ")
    assert reason in message
    assert json.loads(ended.stdout) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "folder", "m.tflite", "model.keras", "note.txt",
    ]  # fmt: skip


def test_a_backend_that_keras_does_not_have_is_refused_with_the_closest(folder):
    code = PROGRAM.format(name="bench")
    environment = os.environ | {"KERAS_BACKEND": "tensorflwo"}
    ended = subprocess.run(
        [sys.executable, "-c", code, "keras"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "no backend of Keras is called 'tensorflwo': did you mean tensorflow?" in ended.stderr


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: cct_export.export_tflite(scheme="int9"), "export tflite --quantize int9"),
        (lambda: cct_export.export_onnx(target="x68"), "export onnx --target x68"),
        (lambda: cct_export.export_auto(engines="lite"), "export auto --engines lite"),
        (lambda: cct_export.export_onnx("gone.keras"), "export onnx gone.keras"),
        (lambda: cct_export.benchmark("tflite", delegate="gpuu"), "bench tflite --delegate gpuu"),
        (lambda: cct_export.benchmark("onnx", profile="fast"), "bench onnx --profile fast"),
        (lambda: cct_export.inspect_model("cct_1"), "export inspect cct_1"),
        (
            lambda: cct_export.bundle("m.tflite", target="pi"),
            "export bundle m.tflite --target pi",
        ),
    ],
)
def test_python_and_the_command_line_refuse_in_the_same_words(in_process, call, line):
    with pytest.raises((InvalidRequest, UnsupportedScheme)) as refused:
        call()
    ended = in_process(*line.split())
    assert ended.code == refused.value.exit_code == 2
    assert ended.err == f"error: {refused.value}\n"


def test_a_delegate_that_exists_and_is_not_here_is_no_wrong_use(in_process, exports):
    with pytest.raises(NotAvailable):
        cct_export.benchmark("onnx", sources=exports("onnx").path, delegate="tensorrt")
    ended = in_process("bench", "onnx", exports("onnx").path, "--delegate", "TensorRT")
    assert ended.code == 6, ended.err


def test_names_are_taken_in_any_spelling(in_process, exports, tmp_path, digits_model):
    path = tmp_path / "m.tflite"
    options = ("--quantize", "FP16", "--io", "UINT8", "--no-fold", "Query_Key", "--samples", 8)
    ended = in_process("export", "tflite", digits_model, *options, "-o", path, "--json", "-")
    assert ended.code == 0, ended.err
    assert (ended.record["artifact"]["scheme"], ended.record["artifact"]["io"]) == ("fp16", "uint8")
    options = ("--delegate", "XNNPACK", "--profile", "Quick", "--min-seconds", 0, "--json", "-")
    ended = in_process("bench", "TFLite", path, *options)
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["runtime"]["delegate"] == "xnnpack"


@pytest.mark.parametrize("name", ["export", "bench"])
def test_a_program_without_a_command_shows_the_commands_and_an_example(name, in_process):
    ended = in_process(name)
    assert ended.code == 2
    assert f"Example: cct-{name} tflite model." in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    "content",
    [b"no archive", b"PK\x03\x04 but no zip", b"\x93NUMPY\x01\x00v\x00"],
)
def test_data_that_cannot_be_read_is_described_without_words_of_a_library(
    in_process, tmp_path, digits_model, content
):
    (tmp_path / "x.npz").write_bytes(content)
    ended = in_process("export", "tflite", digits_model, "--data", tmp_path / "x.npz")
    assert ended.code == 1
    assert "it is no .npz file (an .npy is a single array), damaged, or holds Python" in ended.err
    assert "pickle" not in ended.err


@pytest.mark.parametrize(
    ("content", "reason"), [("{", "its JSON ends too early"), ("{x", "its JSON is wrong at byte 1")]
)
def test_a_record_that_is_no_json_is_described_by_position(in_process, tmp_path, content, reason):
    path = tmp_path / "r.json"
    path.write_text(content)
    ended = in_process("bench", "compare", path)
    assert ended.code == 1
    assert ended.err == f"error: {path} is no record that cct-bench --json wrote: {reason}\n"


def test_a_file_that_may_not_be_read_is_described_by_the_system_alone(in_process, tmp_path):
    (tmp_path / "r.toml").write_bytes(b"\xff")
    ended = in_process("export", "train", "--recipe", tmp_path / "r.toml")
    assert ended.code == 2
    assert ended.err.endswith("r.toml cannot be read as TOML: it is no text in UTF-8\n")


@pytest.mark.slow
def test_the_python_api_prints_nothing_of_the_libraries(tmp_path):
    code = "import cct_export; cct_export.export_tflite(output='m.tflite', parity_samples=8)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")},
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == ("", "")
