"""Records of measurements: written, read again, and refused."""

import json
from dataclasses import replace

import pytest

from cct_export.bench import record
from cct_export.errors import InvalidData
from cct_export.records import (
    Accuracy,
    BenchResult,
    MachineInfo,
    MeasuredFile,
    OperatorProfile,
    OperatorTime,
    PairedAccuracy,
    ParityReport,
    RunConditions,
    Runtime,
    Sustained,
)

FULL = BenchResult(
    artifact=MeasuredFile("m.tflite", "tflite", "int8", size_bytes=5, sha256="0f"),
    runtime=Runtime("litert", "1", "cpu", "xnnpack", "default", 1, {}),
    batch=2,
    times_ns=(3, 4, 5),
    bursts=((2,), (1,)),
    load_ms=1.0,
    first_inference_ms=2.0,
    peak_rss_bytes=7,
    preprocess_ms=0.1,
    postprocess_ms=0.2,
    headline=90,
    accuracy=Accuracy(
        0.5, 1.0, 2, "d", (0.1, 0.9), (0.3, 1.0), 0.2, ((1, 0), (1, 0)), ("a", "b"),
        PairedAccuracy(0.5, 1, 1, 1.0),
    ),
    parity=ParityReport(
        "m", "f", "int8", "i", 1, 0.0, 0.0, 1.0, float("inf"), 1.0, 1, True, False, ()
    ),
    operators=OperatorProfile((OperatorTime("a", "CONV_2D", 0.5, "xnnpack"),), 9, True, "n"),
    sustained=Sustained(1.0, (1.0,), (2.0,), (3,), (None,), (None,)),
    conditions=RunConditions(other_cores=0.1),
    machine=MachineInfo(cpu="A", cores=2),
    warnings=("w",),
)  # fmt: skip
FAILED = BenchResult(
    MeasuredFile("x", "tflite", "unknown"),
    Runtime("litert", "", "", "gpu", "gpu", 1, {}),
    1,
    machine=MachineInfo(cores=3),
    failure="no",
    failure_kind="NotAvailable",
)
LATENCY_KEYS = [
    "count", "mean", "min", "p50", "p90", "p95", "p99", "p50_interval", "stddev", "mad", "outliers",
]  # fmt: skip


def written(path, results):
    path.write_text(json.dumps(record.to_dict(results), allow_nan=False))
    return path


def test_what_is_read_is_what_was_written(tmp_path):
    assert record.read(written(tmp_path / "r.json", [FULL, FAILED])) == [FULL, FAILED]


def test_a_row_that_names_no_machine_is_of_that_of_the_record(tmp_path):
    path = written(tmp_path / "r.json", [FULL])
    changed = json.loads(path.read_text())
    del changed["results"][0]["machine"]
    changed["machine"] = {"cpu": "Another 9000"}
    path.write_text(json.dumps(changed))
    (result,) = record.read(path)
    assert result.machine == MachineInfo(cpu="Another 9000")


def test_results_of_another_machine_are_compared_with_a_warning(tmp_path):
    path = written(tmp_path / "r.json", [FULL, replace(FULL, machine=record.machine.describe())])
    other, this = record.read_for_comparison(path)
    assert "of another machine (cpu: 'A' then" in other.warnings[-1]
    assert this.warnings == FULL.warnings


def test_statistics_of_the_times_are_in_the_record():
    (row,) = record.to_dict([FULL])["results"]
    assert list(row["latency_ms"]) == LATENCY_KEYS
    assert row["latency_ms"]["count"] == 3
    assert row["throughput_per_s"] == pytest.approx(2 / 4e-9)
    assert row["accuracy"]["per_class"] == [1.0, 0.0]


def test_a_row_without_times_has_no_latency():
    (row,) = record.to_dict([FAILED])["results"]
    assert row["latency_ms"] is None
    assert row["throughput_per_s"] is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"3", b"null", b'{"schema": "other/9"}', b"\xff\xfe\x00",
        b'{"schema": "cct-bench/1", "machine": {}}',
        b'{"schema": "cct-bench/1", "machine": {}, "results": [{}]}',
        b'{"schema": "cct-bench/1", "machine": {}, "results": 3}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused_by_name(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=r"r\.json"):
        record.read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidData, match="cannot be read"):
        record.read(tmp_path / "none.json")


