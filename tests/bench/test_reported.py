"""Statistics of a tool that does not tell each run: no bounds, no ratio."""

import json
from dataclasses import asdict, replace

import pytest

from cct_export.bench import record, statistics, warnings
from cct_export.bench.regression import Limits, judge
from cct_export.errors import InvalidData
from cct_export.records import (
    BenchResult,
    Conditions,
    MachineInfo,
    MeasuredFile,
    ReportedLatency,
    RunConditions,
    Runtime,
)
from cct_export.report.page import page
from cct_export.report.rows import markdown, rows
from cct_export.specs import Timing

REPORTED = ReportedLatency(60, 0.68, mean=0.7, min=0.6, max=1.2, p95=0.9, stddev=0.05)
FIGURES = asdict(REPORTED)
CALM = Conditions(temperature_c=40.0, thermal_status=0, battery_percent=80, charging=False)
PHONE = BenchResult(
    artifact=MeasuredFile("m.tflite", "tflite", "int8", size_bytes=1000),
    runtime=Runtime("litert", "", "cpu", "xnnpack", "default", 1, {}, False, 3, 3),
    batch=1,
    reported_ms=REPORTED,
    conditions=RunConditions(CALM, CALM),
    device="adb:R58M",
    machine=MachineInfo(cpu="S1000", cores=8),
)


def written(tmp_path, **changes):
    content = record.to_dict([PHONE])
    content["results"][0] |= changes
    path = tmp_path / "phone.json"
    path.write_text(json.dumps(content))
    return path


def test_what_was_reported_is_read_as_it_was_written(tmp_path):
    assert record.read(written(tmp_path)) == [PHONE]
    row = record.to_dict([PHONE])["results"][0]
    assert row["latency_ms"]["p50"] == 0.68
    assert row["latency_ms"]["p90"] is row["latency_ms"]["p50_interval"] is None
    assert row["latency_ms"]["max"] == 1.2
    assert row["throughput_per_s"] == pytest.approx(1e3 / 0.68)


@pytest.mark.parametrize(
    "reported",
    [
        {}, {"count": 60}, FIGURES | {"p50": None}, FIGURES | {"p50": "fast"},
        FIGURES | {"count": 0}, FIGURES | {"mean": -1.0}, [0.68], "0.68",
    ],
)  # fmt: skip
def test_a_record_with_invalid_statistics_is_refused(tmp_path, reported):
    with pytest.raises(InvalidData):
        record.read(written(tmp_path, reported_ms=reported))


def test_runs_and_statistics_exclude_each_other(tmp_path):
    with pytest.raises(InvalidData, match="reported_ms"):
        record.read(written(tmp_path, times_ns=[680_000]))
    with pytest.raises(InvalidData, match="reported_ms"):
        record.read(written(tmp_path, headline=90))


def test_the_headline_is_the_tools_own():
    assert statistics.headline_ms(PHONE) == 0.68
    assert statistics.headline_ms(replace(PHONE, headline=95)) == 0.9


def test_a_row_has_a_latency_and_no_ratio():
    timed = replace(PHONE, reported_ms=None, times_ns=(700_000,) * 60)
    for pair in ([PHONE, timed], [timed, PHONE], [PHONE, PHONE]):
        _, second = rows(pair)
        assert second.latency_ms == statistics.headline_ms(pair[1])
        assert second.ratio is None
        assert second.refused == ""
        assert "0.680" in markdown(pair)
        assert "m.tflite" in page(PHONE.machine, pair)


def test_it_is_neither_a_regression_nor_a_pass():
    slower = replace(PHONE, reported_ms=replace(REPORTED, p50=6.8))
    verdict = judge(PHONE, slower, Limits())
    assert verdict.status == "inconclusive"
    assert "statistics only" in verdict.why


def test_a_phone_at_rest_gets_no_warning():
    assert warnings.of(PHONE, Timing()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"thermal_status": 2}, "thermal status 2"),
        ({"battery_percent": 10}, "10 %"),
        ({"charging": True}, "charging"),
    ],
)
def test_what_slows_a_phone_is_warned_of(changes, problem):
    conditions = RunConditions(CALM, replace(CALM, **changes))
    (warning,) = warnings.of(replace(PHONE, conditions=conditions), Timing())
    assert problem in warning


def test_few_reported_runs_are_warned_of():
    few = replace(PHONE, reported_ms=replace(REPORTED, count=7))
    (warning,) = warnings.of(few, Timing())
    assert "only 7 runs" in warning
