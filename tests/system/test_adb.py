"""cct-bench on a phone: adb is real, the phone and the tools on it are fakes.

The fake of ``benchmark_model`` really runs the file, in LiteRT on this machine; what it prints
follows the tool's sources and was never seen on a phone.
"""

import json
import shutil

import pytest

import cct_export
from cct_export.bench import record

pytestmark = pytest.mark.adb

BRIEFLY = ("--min-runs", "20", "--min-seconds", "0.1", "--warmup-seconds", "0")


@pytest.fixture
def bench(in_process, tools):
    """Runs ``cct-bench tflite --device adb`` in this process."""

    def run(*arguments, device="adb", format="tflite", binary="benchmark_model"):
        options = ("--device", device, "--benchmark-binary", tools / binary)
        return in_process("bench", format, *arguments, *options, *BRIEFLY, "--json", "-")

    return run


def test_a_phone_gives_the_same_result_as_this_machine_but_for_raw_times(
    bench, connect, probe, in_process
):
    phone, path = connect(), probe()
    ended = bench(path)
    assert ended.code == 0, ended.err
    (row,) = ended.record["results"]
    local = in_process("bench", "tflite", path, *BRIEFLY, "--json", "-").record["results"][0]
    assert row.keys() == local.keys()
    assert row["device"] == f"adb:{phone.serial}"
    assert row["artifact"] == local["artifact"]
    assert row["parity"] == local["parity"]
    assert row["parity"]["passed"]
    for key in ("delegate", "accelerator", "threads", "delegated_nodes", "total_nodes"):
        assert row["runtime"][key] == local["runtime"][key]
    latency = row["latency_ms"]
    assert row["times_ns"] == []
    assert latency["count"] >= 20
    assert 0 < latency["min"] <= latency["p50"] <= latency["p95"] <= latency["max"]
    assert latency["p90"] is None
    assert row["throughput_per_s"] == pytest.approx(1e3 / latency["p50"])
    assert row["load_ms"] > 0
    assert row["first_inference_ms"] > 0
    assert row["peak_rss_bytes"] == round(11.5 * 2**20)
    assert row["machine"].keys() == local["machine"].keys()
    assert row["machine"]["cpu"] == "Fake S1000"
    assert row["machine"]["os"] == "Android 14 (API 34)"
    assert row["machine"]["cores"] >= 1
    assert row["conditions"]["before"]["battery_percent"] == 80
    assert row["conditions"]["after"]["temperature_c"] == 41.5
    assert not list(phone.folder.iterdir())


def test_a_record_from_a_phone_is_read_compared_and_never_called_a_regression(
    bench, connect, bare, in_process, tmp_path
):
    connect()
    saved, page = tmp_path / "phone.json", tmp_path / "page.html"
    saved.write_text(bench(bare, "--threads", "1,2").out)
    medians = [result.reported_ms.p50 for result in record.read(saved)]
    assert len(medians) == 2
    compared = in_process("bench", "compare", saved, "--html", page, "--json", "-")
    assert compared.code == 0, compared.err
    assert [row["latency_ms"]["p50"] for row in compared.record["results"]] == medians
    assert page.is_file()
    checked = in_process("bench", "check", "--baseline", saved, saved)
    assert checked.code == 7
    assert "statistics only" in checked.err


def test_the_name_of_a_file_does_nothing_to_the_phone(bench, connect, probe):
    phone = connect()
    (phone.folder / "x").write_text("still here")
    ended = bench(probe("a b;rm -rf x'.tflite"))
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"]["passed"]
    assert [left.name for left in phone.folder.iterdir()] == ["x"]
    assert not [command for command in phone.commands if "rm -rf x" in command]


def test_files_of_every_input_type_are_fed_and_compared(bench, connect, exports):
    connect()
    files = exports("tflite", "int8").path, exports("tflite", "int8-full", "int8").path
    ended = bench(*files)
    assert ended.code == 0, ended.err
    for scheme, row in zip(("int8", "int8-full"), ended.record["results"], strict=True):
        assert row["parity"]["passed"]
        assert row["parity"]["scheme"] == scheme
        assert row["latency_ms"]["p50"] > 0


def test_a_part_of_the_operators_is_measured_only_if_that_is_allowed(bench, connect, bare):
    connect(environment={"FAULT": "partly"})
    refused = bench(bare, "--delegate", "xnnpack")
    assert refused.code == 6
    assert "--allow-fallback" in refused.err
    ended = bench(bare, "--delegate", "xnnpack", "--allow-fallback")
    assert ended.code == 0, ended.err
    (row,) = ended.record["results"]
    assert row["runtime"]["delegated_nodes"] == row["runtime"]["total_nodes"] - 4
    assert any("4 of" in warning for warning in row["warnings"])


