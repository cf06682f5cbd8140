"""The benchmark suite on a small model; no time that it measures decides a test."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(ROOT))

import conversions  # noqa: E402
import picture  # noqa: E402
import record  # noqa: E402
import run  # noqa: E402
import tables  # noqa: E402
import validate  # noqa: E402

OURS = {"none", "fp16", "int8-dynamic", "int8", "int4-weight"}


@pytest.fixture(scope="session")
def small_results(tmp_path_factory, digits_run, exports):
    """A run over finished exports in place of conversions: everything but converting is real."""
    baseline = "stock tflite float32"

    def copy(path):
        shutil.copy(exports("tflite").path, path)

    def copies(model, data, folder, schemes):
        yield conversions.Conversion(baseline, "tflite", baseline, copy)
        yield conversions.Conversion("cct-export tflite none", "tflite", baseline, copy)
        yield conversions.Conversion("stock onnx fp16", "onnx", "stock onnx fp16", _refuse)

    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversions, "conversions", copies)
        patch.setattr(conversions, "cold_export_s", lambda model, folder: 1.0)
        options = ["--rounds", "2", "--images", "64", "--threads", "1", "--out", folder]
        arguments = ["--data", "digits", "--model", digits_run, *options]
        done = CliRunner().invoke(run.main, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


def _refuse(path):
    raise ValueError("no float16\nhere")


def test_every_file_is_verified_and_timed(small_results):
    results = record.read(small_results)
    assert len(results.files) == 3
    for file in results.measured:
        assert {count: len(runs) for count, runs in file.times_ns.items()} == {1: 40}
        assert file.parity.samples == 64
        assert file.accuracy.samples == 360
        assert file.macs > 1e6
        assert results.size_ratio(file.name, file.baseline) == 1.0
    assert results.parameters > 10_000


def test_the_error_of_a_converter_is_recorded(small_results):
    (failed,) = [file for file in record.read(small_results).files if file.error]
    assert (failed.name, failed.error) == ("stock onnx fp16", "no float16 here")
    page = (small_results / "results.md").read_text()
    assert "- stock onnx fp16: no float16 here" in page


def test_results_are_written_as_they_are_read(small_results, tmp_path):
    results = record.read(small_results)
    record.write(results, tmp_path)
    assert record.read(tmp_path) == results
    lines = (tmp_path / "results.json").read_text().splitlines()
    assert sum(line.count(",") > 30 for line in lines) == 2, "the times of a file are one line"


def test_a_results_page_has_a_row_for_every_file_and_no_folder_names(small_results):
    page = (small_results / "results.md").read_text()
    for file in record.read(small_results).files:
        assert page.count(f"| {file.name} |") == 1
    assert "## Targets, 1 thread" in page
    assert str(Path.home()) not in page + (small_results / "results.json").read_text()


def test_a_page_is_refreshed_between_its_markers_alone(small_results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        f"Before.\n<!-- results:picture bars.png {small_results} -->\n<!-- /results -->\n"
        f"<!-- results:summary {small_results}:none,int8 -->stale<!-- /results -->\n"
        f'<!-- results:figure {small_results} kb "cct-export tflite none" -->?<!-- /results --> kB'
    )
    done = CliRunner().invoke(run.main, ["--write", str(page)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.startswith("Before.\n<!-- results:picture")
    assert "stale" not in text and text.count("stock: ") == 1
    size = record.read(small_results).file("cct-export tflite none").size_bytes
    assert f"-->{size / 1e3:,.0f}<!-- /results --> kB" in text
    assert tables.rendered(text) == text
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_every_view_renders_the_figures_of_a_complete_run():
    folder = "intel-r-xeon-r-processor/cct_keras_io"
    for view in tables.VIEWS.keys() - {"figure", "picture", "summary", "peers", "peers_picture"}:
        assert "0.1" in tables.VIEWS[view](folder), view
    assert "0.1" in tables.VIEWS["peers"]("intel-r-xeon-r-processor/peers/cct_keras_io")
    with pytest.raises(ValueError, match="no view 'sumary': choose from"):
        tables.rendered(f"<!-- results:sumary {folder} --><!-- /results -->")
    with pytest.raises(ValueError, match="has no file 'tflite'"):
        tables.VIEWS["figure"](folder, "ms", "tflite")


def test_the_picture_has_a_bar_for_each_file_and_its_converter():
    bars = picture.bars([record.read("intel-r-xeon-r-processor/cct_keras_io")])
    labels = [bar.label for bar in bars]
    assert labels == [label for label in dict.fromkeys(labels) for _ in range(2)]
    assert [bar.converter for bar in bars] == ["stock", "cct-export"] * 4


def _file(name, size, ms, **fields):
    return record.MeasuredFile(
        name, "tflite", "float32", "s", size_bytes=size, macs=10**8,
        times_ns={1: (int(ms * 1e6),)}, **fields,
    )  # fmt: skip


def _results(*files):
    roofline = {1: record.MatmulRate(1e11, 4e11)}
    return record.Results("", "m", 1, "", record.MachineInfo(), {}, 1, 1.0, roofline, files)


def test_ratios_are_ours_over_the_baseline():
    results = _results(_file("s", 200, 4.0), _file("o", 100, 3.0))
    assert results.size_ratio("o", "s") == 0.5
    assert results.latency_ratio("o", "s", 1) == 0.75
    failed = _results(_file("s", 200, 4.0, error="no"), _file("o", 100, 3.0))
    assert failed.latency_ratio("o", "s", 1) is None


def test_the_share_of_the_roofline_is_the_time_of_the_products_alone():
    file = _file("o", 1, 4.0)
    # 10^8 at 10^11 a second are 1 ms.
    assert _results(file).roofline_share(file, 1) == 0.25


def test_every_scheme_has_a_baseline_and_a_precision():
    ours = list(conversions._ours("m", "d"))
    options = {"none-one-image", "int8-one-image", "none-speed"}
    assert {c.name.split()[-1] for c in ours} == OURS | options | {"int8-full", "int16x8"}
    precisions = {c.name: c.precision for c in ours}
    assert precisions["cct-export onnx none-one-image"] == "float32"
    assert precisions["cct-export onnx fp16"] == "float32"
    assert precisions["cct-export tflite int4-weight"] == "int8"


def test_a_folder_is_named_after_the_processor():
    assert run.slug("Intel(R) Xeon(R) @ 2.20GHz") == "intel-r-xeon-r-2-20ghz"


@pytest.mark.parametrize("text", ["", "0", "1,,2", "two", "-1"])
def test_thread_counts_that_are_not_numbers_are_refused(text):
    done = CliRunner().invoke(run.main, ["--data", "digits", f"--threads={text}"])
    assert done.exit_code == 2
    assert "is not a list of numbers" in done.output


def test_a_run_needs_images_or_a_page():
    done = CliRunner().invoke(run.main, [])
    assert done.exit_code == 2
    assert "name the images with --data, or a page with --write" in done.output


def test_missing_data_is_an_error_of_one_line(tmp_path):
    done = CliRunner().invoke(run.main, ["--data", str(tmp_path / "none")])
    assert done.exit_code == 2
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_the_files_of_a_real_run_are_verified_and_timed(tmp_path, digits_run):
    command = [sys.executable, ROOT / "run.py", "--data", "digits", "--model", digits_run]
    options = ["--rounds", "2", "--images", "64", "--out", tmp_path]
    schemes = ["--schemes", "none,none-speed,int8,int8-one-image"]
    done = subprocess.run([*command, *options, *schemes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = record.read(tmp_path)
    assert results.command.startswith("python benchmarks/run.py --data digits --model run")
    assert {file.name for file in results.files} == {
        "stock tflite float32", "stock tflite full", "stock onnx float32", "stock onnx static",
        "cct-export tflite none", "cct-export tflite none-speed", "cct-export tflite int8",
        "cct-export onnx none", "cct-export onnx int8", "cct-export onnx int8-one-image",
    }  # fmt: skip
    assert not [file.error for file in results.files if file.error]
    for file in results.files:
        assert {count: len(runs) for count, runs in file.times_ns.items()} == {1: 40, 2: 40}
        assert file.parity.sqnr_db > 5
        baseline = results.file(file.baseline)
        assert baseline.format == file.format
        if file.ours:
            assert file.name.endswith("none-speed") or file.size_bytes < baseline.size_bytes
            # Kernels over pairs of pixels multiply by zeros, too: a ninth of such a small model.
            assert file.macs < 1.1 * baseline.macs


# Validation of cct-bench

LITERT = {
    "accelerators": ["CPU"], "fully_accelerated": True,
    "latency": {"avg_ms": 0.1612, "median_ms": 0.1596, "num_runs": 200},
}  # fmt: skip


def test_the_median_of_litert_benchmark_is_read():
    assert validate.litert_median_ms(json.dumps(LITERT)) == 0.1596


@pytest.mark.parametrize("change", [{"accelerators": ["GPU"]}, {"fully_accelerated": False}])
def test_litert_benchmark_on_something_else_is_refused(change):
    with pytest.raises(RuntimeError, match="litert-benchmark ran it on"):
        validate.litert_median_ms(json.dumps(LITERT | change))


@pytest.mark.slow
def test_litert_benchmark_and_the_plain_loop_time_an_export(exports):
    path = exports("tflite").path
    median = validate.litert_benchmark_ms(path, 0.05, 0.5)
    assert median > 0
    assert median != round(median, 2)
    assert validate.plain_loop_ms(path, 0.05) > 0


def test_ratios_are_of_the_same_turn():
    by_tool = {"cct-bench": [2.0, 4.0, 9.0], "plain": [1.0, 2.0, 3.0], "litert": [2.0, 4.0, 9.0]}
    assert validate.ratios(by_tool, "plain") == (2.0, 2.0, 2.5)
    assert validate.medians_row("f", by_tool)[1:] == [
        "4.0000", "2.0000", "2.000 (2.000 to 2.500)", "4.0000", "1.000 (1.000 to 1.000)",
    ]  # fmt: skip


def test_another_tool_is_first_in_every_turn():
    tools = [("a", None), ("b", None), ("c", None)]
    assert [validate.rotated(tools, turn)[0][0] for turn in range(4)] == ["a", "b", "c", "a"]


def test_verdicts_are_counted_in_one_order():
    assert validate.counts(["regression", "pass", "pass"]) == "2 / 0 / 1"


def test_busy_neighbours_end_after_an_exception():
    import psutil

    with pytest.raises(ZeroDivisionError), validate.busy(1):
        (child,) = [p for p in psutil.Process().children() if "getppid" in " ".join(p.cmdline())]
        assert child.is_running()
        1 / 0  # noqa: B018
    assert not child.is_running()


def test_a_measurement_is_cut_to_its_first_process_and_slowed():
    from cct_export.records import BenchResult
    from cct_export.records.bench import MeasuredFile, Runtime
    from cct_export.specs import BenchSpec

    file = MeasuredFile("m.tflite", "tflite", "none")
    result = BenchResult(file, Runtime.of(BenchSpec("litert")), 1, (10, 20, 30), ((1, 1), (1,)))
    assert validate.first_repeat(result).times_ns == (10, 20)
    assert validate.first_repeat(result).bursts == ((1, 1),)
    assert validate.slowed(result, 1.5).times_ns == (15, 30, 45)
