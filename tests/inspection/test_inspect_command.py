"""``cct-export inspect``: tables, JSON, two files side by side, and refused files."""

import json
import os
import subprocess
import sys

import pytest

import cct_export
from cct_export.errors import InvalidRequest


@pytest.fixture(params=["tflite", "onnx"])
def artifact(request, exports):
    return exports(request.param, "int8").path


@pytest.fixture
def refused(in_process, tmp_path):
    """Inspects a file that must be refused in one line; returns the line."""

    def run(code, *arguments):
        ended = in_process("export", "inspect", *arguments)
        assert (ended.code, ended.out) == (code, "")
        assert ended.err.startswith("error: ")
        assert len(ended.err.splitlines()) == 1, ended.err
        assert "-v shows" not in ended.err
        return ended.err

    return run


def test_the_tables_show_header_kinds_every_operator_and_totals(in_process, artifact):
    report = cct_export.inspect(artifact)
    ended = in_process("export", "inspect", artifact)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    size = f"{artifact.stat().st_size:,} bytes"
    joined = ended.out.replace("\n", "")
    assert f"{artifact.suffix[1:]}, scheme int8, {size}" in joined
    assert [line for line in lines if line.split()[:3] == ["input", "image", "float32"]]
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0].isdecimal()]
    table = [row for row in rows if len(row) == 7]
    assert [row[1] for row in table] == [operator.kind for operator in report.operators]
    macs = [int(row[3].replace(",", "")) for row in table]
    assert macs == [operator.macs for operator in report.operators]
    (total,) = [line.split()[-1] for line in lines if line.startswith("MACs ")]
    assert int(total.replace(",", "")) == report.macs
    assert f"{len(report.quantized)} quantized tensors" in ended.out


def test_quantized_tensors_are_listed_on_request(in_process, exports):
    path = exports("tflite", "int8").path
    short = in_process("export", "inspect", path).out
    long = in_process("export", "inspect", path, "--tensors").out
    assert long.startswith(short.rstrip("\n"))
    assert "channel of axis 0" in long
    assert "channel of axis 0" not in short


def test_the_record_alone_is_on_standard_output_and_is_complete(cct_export, artifact):
    ended = cct_export("inspect", artifact, "--json", "-")
    assert ended.returncode == 0, ended.stderr
    record = json.loads(ended.stdout)
    assert set(record) == {"artifact"}
    fields = record["artifact"]
    assert fields["totals"]["operators"] == len(fields["operators"])
    assert fields["totals"]["macs"] == sum(operator["macs"] for operator in fields["operators"])
    assert fields["totals"]["macs"] == sum(kind["macs"] for kind in fields["kinds"])
    assert fields["inputs"][0]["shape"][1:] == [32, 32, 3]
    assert {len(tensor["scales"]) for tensor in fields["quantized"]} >= {1, 10, 32}
    assert "quantized tensors" in ended.stderr


def test_two_files_are_compared_with_ratios(in_process, exports):
    small, large = exports("tflite", "fp16").path, exports("onnx").path
    ended = in_process("export", "inspect", small, "--against", large, "--json", "-")
    assert ended.code == 0, ended.err
    record = ended.record
    assert record["against"]["path"] == str(large)
    totals = record["comparison"]["totals"]
    sizes = small.stat().st_size, large.stat().st_size
    assert totals["size_bytes"] == {
        "artifact": sizes[0],
        "against": sizes[1],
        "ratio": pytest.approx(sizes[0] / sizes[1]),
    }
    assert totals["macs"]["ratio"] == 1
    operators = record["comparison"]["operators"]
    assert operators["CONV_2D"] == {"artifact": 2, "against": 0, "ratio": None}
    assert operators["Conv"] == {"artifact": 0, "against": 2, "ratio": 0}
    for side, path in (("artifact", small), ("against", large)):
        kinds = cct_export.inspect(path).kinds()
        assert sum(row[side] for row in operators.values()) == sum(kind.count for kind in kinds)


