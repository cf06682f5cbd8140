"""quantize-report, --min-sqnr, --calibrate best and --quantize auto, on the small digits model."""

import json

import numpy as np
import pytest

import cct_export
from cct_export.specs import METHODS


@pytest.fixture(scope="module")
def report(in_process, digits_run, tmp_path_factory):
    plot = tmp_path_factory.mktemp("report") / "bars.png"
    options = ("--sensitivity", "--samples", "40", "--plot", plot, "--json", "-")
    ended = in_process("export", "quantize-report", digits_run, *options)
    assert ended.code == 0, ended.err
    return ended.record, plot, ended.err


def test_the_report_has_every_step_with_integers_and_no_other(report, exports):
    record = report[0]
    how = exports("tflite", "int8").record["artifact"]["quantization"]
    assert {step["step"] for step in record["steps"]} == {*how["static"], *how["dynamic"]}
    assert {s["step"] for s in record["steps"] if s["inputs"] == "static"} == set(how["static"])
    assert record["kernels"] == {}


def test_the_report_is_as_noisy_as_the_file_that_the_engine_runs(report, exports, digits_run):
    reached = cct_export.verify(
        exports("tflite", "int8").path, against=digits_run, data="digits", samples=40
    )
    assert report[0]["sqnr_db"] == pytest.approx(reached.sqnr_db, abs=2.0)


def test_a_step_alone_is_less_noise_than_all_steps(report):
    record = report[0]
    assert min(step["alone_db"] for step in record["steps"]) > record["sqnr_db"]
    assert max(step["without_db"] for step in record["steps"]) > record["sqnr_db"]


def test_grids_of_the_report_reach_as_far_as_the_values_or_clip_some(report):
    on_grids = [step for step in report[0]["steps"] if step["grid_high"] is not None]
    assert on_grids
    for step in on_grids:
        assert 0 <= step["clipped"] < 0.01
        beyond = step["high"] > step["grid_high"] or step["low"] < step["grid_low"]
        assert beyond or step["clipped"] == 0


def test_the_bars_are_a_picture(report):
    assert report[1].read_bytes().startswith(b"\x89PNG")


def test_the_table_is_sorted_worst_first(in_process, digits_run):
    ended = in_process("export", "quantize-report", digits_run, "--samples", "20")
    rows = [line.split() for line in ended.out.splitlines() if " static " in line]
    assert len(rows) > 3
    found = [float(row[4]) for row in rows]
    assert found == sorted(found)


def test_the_report_of_onnx_counts_the_kernels_that_ran(in_process, digits_run):
    options = ("--format", "onnx", "--samples", "10", "--json", "-")
    record = in_process("export", "quantize-report", digits_run, *options).record
    assert record["kernels"]["QLinearConv"] == 1  # that of the image computes in float
    assert record["kernels"]["MatMulIntegerToFloat"] >= 8


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--quantize", "fp16"), 2, "no integers"),
        (("--quantize", "int3"), 2, "no quantization scheme is called 'int3'"),
        (("--plot", "bars.svg"), 2, ".png"),
        (("--calibrate", "best"), 2, "best"),
    ],
)
def test_what_cannot_be_reported_is_refused(in_process, digits_run, options, code, says):
    ended = in_process("export", "quantize-report", digits_run, *options)
    assert ended.code == code
    assert says in ended.err


def export(in_process, model, path, *options, format="tflite"):
    return in_process("export", format, model, "-o", path, "--json", "-", *options)


def test_a_bound_takes_sums_and_the_worst_steps_back_to_float_until_it_holds(
    in_process, digits_run, exports, tmp_path, report
):
    reached = exports("tflite", "int8").record["parity"]["sqnr_db"]
    bound = reached + 6
    options = ("--quantize", "int8", "--min-sqnr", bound)
    ended = export(in_process, digits_run, tmp_path / "m.tflite", *options)
    assert ended.code == 0, ended.err
    found = ended.record["tuning"]["bound"]
    assert found["before_db"] == pytest.approx(reached, abs=1e-6)
    assert ended.record["parity"]["sqnr_db"] == pytest.approx(found["after_db"], abs=1e-6)
    assert found["after_db"] >= bound
    how = ended.record["artifact"]["quantization"]
    assert how["kept_float"] == list(found["floats"])
    assert not set(found["floats"]) & {*how["static"], *how["dynamic"]}
    assert found["float_sums"]
    assert f"sums of attention, {found['floats'][0]}" in ended.err


def test_a_bound_that_holds_anyway_changes_nothing(in_process, digits_run, exports, tmp_path):
    path = tmp_path / "m.tflite"
    ended = export(in_process, digits_run, path, "--quantize", "int8", "--min-sqnr", "10")
    assert ended.record["tuning"]["bound"]["floats"] == []
    assert path.read_bytes() == exports("tflite", "int8").path.read_bytes()


def test_a_bound_that_floats_cannot_hold_fails_parity_and_keeps_the_old_file(
    in_process, digits_model, tmp_path
):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    options = ("--quantize", "int8-dynamic", "--min-sqnr", "1000", "--samples", "16")
    ended = export(in_process, digits_model, path, *options)
    assert ended.code == 3
    assert path.read_bytes() == b"old"
    assert "below the 1000 dB of --min-sqnr" in ended.err


