"""A latency of which a tool tells statistics only: no runs, no bounds, no ratio."""

import dataclasses
import json

import pytest

from cct_export.bench import record, statistics
from cct_export.bench.regression import Limits, judge
from cct_export.bench.warnings import advised
from cct_export.errors import InvalidData
from cct_export.records import BenchResult
from cct_export.report import tables
from cct_export.report.page import page
from cct_export.report.rows import rows
from cct_export.specs import Timing

TOLD = {
    "count": 60, "mean": 0.7, "min": 0.6, "max": 1.2, "p50": 0.68, "p95": 0.9, "stddev": 0.05,
}  # fmt: skip
CALM = {
    "temperature_c": 40.0, "frequency_mhz": None, "load_1m": None, "throttled": None,
    "governor": None, "thermal_status": 0, "battery_percent": 80, "charging": False,
}  # fmt: skip
PHONE = BenchResult(
    artifact={
        "path": "m.tflite", "format": "tflite", "scheme": "int8", "size_bytes": 1000,
        "described": True, "changed": False,
    },
    runtime={
        "name": "litert", "version": "", "accelerator": "cpu", "delegate": "xnnpack",
        "asked": "default", "options": {}, "allow_fallback": False, "threads": 1,
        "delegated_nodes": 3, "total_nodes": 3,
    },
    batch=1,
    reported_ms=TOLD,
    conditions={"before": CALM, "after": CALM, "other_cores": None},
    device="adb:R58M",
    machine={"cpu": "S1000", "cores": 8},
)  # fmt: skip


def written(tmp_path, **changes):
    text = json.loads(json.dumps(record.write([PHONE])))
    text["results"][0] |= changes
    path = tmp_path / "phone.json"
    path.write_text(json.dumps(text))
    return path


def test_what_was_reported_is_read_as_it_was_written(tmp_path):
    assert record.read(written(tmp_path)) == [PHONE]
    row = record.write([PHONE])["results"][0]
    assert row["latency_ms"]["p50"] == 0.68
    assert row["latency_ms"]["p90"] is row["latency_ms"]["p50_interval"] is None
    assert row["throughput_per_s"] == pytest.approx(1e3 / 0.68)


@pytest.mark.parametrize(
    "reported",
    [
        {}, {"count": 60}, TOLD | {"p50": None}, TOLD | {"p50": "fast"}, TOLD | {"count": 0},
        TOLD | {"mean": -1.0}, [0.68], "0.68",
    ],
)  # fmt: skip
def test_a_record_with_figures_that_are_none_is_refused(tmp_path, reported):
    with pytest.raises(InvalidData):
        record.read(written(tmp_path, reported_ms=reported))


def test_runs_and_statistics_exclude_each_other(tmp_path):
    with pytest.raises(InvalidData, match="reported_ms"):
        record.read(written(tmp_path, times_ns=[680_000]))
    with pytest.raises(InvalidData, match="reported_ms"):
        record.read(written(tmp_path, headline=90))


def test_the_headline_is_the_tools_own():
    assert statistics.headline_ms(PHONE) == 0.68
    assert statistics.headline_ms(dataclasses.replace(PHONE, headline=95)) == 0.9


def test_a_row_has_a_latency_and_no_ratio():
    timed = dataclasses.replace(PHONE, reported_ms=None, times_ns=(700_000,) * 60)
    for pair in ([PHONE, timed], [timed, PHONE], [PHONE, PHONE]):
        _, second = rows(pair)
        assert second.latency_ms == statistics.headline_ms(pair[1])
        assert second.ratio is None
        assert second.refused == ""
        assert "0.680" in tables.markdown(pair)
        assert "m.tflite" in page({}, pair)


def test_it_is_neither_a_regression_nor_a_pass():
    slower = dataclasses.replace(PHONE, reported_ms=TOLD | {"p50": 6.8})
    verdict = judge(PHONE, slower, Limits())
    assert verdict.status == "inconclusive"
    assert "statistics only" in verdict.why


def test_a_phone_at_rest_gets_no_warning():
    assert advised(PHONE, Timing()).warnings == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thermal_status": 2}, "thermal status 2"),
        ({"battery_percent": 10}, "10 %"),
        ({"charging": True}, "charging"),
    ],
)
def test_what_slows_a_phone_is_told(changes, said):
    conditions = PHONE.conditions | {"after": CALM | changes}
    (warning,) = advised(dataclasses.replace(PHONE, conditions=conditions), Timing()).warnings
    assert said in warning


def test_few_runs_are_told_of_here_too():
    few = dataclasses.replace(PHONE, reported_ms=TOLD | {"count": 7})
    (warning,) = advised(few, Timing()).warnings
    assert "only 7 runs" in warning