def test_bursts_that_do_not_add_up_are_refused(tmp_path):
    path = written(tmp_path / "r.json", [FULL])
    changed = json.loads(path.read_text())
    changed["results"][0]["bursts"] = [[1]]
    path.write_text(json.dumps(changed))
    with pytest.raises(InvalidData, match="bursts"):
        record.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["artifact"].clear(), r"path`.*artifact"),
        (lambda row: row.update(artifact="m"), "artifact"),
        (lambda row: row["runtime"].pop("name"), r"name`.*runtime"),
        (lambda row: row["runtime"].update(threads="x"), "runtime.threads"),
        (lambda row: row["artifact"].update(size_bytes="x"), "artifact.size_bytes"),
        (lambda row: row.update(batch="8"), "batch"),
        (lambda row: row.update(batch=-1), "batch"),
        (lambda row: row.update(headline=200), "headline"),
        (lambda row: row.update(headline="x"), "headline"),
        (lambda row: row.update(bursts=[[]]), "bursts"),
        (lambda row: row.update(bursts=[[0, 3]]), "bursts"),
        (lambda row: row.update(bursts=[[-1, 4]]), "bursts"),
        (lambda row: row.update(times_ns=[3, 4, 0]), "times_ns"),
        (lambda row: row.update(times_ns=[3, 4, -5]), "times_ns"),
        (lambda row: row.update(times_ns=[3, 4, 1e300]), "times_ns"),
        (lambda row: row.update(times_ns=[3, 4, 10**400]), "times_ns"),
        (lambda row: row.update(times_ns=[], bursts=[]), "times_ns"),
        (lambda row: row.update(load_ms=float("nan")), "its JSON is wrong at byte"),
        (lambda row: row.update(peak_rss_bytes=1e300), "peak_rss_bytes"),
        (lambda row: row.update(parity=3), "no record"),
        (lambda row: row["conditions"].update(other_cores="1"), "conditions.other_cores"),
        (lambda row: row["conditions"].update(yardstick_ms=-1), "conditions.yardstick_ms"),
        (lambda row: row.update(warnings=[3]), "warnings"),
        (lambda row: row.update(failure="no", failure_kind="os"), "failure"),
        (lambda row: row.update(failure="no"), "failure_kind"),
        (lambda row: row.update(machine=3), "machine"),
        (lambda row: row["machine"].update(cores=-1), "machine.cores"),
        (lambda row: row["sustained"].update(interval_s=0), "sustained.interval_s"),
        (lambda row: row["sustained"].update(p50_ms=[]), "sustained.p50_ms"),
        (lambda row: row["sustained"].update(runs=[3, 4]), "sustained.runs"),
        (lambda row: row["sustained"].update(temperature_c=[1, 2]), "sustained.temperature_c"),
        (lambda row: row["accuracy"].update(top1=2), "accuracy.top1"),
        (lambda row: row["accuracy"].update(samples=-1), "accuracy.samples"),
        (lambda row: row["accuracy"].update(confusion=[[1, 0]]), "accuracy.confusion"),
        (lambda row: row["accuracy"].update(calibration_error=1e300), "calibration_error"),
        (lambda row: row["operators"]["operators"][0].update(ms=1e300), "operators"),
    ],
)
def test_an_invalid_field_is_named(tmp_path, change, message):
    path = written(tmp_path / "r.json", [FULL])
    changed = json.loads(path.read_text())
    change(changed["results"][0])
    path.write_text(json.dumps(changed))
    with pytest.raises(InvalidData, match=message):
        record.read(path)


def test_the_row_of_an_invalid_field_is_named(tmp_path):
    path = written(tmp_path / "r.json", [FULL, FULL])
    changed = json.loads(path.read_text())
    changed["results"][1]["parity"]["sqnr_db"] = "x"
    path.write_text(json.dumps(changed))
    with pytest.raises(InvalidData, match=r"results\[1\]: .*sqnr_db"):
        record.read(path)


def test_a_record_without_results_is_refused(tmp_path):
    path = written(tmp_path / "r.json", [])
    with pytest.raises(InvalidData, match="has no results"):
        record.read(path)


def test_a_record_that_is_nested_too_deep_is_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InvalidData, match="no record"):
        record.read(path)