def test_a_phone_that_tells_no_exit_codes_is_understood(bench, connect, bare):
    phone = connect(features="", environment={"FAULT": "crash"})
    ended = bench(bare, "--threads", "1,2")
    assert ended.code == 1
    good, bad = ended.record["results"]
    assert good["latency_ms"]["p50"] > 0
    assert "SIGSEGV" in bad["failure"]
    assert phone.commands


def test_cores_are_chosen_by_a_mask(bench, connect, bare):
    phone = connect()
    ended = bench(bare, "--delegate-option", "cpu_mask=1")
    assert ended.code == 0, ended.err
    assert [command for command in phone.commands if "exec taskset 1 " in command]
    refused = bench(bare, "--delegate-option", "cpu_mask=1;reboot")
    assert refused.code == 2
    assert "hexadecimal" in refused.err


def test_of_several_repeats_the_middle_one_is_reported(connect, bare, tools):
    phone = connect()
    (result,) = cct_export.benchmark(
        "tflite", sources=bare, devices=[f"adb:{phone.serial}"], repeats=3, min_runs=20, min_s=0.1,
        warmup_s=0.0, benchmark_binary=tools / "benchmark_model",
    )  # fmt: skip
    assert result.device == f"adb:{phone.serial}"
    assert result.reported_ms.count >= 7
    assert sum("--num_runs=7" in command for command in phone.commands) == 3


def test_a_tool_that_cannot_show_its_output_leaves_parity_unknown(bench, connect, probe):
    connect(environment={"FAULT": "old"})
    ended = bench(probe())
    assert ended.code == 0, ended.err
    (row,) = ended.record["results"]
    assert row["parity"] is None
    assert row["latency_ms"]["p50"] > 0
    assert any("cannot write what it computes" in warning for warning in row["warnings"])


def test_a_hot_phone_on_its_charger_is_warned_of(bench, connect, bare):
    connect(environment={"THERMAL": "3", "BATTERY": "12", "BATTERY_STATUS": "2"})
    (row,) = bench(bare).record["results"]
    text = " ".join(row["warnings"])
    assert "thermal status 3" in text
    assert "12 %" in text
    assert "charging" in text


def test_every_run_of_an_onnx_file_is_kept(bench, connect, probe):
    phone = connect()
    ended = bench(probe("m.onnx"), "--batch", "1,2", format="onnx", binary="perf_test")
    assert ended.code == 0, ended.err
    for batch, row in zip((1, 2), ended.record["results"], strict=True):
        assert row["batch"] == batch
        assert len(row["times_ns"]) >= 20
        assert row["latency_ms"]["count"] == len(row["times_ns"])
        assert row["peak_rss_bytes"] == 20971520
        assert row["parity"] is None
        assert any("does not show what it computes" in line for line in row["warnings"])
    assert not list(phone.folder.iterdir())


def test_files_are_compared_and_checked_on_a_phone_with_the_named_program(
    connect, probe, in_process, tools, tmp_path
):
    connect()
    paths = [probe("a.onnx"), probe("b.onnx")]
    binary, saved = ("--benchmark-binary", tools / "perf_test"), tmp_path / "phone.json"
    compared = in_process(
        "bench", "compare", *paths, "--device", "adb", *binary, *BRIEFLY, "--json", saved
    )
    assert compared.code == 0, compared.err
    phone = ("--device", json.loads(saved.read_text())["results"][0]["device"])
    lenient = (*phone, "--max-regression", "10000%", *BRIEFLY, "--repeats", "2", "--json", "-")
    checked = in_process("bench", "check", "--baseline", saved, *binary, *lenient)
    assert [row["status"] for row in checked.record["verdicts"]] == ["pass", "pass"], checked.err
    unnamed = in_process("bench", "check", "--baseline", saved, *lenient)
    assert unnamed.code == 2
    assert "--benchmark-binary" in unnamed.err


def test_of_several_phones_the_named_one_is_used(bench, connect, bare):
    first, second = connect(), connect()
    ended = bench(bare)
    assert ended.code == 6
    assert f"adb:{first.serial}" in ended.err
    assert f"adb:{second.serial}" in ended.err
    unknown = bench(bare, device="adb:nobody")
    assert unknown.code == 6
    assert "no device 'nobody'" in unknown.err
    named = bench(bare, device=f"adb:{second.serial}")
    assert named.code == 0, named.err
    assert second.commands
    assert not first.commands


def test_a_name_of_a_program_with_blanks_is_copied(connect, bare, tools, tmp_path, in_process):
    connect()
    binary = tmp_path / "a tool; with blanks"
    shutil.copy(tools / "benchmark_model", binary)
    options = ("--device", "adb", "--benchmark-binary", binary, *BRIEFLY)
    ended = in_process("bench", "tflite", bare, *options)
    assert ended.code == 0, ended.err
