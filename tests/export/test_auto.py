"""``cct-export auto``: the fastest pair of engine and scheme, each verified in its engine."""

import csv
import shlex
import sys
from pathlib import Path

import onnx
import pytest

import cct_export
from cct_export.errors import CCTExportError, MissingDependency, NotAvailable, UnsupportedScheme
from cct_export.export import auto
from cct_export.quantize.schemes import fast_schemes
from cct_export.records import sidecar
from cct_export.runtimes import openvino
from cct_export.specs import ENGINE_FORMATS, ExportSpec

for library in ("ncnn", "openvino"):
    pytest.importorskip(library, reason=f"{library} is not installed")
QUICK = ("--min-runs", 2, "--min-seconds", 0, "--warmup-seconds", 0)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def fastest(monkeypatch):
    """Returns a function that lets a scheme in an engine be the fastest, and tries few others."""

    def let(engine, scheme):
        def times(paths, *, engines, **runs):
            assert all(path.is_file() for path in paths)
            wanted = [
                (name, path.name.removeprefix(f"{name} ").split(".")[0])
                for name, path in zip(engines, paths, strict=True)
            ]
            return [(1_000,) if pair == (engine, scheme) else (2_000,) for pair in wanted]

        def few(format):
            return [name for name in fast_schemes(format) if name in ("none", scheme)]

        monkeypatch.setattr(auto, "time_files", times)
        monkeypatch.setattr(auto, "fast_schemes", few)

    return let


@pytest.fixture(scope="module")
def chosen(in_process, digits_run, tmp_path_factory):
    """What the command chose of all engines: its record, what it said, and its folder."""
    folder = tmp_path_factory.mktemp("auto")
    options = ("--max-drop", "2", "--data", "digits", "-o", folder / "m")
    files = ("--csv", folder / "t.csv", "--json", "-")
    ended = in_process("export", "auto", digits_run, *options, *files)
    assert ended.code == 0, ended.err
    return ended.record, ended.err, folder


def test_files_that_take_much_longer_are_timed_in_a_few_runs_only(monkeypatch):
    asked = []
    times = {Path("a"): 1_000_000, Path("b"): 3_900_000, Path("c"): 4_100_000}

    def time_files(paths, *, engines, rounds, burst, trial=True):
        asked.append((list(paths), engines, rounds * burst, trial))
        # One slow run says nothing.
        return [(times[path], times[path], 10 * times[path]) for path in paths]

    monkeypatch.setattr(auto, "time_files", time_files)
    assert auto._medians_ms(dict.fromkeys(times, "litert")) == [1.0, 3.9, 4.1]
    few, many = auto.FIRST_ROUNDS * auto.FIRST_BURST, auto.ROUNDS * auto.BURST
    assert asked == [
        ([Path("a"), Path("b"), Path("c")], ["litert"] * 3, few, True),
        ([Path("a"), Path("b")], ["litert"] * 2, many, False),
    ]


@pytest.mark.slow
def test_every_scheme_of_every_engine_is_a_candidate(chosen):
    rows = chosen[0]["tuning"]["candidates"]
    assert [(row["engine"], row["scheme"]) for row in rows] == [
        (engine, scheme)
        for engine, format in ENGINE_FORMATS.items()
        for scheme in fast_schemes(format)
    ]
    with (chosen[2] / "t.csv").open() as file:
        assert [row["engine"] for row in csv.DictReader(file)] == [row["engine"] for row in rows]


@pytest.mark.slow
def test_the_fastest_is_written_under_the_suffix_of_its_format_and_nothing_else(chosen):
    record, said, folder = chosen
    rows = record["tuning"]["candidates"]
    (taken,) = [row for row in rows if not row["why_not"]]
    assert (record["artifact"]["format"], record["artifact"]["scheme"]) == (
        ENGINE_FORMATS[taken["engine"]],
        taken["scheme"],
    )
    assert taken["drop"] <= 2
    slower = [row for row in rows if row["why_not"].startswith("slower than")]
    assert {row["why_not"] for row in slower} == {
        f"slower than {taken['engine']} {taken['scheme']}"
    }
    assert {row["engine"] for row in slower} == set(ENGINE_FORMATS)
    assert all(row["median_ms"] >= taken["median_ms"] for row in slower)
    format = record["artifact"]["format"]
    files = {
        "tflite": ["m.tflite", "m.tflite.json"],
        "onnx": ["m.onnx", "m.onnx.json"],
        "ncnn": ["m.ncnn.bin", "m.ncnn.param", "m.ncnn.param.json"],
    }
    assert names_in(folder) == sorted([*files[format], "t.csv"])
    assert f"{taken['engine']} {taken['scheme']} is the fastest: `cct-bench {format} " in said


