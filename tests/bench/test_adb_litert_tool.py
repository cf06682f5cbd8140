"""Flags and output of benchmark_model, in the formats of its sources; nothing was recorded."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench.hosts.adb import litert_tool
from cct_export.bench.hosts.adb.client import Ended
from cct_export.bench.hosts.adb.tool import DelegateOptions, failure, parse_options
from cct_export.errors import EngineFailed, InvalidRequest, NotAvailable
from cct_export.records import ReportedLatency
from cct_export.specs import BenchSpec, Delegation

FILE = Path("m.tflite")
WARM = "INFO: count=9 first=900 curr=710 min=700 max=950 avg=750.5 std=80 p5=700 median=720 p95=950"
TIMED = (
    "INFO: count=1473 first=701 curr=685 min=651 max=1.2e+03 avg=678.25 std=17 p5=660 median=677 "
    "p95=699"
)
TIMES = (
    "INFO: Inference timings in us: Init: 9630, First inference: 900, Warmup (avg): 750.5, "
    "Inference (avg): 678.25"
)
OUTPUT = f"INFO: STARTING!\n{WARM}\n\n{TIMED}\n\n{TIMES}\n"


def _spec(name="default", options=(), allow_fallback=False):
    return BenchSpec("litert", 1, 1, Delegation(name, tuple(options), allow_fallback))


def _applied(name, how):
    return f"INFO: Explicitly applied {name} delegate, and the model graph will be {how}\n"


WHOLE = "completely executed by the delegate."
PART = "partially executed by the delegate w/ 2 delegate kernels."


def _replaced(taken, total, name="TfLiteXNNPackDelegate", graph=0):
    return (
        f"VERBOSE: Replacing {taken} out of {total} node(s) with delegate ({name}) node, yielding "
        f"2 partitions for subgraph {graph} (main).\n"
    )


def test_the_timed_runs_count_not_those_of_the_warm_up():
    report = litert_tool.parse(OUTPUT, _spec())
    assert report.reported_ms == ReportedLatency(1473, 0.677, 0.67825, 0.651, 1.2, 0.699, 0.017)
    assert report.load_ms == 9.63
    assert report.first_inference_ms == 0.9
    assert report.peak_rss_bytes is None
    assert report.delegated_nodes is None
    assert report.times_ns == ()


def test_lines_may_have_no_log_level_before_them():
    plain = OUTPUT.replace("INFO: ", "")
    assert litert_tool.parse(plain, _spec()) == litert_tool.parse(OUTPUT, _spec())


def test_without_a_median_there_is_no_latency():
    older = OUTPUT.replace(" p5=660 median=677 p95=699", "")
    assert litert_tool.parse(older, _spec()).reported_ms is None


def test_of_runs_that_all_took_as_long_there_is_one_figure():
    same = "INFO: count=50 curr=316(all same) p5=316 median=316 p95=316"
    latency = litert_tool.parse(OUTPUT.replace(TIMED, same), _spec()).reported_ms
    assert latency == ReportedLatency(50, 0.316, 0.316, 0.316, 0.316, 0.316, 0.0)


def test_memory_is_in_binary_megabytes():
    peak = "INFO: Overall peak memory footprint (MB) via periodic monitoring: 11.5\n"
    assert litert_tool.parse(OUTPUT + peak, _spec()).peak_rss_bytes == round(11.5 * 2**20)


@pytest.mark.parametrize("text", ["", "Segmentation fault\n", TIMED, TIMES, OUTPUT[:40]])
def test_output_without_times_is_an_error(text):
    with pytest.raises(EngineFailed, match="no times that can be read"):
        litert_tool.parse(text, _spec())


@given(st.text())
def test_any_text_is_a_report_or_an_error(text):
    try:
        litert_tool.parse(text, _spec())
    except EngineFailed as error:
        assert "\n" not in str(error)


@given(
    st.lists(st.integers(2, 10**6), min_size=1, max_size=50),
    st.sampled_from(["INFO: ", ""]),
)
def test_figures_come_back_as_they_were_printed(times_us, word):
    times_us = sorted(times_us)
    text = (
        f"{word}count={len(times_us)} first=1 curr=1 min={times_us[0]} max={times_us[-1]} "
        f"avg={sum(times_us) / len(times_us):g} std=0 p5=1 median={times_us[len(times_us) // 2]} "
        f"p95={times_us[-1]}\n"
    )
    latency = litert_tool.parse(text + TIMES, _spec()).reported_ms
    assert latency.count == len(times_us)
    assert latency.p50 == times_us[len(times_us) // 2] / 1e3
    assert latency.max == times_us[-1] / 1e3
    assert latency.mean == pytest.approx(sum(times_us) / len(times_us) / 1e3, rel=1e-5)


def test_operators_are_those_of_the_main_graph_and_the_requested_delegate():
    text = _replaced(40, 50, "TfLiteGpuDelegateV2") + _replaced(8, 10) + _replaced(3, 3, graph=1)
    gpu = litert_tool.parse(OUTPUT + text, _spec("gpu"))
    assert (gpu.delegated_nodes, gpu.total_nodes) == (40, 50)
    xnnpack = litert_tool.parse(OUTPUT + text, _spec("xnnpack"))
    assert (xnnpack.delegated_nodes, xnnpack.total_nodes) == (8, 10)


def test_all_operators_are_those_of_the_file():
    text = OUTPUT + _applied("XNNPACK", WHOLE)
    report = litert_tool.parse(text, _spec(), operators=71)
    assert (report.delegated_nodes, report.total_nodes) == (71, 71)
    part = litert_tool.parse(OUTPUT + _applied("XNNPACK", PART), _spec(), operators=71)
    assert (part.delegated_nodes, part.total_nodes) == (None, 71)
    plain = litert_tool.parse(OUTPUT, _spec("none"), operators=71)
    assert (plain.delegated_nodes, plain.total_nodes) == (0, 71)


def _delegate(lines, spec):
    report = litert_tool.parse(OUTPUT + lines, spec)
    return litert_tool.check_delegate(OUTPUT + lines, FILE, spec, report)


def test_a_delegate_that_takes_all_is_what_computes():
    assert _delegate(_applied("XNNPACK", WHOLE), _spec()) == "xnnpack"
    assert _delegate(_applied("GPU", WHOLE), _spec("gpu")) == "gpu"
    assert _delegate("", _spec("none")) == "none"
    # Two kernels may be all of the graph.
    assert _delegate(_applied("XNNPACK", PART) + _replaced(50, 50), _spec("xnnpack")) == "xnnpack"


def test_a_delegate_that_takes_a_part_needs_permission():
    lines = _applied("GPU", PART) + _replaced(40, 50, "TfLiteGpuDelegateV2")
    with pytest.raises(NotAvailable, match="gpu takes 40 of the 50 operators of m"):
        _delegate(lines, _spec("gpu"))
    assert _delegate(lines, _spec("gpu", allow_fallback=True)) == "gpu"
    with pytest.raises(NotAvailable, match="not all"):
        _delegate(_applied("GPU", PART), _spec("gpu"))
    assert _delegate(_applied("XNNPACK", PART), _spec()) == "xnnpack"


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "WARN: GPU acceleration is unsupported on this platform.\n",
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by "
        "the delegate.\n",
        # XNNPACK took what the GPU did not.
        _replaced(50, 50),
        _applied("XNNPACK", WHOLE),
    ],
)
def test_a_delegate_that_took_nothing_is_never_the_cpu(lines):
    with pytest.raises(NotAvailable, match="gpu takes no operator"):
        _delegate(lines, _spec("gpu", allow_fallback=True))


def test_flags_that_the_tool_does_not_know_are_found():
    line = "WARN: Unconsumed cmdline flags: {}\n"
    assert litert_tool.check_flags(OUTPUT)
    assert not litert_tool.check_flags(line.format("--output_filepath=/data/x"))
    with pytest.raises(NotAvailable, match="does not know --use_xnnpack"):
        litert_tool.check_flags(line.format("--output_filepath=/x --use_xnnpack=true"))


def test_requests_become_flags():
    flags = litert_tool.arguments(_spec("gpu"), DelegateOptions(fp16=True), "/d/m.tflite")
    assert flags == [
        "--graph=/d/m.tflite", "--num_threads=1", "--use_gpu=true",
        "--gpu_precision_loss_allowed=true",
    ]  # fmt: skip
    assert "--use_xnnpack=false" in litert_tool.arguments(_spec("none"), DelegateOptions(), "m")


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("npu", {}, NotAvailable),
        ("gpu", {"precision": "fp8"}, InvalidRequest),
        ("xnnpack", {"precision": "fp16"}, InvalidRequest),
        ("default", {"cpu_mask": "f0; reboot"}, InvalidRequest),
        ("default", {"cpu_mask": ""}, InvalidRequest),
        ("none", {"colour": "red"}, InvalidRequest),
    ],
)
def test_unknown_options_and_invalid_values_are_refused(name, options, error):
    with pytest.raises(error):
        _parse_options(name, options)


def _parse_options(name, options):
    known = litert_tool.OPTIONS.get(name, ())
    delegation = Delegation(name, tuple(options.items()))
    return parse_options(delegation, litert_tool.DELEGATES, known, "benchmark_model")


def test_a_mask_of_cores_goes_before_the_program():
    assert _parse_options("default", {"cpu_mask": "f0"}).prefix == ["taskset", "f0"]
    assert _parse_options("default", {}).prefix == []


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (139, EngineFailed, "crashed (SIGSEGV)"),
        (134, EngineFailed, "crashed (SIGABRT)"),
        (126, NotAvailable, "cannot be run there"),
        (127, NotAvailable, "cannot be run there"),
        (1, EngineFailed, "ended with 1"),
        (255, EngineFailed, "ended with 255"),
    ],
)
def test_an_error_says_how_the_program_ended(code, kind, message):
    error = failure(Ended(code, "first\nlast words\n"), "the tool", accelerated=False)
    assert type(error) is kind
    assert message in str(error)
    assert "last words" in str(error)


def test_a_failed_delegate_is_not_available():
    text = "INFO: STARTING!\nERROR: Failed to apply GPU delegate.\nERROR: Benchmarking failed.\n"
    error = failure(Ended(1, text), "the tool", True, litert_tool.reason(text))
    assert type(error) is NotAvailable
    assert str(error).endswith("Failed to apply GPU delegate.")