def test_integers_only_have_no_floats_to_go_back_to(in_process, digits_run, tmp_path):
    path = tmp_path / "m.tflite"
    options = ("--quantize", "int8-full", "--min-sqnr", "60")
    ended = export(in_process, digits_run, path, *options)
    assert ended.code == 2
    assert "use int8" in ended.err
    assert "calibrated" not in ended.err, "it is said before any work"
    assert not path.exists()


def test_the_best_ranges_are_chosen_for_each_tensor(in_process, digits_run, tmp_path):
    options = ("--quantize", "int8", "--calibrate", "best")
    ended = export(in_process, digits_run, tmp_path / "m.tflite", *options)
    assert ended.code == 0, ended.err
    chosen = ended.record["artifact"]["quantization"]["ranges"]
    assert len(chosen) > 3
    assert set(chosen.values()) <= set(METHODS)


@pytest.fixture(scope="module")
def automatic(in_process, digits_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("auto") / "m.onnx"
    options = ("--quantize", "auto", "--max-drop", "2", "--data", "digits")
    ended = export(in_process, digits_run, path, *options, format="onnx")
    assert ended.code == 0, ended.err
    return ended.record, path


def test_auto_takes_the_fastest_of_those_that_it_measured(automatic):
    record, path = automatic
    candidates = record["tuning"]["candidates"]
    (taken,) = [one for one in candidates if not one["why_not"]]
    assert record["artifact"]["scheme"] == taken["scheme"]
    assert taken["drop"] <= 2
    slower = [one for one in candidates if one["why_not"].startswith("slower than")]
    assert slower
    assert all(one["median_ms"] >= taken["median_ms"] for one in slower)
    assert path.stat().st_size == taken["size_bytes"]


def test_auto_says_what_became_of_every_scheme(automatic):
    from cct_export.quantize.schemes import fast_schemes

    names = [one["scheme"] for one in automatic[0]["tuning"]["candidates"]]
    assert names == fast_schemes("onnx")


def test_auto_says_in_a_few_words_what_a_scheme_needs(in_process, digits_model, tmp_path):
    options = ("--quantize", "auto", "--samples", "16")
    for format, scheme, needs in (
        ("tflite", "int8-full", "needs --io int8"),
        ("onnx", "int4-weight", "needs --opset 21"),
    ):
        path = tmp_path / f"m.{format}"
        more = ("--opset", 18) if format == "onnx" else ()
        ended = export(in_process, digits_model, path, *options, *more, format=format)
        assert ended.code == 0, ended.err
        candidates = {row["scheme"]: row for row in ended.record["tuning"]["candidates"]}
        assert candidates[scheme]["why_not"] == needs


def test_auto_with_bounds_that_nothing_keeps_says_why_and_writes_nothing(
    in_process, digits_model, tmp_path
):
    path = tmp_path / "m.onnx"
    options = ("--quantize", "auto", "--min-sqnr", "1000", "--samples", "16")
    ended = export(in_process, digits_model, path, *options, format="onnx")
    assert ended.code == 1
    assert "no scheme meets the constraints" in ended.err
    assert "int8" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--quantize", "auto", "--max-drop", "1"), "give labelled images with --data"),
        (("--quantize", "int8", "--max-drop", "1"), "--quantize auto"),
        (("--quantize", "int8-full", "--io", "float32"), "choose --io int8 or uint8"),
        (("--quantize", "int8", "--min-sqnr", "nan"), "'nan' is not a number"),
        (("--quantize", "int8", "--min-sqnr", "inf"), "'inf' is not a number"),
        (("--quantize", "int8", "--min-sqnr", "-5"), "-5.0 is not in the range"),
        (("--quantize", "auto", "--max-drop", "nan", "--data", "digits"), "'nan' is not a number"),
        (("--quantize", "auto", "--calibrate", "best"), "--calibrate best is for one scheme"),
    ],
)
def test_constraints_that_contradict_are_refused(in_process, digits_model, tmp_path, options, says):
    ended = export(in_process, digits_model, tmp_path / "m.tflite", *options)
    assert ended.code == 2
    assert says in ended.err
    assert list(tmp_path.iterdir()) == []


def test_pixels_that_are_not_numbers_are_refused_and_nothing_is_written(
    in_process, digits_model, tmp_path
):
    images = np.full((20, 32, 32, 3), np.nan, np.float32)
    labels = np.arange(20) % 10
    parts = {f"{kind}_{split}": value for split in ("train", "test")
             for kind, value in (("x", images), ("y", labels))}  # fmt: skip
    np.savez(tmp_path / "nan.npz", **parts)
    path = tmp_path / "m.tflite"
    options = ("--quantize", "int8", "--data", tmp_path / "nan.npz")
    ended = export(in_process, digits_model, path, *options)
    assert ended.code == 1
    assert "uint8" in ended.err
    assert not path.exists()


def test_json_alone_is_on_standard_output(report):
    assert json.dumps(report[0])