@pytest.mark.slow
def test_a_scheme_that_only_its_own_command_can_make_names_that_command(chosen):
    (row,) = [row for row in chosen[0]["tuning"]["candidates"] if row["scheme"] == "int8-full"]
    assert row["why_not"] == "needs cct-export tflite --io int8"


def test_openvino_gets_standard_operators_and_the_command_that_is_named_measures_them(
    in_process, digits_run, fastest, tmp_path
):
    fastest("openvino", "int8")
    options = ("--engines", "onnxruntime,openvino", "--samples", 32, "-o", tmp_path / "m")
    ended = in_process("export", "auto", digits_run, *options)
    assert ended.code == 0, ended.err
    path = tmp_path / "m.onnx"
    assert {each.domain for each in onnx.load(path).opset_import} == {""}
    assert "openvino" in sidecar.read(path).contract.versions
    (line,) = [line for line in ended.err.splitlines() if "is the fastest" in line]
    program, *words = shlex.split(line.split("`")[1])
    assert (program, words) == ("cct-bench", ["onnx", str(path), "--engine", "openvino"])
    measured = in_process("bench", *words, *QUICK, "--json", "-")
    assert measured.code == 0, measured.err
    (result,) = measured.record["results"]
    assert result["runtime"]["name"] == "openvino"
    assert result["parity"]["passed"]


def test_onnx_runtime_gets_its_own_operators_beside_openvino(digits_run, fastest, tmp_path):
    fastest("onnxruntime", "int8")
    exported = cct_export.export_auto(
        digits_run, engines=["openvino", "onnxruntime"], output=tmp_path / "m", parity_samples=32
    )
    assert exported.chosen.engine == "onnxruntime"
    assert any("com.microsoft" in operator for operator in exported.engine_operators)
    assert "openvino" not in exported.artifact.contract.versions
    assert exported.artifact.contract.batch == 1


def test_the_two_files_of_ncnn_are_written_together(digits_run, fastest, tmp_path):
    fastest("ncnn", "fp16")
    exported = cct_export.export_auto(
        digits_run, engines=["ncnn", "onnxruntime"], output=f"{tmp_path}/out/", parity_samples=32
    )
    assert exported.parity.passed
    assert (exported.chosen.engine, exported.chosen.scheme) == ("ncnn", "fp16")
    stem = f"{digits_run.name}-auto"
    assert names_in(tmp_path / "out") == [
        f"{stem}.ncnn.bin", f"{stem}.ncnn.param", f"{stem}.ncnn.param.json",
    ]  # fmt: skip
    assert exported.artifact.size_bytes == exported.chosen.size_bytes
    assert cct_export.verify(exported.artifact.path, data="digits", samples=8).passed


def test_the_keras_model_runs_once_for_all_engines(digits_run, fastest, tmp_path):
    fastest("onnxruntime", "int8")
    messages = []
    cct_export.export_auto(
        digits_run, engines=["onnxruntime", "openvino", "ncnn"], output=tmp_path / "m",
        data="digits", parity_samples=32, progress=messages.append,
    )  # fmt: skip
    for done in ("running the Keras model 32/32", "calibrating 200/200"):
        assert sum(message.endswith(done) for message in messages) == 1
    stages = list(dict.fromkeys(message.partition(":")[0] for message in messages[2:]))
    assert stages == [
        "scheme 1/6, onnxruntime none", "scheme 2/6, onnxruntime int8", "scheme 3/6, openvino none",
        "scheme 4/6, openvino int8", "scheme 5/6, ncnn none", "scheme 6/6, ncnn int8",
        "timing 6 files",
    ]  # fmt: skip


def test_an_engine_that_runs_nothing_leaves_the_choice_to_the_others(
    digits_run, fastest, tmp_path, monkeypatch
):
    def refuse(path, **options):
        raise NotAvailable(f"OpenVINO does not run {path}: it has no reason")

    fastest("openvino", "none")
    monkeypatch.setattr(openvino, "open_session", refuse)
    exported = cct_export.export_auto(
        digits_run, engines=["openvino", "ncnn"], output=tmp_path / "m", parity_samples=16
    )
    assert exported.chosen.engine == "ncnn"
    refused = [row for row in exported.candidates if row.engine == "openvino"]
    assert [row.why_not for row in refused] == ["OpenVINO does not run the file: it has no reason"]