def test_the_comparison_is_a_table_of_both_files(in_process, exports):
    int8, float32 = exports("tflite", "int8").path, exports("tflite").path
    out = in_process("export", "inspect", int8, "--against", float32).out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["CONV_2D"] == ["2", "2", "1.000"]
    sizes = [path.stat().st_size for path in (int8, float32)]
    assert rows["bytes"] == [*map("{:,}".format, sizes), f"{sizes[0] / sizes[1]:.3f}"]


def test_a_tflite_file_is_inspected_without_tensorflow_keras_or_onnx(exports, tmp_path):
    code = (
        "import sys, cct_export\n"
        "cct_export.inspect(sys.argv[1])\n"
        "print([n for n in ('tensorflow', 'keras', 'onnx', 'onnxruntime') if n in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(exports("tflite").path)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout.strip().splitlines()[-1:] == ["[]"], process.stderr


@pytest.mark.parametrize(
    ("library", "format", "extra"),
    [
        ("ai_edge_litert", "tflite", "litert"),
        ("onnxruntime", "onnx", "onnxruntime"),
        ("onnx", "onnx", "onnx"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(exports, tmp_path, library, format, extra):
    (tmp_path / f"{library}.py").write_text("raise ImportError")
    code = "from cct_export.commands.program import export_main; export_main()"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(exports(format).path)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert process.returncode == 6
    assert f"cct-export[{extra}]" in process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["m.keras", "m.tflite.json", "m", "m.pb"])
def test_a_file_that_is_neither_an_artifact_nor_a_model_is_refused(refused, tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    reason = "is not a .keras file" if name == "m.keras" else "is not a model that can be read"
    assert reason in refused(1 if name == "m.keras" else 2, tmp_path / name)
    with pytest.raises(InvalidRequest, match=r"is no \.tflite, \.onnx or \.ncnn\.param file"):
        cct_export.inspect(tmp_path / name)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_missing_file_is_refused_and_so_is_a_folder(refused, tmp_path, format):
    assert "no such file" in refused(2, tmp_path / f"absent.{format}")
    (tmp_path / f"folder.{format}").mkdir()
    assert "is a folder: name a file" in refused(2, tmp_path / f"folder.{format}")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("content", [b"", b"a text\n" * 99, b"\0" * 64, bytes(range(256)) * 8])
def test_a_file_that_is_no_model_is_refused(refused, tmp_path, format, content):
    path = tmp_path / f"odd.{format}"
    path.write_bytes(content)
    assert str(path) in refused(1, path)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.95])
def test_a_truncated_file_is_refused(refused, tmp_path, artifact, fraction):
    content = artifact.read_bytes()
    path = tmp_path / f"cut{artifact.suffix}"
    path.write_bytes(content[: int(fraction * len(content))])
    assert str(path) in refused(1, path)


def test_names_that_are_not_utf_8_are_refused(refused, tmp_path, exports):
    path = tmp_path / "odd.onnx"
    path.write_bytes(exports("onnx").path.read_bytes().replace(b"logits", b"\xffogits"))
    assert str(path) in refused(1, path)


def test_the_other_file_is_checked_too(refused, tmp_path, artifact):
    assert "no such file" in refused(2, artifact, "--against", tmp_path / "absent.onnx")
    assert "is no .tflite" in refused(2, artifact, "--against", tmp_path / "model.keras")


def test_control_characters_in_names_do_not_reach_the_terminal(in_process, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    name = "\x1b[31mred[/bold]"
    graph = helper.make_graph(
        [helper.make_node("Relu", [name], ["y"])],
        "odd",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    path = tmp_path / "odd.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    ended = in_process("export", "inspect", path)
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out
    assert "\N{REPLACEMENT CHARACTER}[31mred[/bold]" in ended.out


def test_the_contract_describes_input_and_output(in_process, exports):
    for format in ("tflite", "onnx"):
        ended = in_process("export", "inspect", exports(format, "int8", "uint8").path)
        text = " ".join(ended.out.split())
        assert "pixels raw pixels, 0 to 255, RGB, NHWC, other sizes bilinear" in text
        assert "labels 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in text
    contract = cct_export.inspect(exports("tflite", "int8-full", "int8").path).to_dict()["contract"]
    assert contract["input"]["preprocessing"] == "pixel - 128"
    assert contract["input"]["resize"].startswith("bilinear")
    assert contract["labels"] == [str(digit) for digit in range(10)]
