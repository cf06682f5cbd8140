"""Records of measurements, written, read again, and refused."""

import json

import pytest

from cct_export.bench import record
from cct_export.errors import InvalidData
from cct_export.records import (
    Accuracy,
    BenchResult,
    OperatorProfile,
    OperatorTime,
    ParityReport,
    Sustained,
)

FULL = BenchResult(
    artifact={"path": "m.tflite", "format": "tflite", "scheme": "int8", "size_bytes": 5},
    runtime={"name": "litert", "version": "1", "delegate": "xnnpack", "threads": 1},
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
        0.5,
        1.0,
        2,
        "d",
        (0.1, 0.9),
        (0.3, 1.0),
        0.2,
        ((1, 0), (1, 0)),
        ("a", "b"),
        {"p_value": 1.0},
    ),
    parity=ParityReport(
        "m", "f", "int8", "i", 1, 0.0, 0.0, 1.0, float("inf"), 1.0, 1, True, False, ()
    ),
    operators=OperatorProfile((OperatorTime("a", "CONV_2D", 0.5, "xnnpack"),), 9, True, "n"),
    sustained=Sustained(1.0, (1.0,), (2.0,), (3,), (None,), (None,)),
    conditions={"other_cores": 0.1},
    machine={"cpu": "A", "cores": 2},
    warnings=("w",),
)
FAILED = BenchResult(
    {"path": "x", "format": "tflite", "scheme": "unknown"},
    {"name": "litert", "version": "", "delegate": "gpu"},
    1,
    machine={"cores": 3},
    failure="no",
    failure_kind="NotAvailable",
)


def written(path, results):
    path.write_text(json.dumps(record.write(results), allow_nan=False))
    return path


def test_what_is_read_is_what_was_written(tmp_path):
    assert record.read(written(tmp_path / "r.json", [FULL, FAILED])) == [FULL, FAILED]


def test_a_row_that_names_no_machine_is_of_that_of_the_record(tmp_path):
    path = written(tmp_path / "r.json", [FULL])
    changed = json.loads(path.read_text())
    del changed["results"][0]["machine"]
    changed["machine"] = {"cpu": "Another 9000"}
    path.write_text(json.dumps(changed))
    (found,) = record.read(path)
    assert found.machine == {"cpu": "Another 9000"}


def test_what_follows_from_the_times_is_beside_them():
    (found,) = record.write([FULL])["results"]
    assert found["latency_ms"]["count"] == 3
    assert found["throughput_per_s"] == pytest.approx(2 / 4e-9)
    assert found["accuracy"]["per_class"] == [1.0, 0.0]


def test_a_row_without_times_has_no_latency():
    (found,) = record.write([FAILED])["results"]
    assert found["latency_ms"] is None
    assert found["throughput_per_s"] is None


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
    ("change", "says"),
    [
        (lambda row: row["artifact"].clear(), "artifact.path"),
        (lambda row: row.update(artifact="m"), "AttributeError"),
        (lambda row: row["runtime"].pop("name"), "runtime.name"),
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
        (lambda row: row.update(load_ms=float("nan")), "load_ms"),
        (lambda row: row.update(peak_rss_bytes=float("inf")), "peak_rss_bytes"),
        (lambda row: row["conditions"].update(other_cores="1"), "conditions.other_cores"),
        (lambda row: row["conditions"].update(yardstick_ms=-1), "conditions.yardstick_ms"),
        (lambda row: row.update(warnings=[3]), "warnings"),
        (lambda row: row.update(failure="no", failure_kind="os"), "failure"),
        (lambda row: row.update(failure="no"), "failure_kind"),
        (lambda row: row.update(machine=3), "machine"),
    ],
)
def test_a_field_that_is_not_what_it_has_to_be_is_named(tmp_path, change, says):
    path = written(tmp_path / "r.json", [FULL])
    changed = json.loads(path.read_text())
    change(changed["results"][0])
    path.write_text(json.dumps(changed))
    with pytest.raises(InvalidData, match=says):
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
