"""``cct-bench`` on real files: figures, records, refusals, and what it never imports."""

import json
import statistics
import subprocess
import sys

import keras
import numpy as np
import pytest

from cct_export.records import sidecar

QUICK = ("--min-runs", 5, "--min-seconds", 0, "--warmup-seconds", 0)


@pytest.fixture(scope="module")
def measured(exports, in_process):
    """The record of a measurement with accuracy, for two thread counts."""
    path = exports("tflite", "int8").path
    ended = in_process(
        "bench", "tflite", path, "--json", "-", "--accuracy", "--data", "digits",
        "--min-runs", 120, "--min-seconds", 0, "--threads", "1,2",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return ended.record


def test_the_record_has_every_figure(measured, exports):
    assert measured["schema"] == "cct-bench/1"
    assert set(measured["machine"]) == {
        "cpu", "isa", "architecture", "cores", "memory_bytes", "os", "python", "governor",
        "surroundings", "versions", "product",
    }  # fmt: skip
    for result in measured["results"]:
        assert set(result) == {
            "artifact", "runtime", "batch", "latency_ms", "times_ns", "reported_ms", "load_ms",
            "first_inference_ms", "peak_rss_bytes", "accuracy", "parity", "device", "warnings",
            "bursts", "headline", "preprocess_ms", "postprocess_ms", "throughput_per_s",
            "operators", "sustained", "conditions", "failure", "failure_kind", "machine",
        }  # fmt: skip
        assert set(result["runtime"]) == {
            "name", "version", "accelerator", "delegate", "requested", "options",
            "allow_fallback", "threads", "delegated_nodes", "total_nodes",
        }  # fmt: skip
        assert set(result["latency_ms"]) == {
            "count", "mean", "min", "p50", "p50_interval", "p90", "p95", "p99", "stddev", "mad",
            "outliers",
        }  # fmt: skip
        assert set(result["accuracy"]) == {
            "top1", "top5", "samples", "data", "top1_interval", "top5_interval",
            "calibration_error", "confusion", "labels", "paired", "per_class",
        }  # fmt: skip
        assert result["device"] == "local"
        assert result["runtime"]["name"] == "litert"
        assert result["runtime"]["accelerator"] == "cpu"
        assert (
            result["artifact"]["sha256"] == exports("tflite", "int8").record["artifact"]["sha256"]
        )
        assert result["artifact"]["scheme"] == "int8"
        assert result["load_ms"] > 0
        assert result["first_inference_ms"] > 0
        assert 10e6 < result["peak_rss_bytes"] < 500e6
    json.dumps(measured, allow_nan=False)


def test_two_thread_counts_give_two_results(measured):
    assert [result["runtime"]["threads"] for result in measured["results"]] == [1, 2]


def test_the_summary_follows_from_the_raw_times(measured):
    for result in measured["results"]:
        milliseconds = [time / 1e6 for time in result["times_ns"]]
        assert len(milliseconds) >= 120
        latency = result["latency_ms"]
        assert latency["count"] == len(milliseconds)
        assert latency["min"] == pytest.approx(min(milliseconds))
        assert latency["mean"] == pytest.approx(statistics.fmean(milliseconds))
        assert latency["p50"] == pytest.approx(statistics.median(milliseconds))
        assert latency["p99"] is not None
        assert latency["stddev"] == pytest.approx(statistics.stdev(milliseconds))


def test_accuracy_is_that_of_keras_within_two_images(measured, digits_model, digit_images):
    images, labels = digit_images
    logits = keras.saving.load_model(digits_model).predict(images.astype(np.float32), verbose=0)
    order = np.argsort(-logits, axis=1)
    accuracy = measured["results"][0]["accuracy"]
    assert accuracy["samples"] == len(labels) == 360
    assert accuracy["top1"] == pytest.approx((order[:, 0] == labels).mean(), abs=2 / 360)
    top5 = (order[:, :5] == labels[:, None]).any(axis=1).mean()
    assert accuracy["top5"] == pytest.approx(top5, abs=2 / 360)


def test_accuracy_is_paired_with_that_of_keras_on_the_same_images(measured):
    for result in measured["results"]:
        accuracy = result["accuracy"]
        paired = accuracy["paired"]
        lost = (paired["only_reference"] - paired["only_candidate"]) / accuracy["samples"]
        assert accuracy["top1"] == pytest.approx(paired["reference_top1"] - lost)
        assert 0 <= paired["p_value"] <= 1


def test_parity_is_checked_on_the_golden_images_of_the_sidecar(measured):
    parity = measured["results"][0]["parity"]
    assert parity["samples"] == sidecar.GOLDEN_IMAGES
    assert parity["passed"] is True
    assert "sidecar" in parity["images"]


def test_the_table_has_a_row_per_batch_of_an_onnx_file(exports, in_process):
    ended = in_process("bench", "onnx", exports("onnx").path, "--batch", "1,3", *QUICK)
    assert ended.code == 0, ended.err
    rows = [line for line in ended.out.splitlines() if "small-none" in line]
    assert len(rows) == 2
    assert [row.split()[-1] for row in rows] == ["1", "3"]
    assert all("passed" in row.split() for row in rows)
    assert "p50 ms" in ended.out


@pytest.mark.slow
def test_a_keras_model_is_measured_by_keras(digits_model, in_process):
    ended = in_process("bench", "keras", digits_model, "--json", "-", *QUICK)
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["runtime"]["name"] == "keras-tensorflow"
    assert result["runtime"]["delegated_nodes"] is None
    assert result["parity"] is None


def test_options_may_be_written_with_underscores(exports, in_process):
    ended = in_process(
        "bench", "tflite", exports("tflite").path, "--num_threads", 2, "--min_runs", 3,
        "--min_seconds", 0, "--warmup_seconds", 0, "--json", "-",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["runtime"]["threads"] == 2
    assert result["latency_ms"]["count"] == 3


def test_a_model_is_exported_before_it_is_measured(digits_run, in_process):
    arguments = ("--quantize", "int8", "--data", "digits", "--json", "-")
    ended = in_process("bench", "tflite", digits_run, *arguments, *QUICK)
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["artifact"]["scheme"] == "int8"
    assert result["parity"]["passed"] is True
    assert "calibrated on 200 training images of digits" in ended.err


@pytest.mark.slow
def test_the_shipped_model_is_measured_without_an_argument(in_process):
    ended = in_process("bench", "tflite", "--json", "-", *QUICK)
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["artifact"]["path"].endswith("cct_2_3x2_32.tflite")


def test_a_larger_batch_than_the_file_takes_is_refused_with_advice(exports, in_process):
    ended = in_process("bench", "tflite", exports("tflite").path, "--batch", 2, *QUICK)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "takes 1 image at a time, not 2" in ended.err
    assert "`cct-export onnx " in ended.err


def test_other_logits_than_the_golden_ones_end_with_3(tmp_path, exports, in_process):
    original = exports("tflite").path
    path = tmp_path / "m.tflite"
    path.write_bytes(original.read_bytes())
    record = json.loads(sidecar.path_of(original).read_text())
    record["golden"]["logits"] = record["golden"]["logits"][::-1]
    sidecar.path_of(path).write_text(json.dumps(record))
    ended = in_process("bench", "tflite", path, "--json", "-", *QUICK)
    assert ended.code == 3, ended.err
    assert ended.record["results"][0]["parity"]["passed"] is False
    table = in_process("bench", "tflite", path, *QUICK)
    assert table.code == 3
    assert "FAILED" in table.out


def test_a_file_without_a_sidecar_is_measured_with_unknown_parity(tmp_path, exports, in_process):
    path = tmp_path / "m.tflite"
    path.write_bytes(exports("tflite").path.read_bytes())
    ended = in_process("bench", "tflite", path, *QUICK)
    assert ended.code == 0
    assert "unknown" in ended.out


def test_accuracy_without_data_is_a_usage_error(exports, in_process):
    ended = in_process("bench", "tflite", exports("tflite").path, "--accuracy")
    assert ended.code == 2
    assert "--accuracy needs --data" in ended.err


@pytest.mark.parametrize("text", ["", "0", "1,", "a", "1,-2", "1.5", "1 2"])
def test_another_text_than_a_list_of_counts_is_a_usage_error(exports, in_process, text):
    ended = in_process("bench", "tflite", exports("tflite").path, "--threads", text)
    assert ended.code == 2
    assert "is not a list of positive integers" in ended.err


def test_a_crash_of_the_engine_is_one_line(exports, in_process, tmp_path, monkeypatch):
    # The kernel ends the worker by a signal when it has used two seconds of processor time.
    (tmp_path / "sitecustomize.py").write_text(
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (2, 60))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = exports("tflite").path
    ended = in_process("bench", "tflite", path, "--min-seconds", 60)
    assert ended.code == 1
    assert ended.err == f"error: {path}: the engine crashed (SIGXCPU)\n"
    assert ended.out == ""


def test_accuracy_on_data_of_other_classes_is_refused(tmp_path, exports, in_process, digit_images):
    images, labels = digit_images
    data = tmp_path / "letters.npz"
    classes = np.array(list("abcdefghij"))
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels, classes=classes)
    ended = in_process(
        "bench", "tflite", exports("tflite").path, "--accuracy", "--data", data, *QUICK
    )
    assert ended.code == 1
    assert ended.out == ""  # nothing was measured
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: {data} has the classes a, b")
    assert "give the data it was trained for" in line


_WATCH = """
import atexit, json, os, sys
def _write():
    with open(os.environ["MODULES_LOG"], "a") as log:
        log.write(json.dumps([sys.orig_argv, sorted(sys.modules)]) + "\\n")
atexit.register(_write)
"""
UNWANTED = {"tensorflow", "keras", "jax", "torch", "onnx", "tf2onnx", "ai_edge_quantizer", "h5py"}


@pytest.mark.parametrize(
    ("format", "engine", "other"),
    [
        ("tflite", "ai_edge_litert", "onnxruntime"),
        pytest.param("onnx", "onnxruntime", "ai_edge_litert", marks=pytest.mark.slow),
    ],
)
def test_measuring_a_file_imports_no_converter_in_any_process(
    tmp_path, exports, format, engine, other
):
    (tmp_path / "sitecustomize.py").write_text(_WATCH)
    log = tmp_path / "modules.log"
    code = "from cct_export.commands.program import bench_main; bench_main()"
    # Its model is not at hand: Keras would be asked what it gets right, to be compared.
    path = tmp_path / f"m.{format}"
    path.write_bytes(
        exports(format, "int8").path.read_bytes().replace(b"source_sha256", b"source_sha25X")
    )
    command = [sys.executable, "-c", code, format, path, *QUICK]
    command += ["--accuracy", "--data", "digits"]
    environment = {"PYTHONPATH": str(tmp_path), "MODULES_LOG": str(log), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    processes = [json.loads(line) for line in log.read_text().splitlines()]
    workers = [set(modules) for _, modules in processes if "cct_export.bench.worker" in modules]
    parents = [set(modules) for argv, modules in processes if "-c" in argv and code in argv]
    assert (len(workers), len(parents)) == (3, 1)
    for modules in workers:
        assert engine in modules
        assert not modules & (UNWANTED | {other})
    for _, modules in processes:
        assert not UNWANTED.intersection(modules)
    assert engine not in parents[0]


def test_a_scheme_for_a_file_that_is_measured_as_it_is_is_refused(exports, in_process):
    ended = in_process("bench", "tflite", exports("tflite").path, "--quantize", "int8")
    assert ended.code == 2
    assert "measured as it is" in ended.err


def test_more_images_than_tflite_takes_are_refused_before_the_export(digits_model, in_process):
    ended = in_process("bench", "tflite", digits_model, "--batch", 7)
    assert ended.code == 2
    assert f"cct-bench onnx {digits_model} --batch 7" in ended.err


def test_a_foreign_file_is_measured_with_a_warning_about_its_pixels(tmp_path, exports, in_process):
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(exports("tflite").path))
    model.metadata = []
    path = tmp_path / "foreign.tflite"
    flatbuffer_utils.write_model(model, str(path))
    ended = in_process("bench", "tflite", path, "--min-seconds", 0, "--json", "-")
    assert ended.code == 0, ended.err
    warnings = ended.record["results"][0]["warnings"]
    (warning,) = [text for text in warnings if "raw 0-255" in text]  # a busy machine is one more
    assert warning in ended.err
