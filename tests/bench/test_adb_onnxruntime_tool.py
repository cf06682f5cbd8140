"""Flags and output of onnxruntime_perf_test, in the formats of its sources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench.hosts.adb.onnxruntime_tool import _warm_up_runs, arguments, parse
from cct_export.bench.hosts.adb.tool import DelegateOptions
from cct_export.errors import EngineFailed, InvalidRequest
from cct_export.specs import BenchSpec, Delegation

TEXT = (
    "Session creation time cost: 0.0125 s\nFirst inference time cost: 3 ms\n"
    "Total inference time cost: 0.05 s\n"
)


def _spec(name="default", batch=1):
    return BenchSpec("onnxruntime", 2, batch, Delegation(name))


def test_every_time_is_kept():
    lines = "cct-export-1,0.000693,20971520,99,0\ncct-export-1,6.9e-05,20971520,99,1\n\n"
    report = parse(TEXT, lines)
    assert report.times_ns == (693_000, 69_000)
    assert report.load_ms == 12.5
    assert report.first_inference_ms == 3
    assert report.peak_rss_bytes == 20971520
    assert report.reported_ms is None


def test_what_the_tool_does_not_tell_is_unknown():
    report = parse("", "m,0.1,0,0,0\n")
    assert report.load_ms is report.first_inference_ms is report.peak_rss_bytes is None


@pytest.mark.parametrize("lines", ["", "m,0.1\n", "m,nan,1,1,0\n", "m,inf,1,1,0\n", "m,0,1,1,0\n"])
def test_lines_that_are_no_times_are_an_error(lines):
    with pytest.raises(EngineFailed):
        parse(TEXT, lines)


@given(st.text())
def test_any_file_is_a_report_or_an_error(lines):
    try:
        assert parse(TEXT, lines).times_ns
    except EngineFailed as error:
        assert "\n" not in str(error)


def test_the_first_runs_are_the_warm_up():
    times = (5_000_000, 4_000_000, 3_000_000, 2_000_000)
    assert _warm_up_runs(times, 0.0) == 0
    assert _warm_up_runs(times, 0.006) == 2
    assert _warm_up_runs(times, 60.0) == 3  # one is left


def test_a_provider_must_take_the_whole_file():
    strict = ["-C", "session.disable_cpu_ep_fallback|1"]
    assert arguments(_spec("nnapi"), DelegateOptions(), any_batch=False) == [
        "-e", "nnapi", "-x", "2", "-y", "1", "-I", *strict,
    ]  # fmt: skip
    assert "-C" not in arguments(_spec(), DelegateOptions(), any_batch=False)


def test_the_batch_is_set_where_the_file_takes_any():
    assert arguments(_spec(batch=4), DelegateOptions(), True)[-2:] == [
        "-f",
        "batch:4",
    ]


def test_options_of_a_provider_are_passed_on():
    others = (("backend_type", "htp"), ("vtcm_mb", "8"))
    flags = arguments(_spec("qnn"), DelegateOptions(others=others), any_batch=False)
    assert flags[-2:] == ["-i", "backend_type|htp vtcm_mb|8"]


@pytest.mark.parametrize(
    ("name", "option"), [("default", ("a", "b")), ("qnn", ("a", "b c")), ("qnn", ("a|b", "c"))]
)
def test_options_that_cannot_be_passed_on_are_refused(name, option):
    with pytest.raises(InvalidRequest):
        arguments(_spec(name), DelegateOptions(others=(option,)), any_batch=False)