def test_a_model_that_is_traced_is_no_candidate_for_ncnn(tmp_path, fastest):
    import keras

    fastest("onnxruntime", "none")
    image = keras.Input((16, 16, 3))
    x = keras.layers.Activation("mish")(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="mish")
    exported = cct_export.export_auto(
        model, engines=["ncnn", "onnxruntime"], output=tmp_path / "m", parity_samples=16
    )
    assert exported.chosen.engine == "onnxruntime"
    refused = [row.why_not for row in exported.candidates if row.engine == "ncnn"]
    assert all("no plan of steps that ncnn has layers for" in reason for reason in refused)


def test_bounds_that_nothing_keeps_leave_older_files_as_they_were(in_process, digits_run, tmp_path):
    for name in ("m.tflite", "m.onnx", "m.ncnn.param"):
        (tmp_path / name).write_text(name)
    options = ("--engines", "onnxruntime,ncnn", "--min-sqnr", 900, "--samples", 8)
    ended = in_process("export", "auto", digits_run, *options, "-o", tmp_path / "m")
    assert ended.code == 1
    assert "no scheme meets the constraints (onnxruntime none: SQNR" in ended.err
    assert names_in(tmp_path) == ["m.ncnn.param", "m.onnx", "m.tflite"]
    assert all(path.read_text() == path.name for path in tmp_path.iterdir())


def test_a_reason_that_several_schemes_share_is_told_once(tmp_path, digits_run, monkeypatch):
    def refuse(path, **options):
        raise NotAvailable("OpenVINO finds no CPU here")

    monkeypatch.setattr(openvino, "open_session", refuse)
    with pytest.raises(CCTExportError) as refused:
        cct_export.export_auto(digits_run, engines="openvino", output=tmp_path / "m")
    assert str(refused.value).count("OpenVINO finds no CPU here") == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnsupportedScheme("no", needs="--io int8"), "needs cct-export onnx --io int8"),
        (UnsupportedScheme("no", needs="a model without loops"), "needs a model without loops"),
        (CCTExportError("m.keras as onnx int8: no Loop"), "no Loop"),
        (CCTExportError("no memory: 2 GB"), "no memory: 2 GB"),
    ],
)
def test_a_reason_names_a_command_only_for_its_options(error, reason):
    spec = ExportSpec("onnx", "int8", engine="openvino")
    assert auto._reason(error, spec) == reason


def test_a_file_that_no_engine_can_run_is_no_question_of_constraints(
    digits_run, fastest, monkeypatch, tmp_path
):
    def refuse(path, **options):
        raise NotAvailable("OpenVINO finds no CPU here")

    fastest("openvino", "none")
    monkeypatch.setattr(openvino, "open_session", refuse)
    with pytest.raises(CCTExportError, match=r"^no scheme can be used \(none: .*no CPU here\)$"):
        cct_export.export_auto(digits_run, engines="openvino", output=tmp_path / "m")


def test_a_folder_that_is_there_gets_a_file_named_after_the_model(digits_run, fastest, tmp_path):
    fastest("onnxruntime", "none")
    exported = cct_export.export_auto(
        digits_run, engines="onnxruntime", output=tmp_path, parity_samples=8
    )
    assert exported.artifact.path == tmp_path / f"{digits_run.name}-auto.onnx"


def test_an_engine_that_is_named_has_to_be_installed(in_process, digits_run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    options = ("--engines", "litert,ncnn", "-o", tmp_path / "m")
    ended = in_process("export", "auto", digits_run, *options)
    assert ended.code == 6
    assert ended.err == ("error: ncnn is not installed: pip install 'cct-export[ncnn]' brings it\n")
    assert names_in(tmp_path) == []


def test_engines_that_are_not_installed_are_left_out(digits_run, fastest, monkeypatch, tmp_path):
    fastest("onnxruntime", "none")
    for library in ("ncnn", "openvino", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, library, None)
    exported = cct_export.export_auto(digits_run, output=tmp_path / "m", parity_samples=8)
    assert {row.engine for row in exported.candidates} == {"onnxruntime"}
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match="no engine is installed"):
        cct_export.export_auto(digits_run, output=tmp_path / "m")
