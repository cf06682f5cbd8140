"""cct-bench on a phone: adb is real, the phone and the tools on it are stand-ins.

The stand-in of ``benchmark_model`` really runs the file, in LiteRT on this machine; what it prints
follows the tool's sources and was never seen on a phone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from adb_device import Device

import cct_export
from cct_export.bench import record
from cct_export.bench.hosts.adb import client, with_litert

pytestmark = pytest.mark.adb

HERE = Path(__file__).parent
BRIEFLY = ("--min-runs", "20", "--min-seconds", "0.1", "--warmup-seconds", "0")
QUICK = {"min_runs": 20, "min_s": 0.1, "warmup_s": 0.0}


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """The stand-ins of both tools, as programs."""
    folder = tmp_path_factory.mktemp("tools")
    # pytest takes every *_test.py for tests.
    for name, player in (
        ("benchmark_model", "played_benchmark_model.py"),
        ("perf_test", "played_onnxruntime.py"),
    ):
        text = (HERE / player).read_text()
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
    return folder


@pytest.fixture
def bare(exports, tmp_path):
    """A file without its sidecar: it is not compared on the phone, which takes its time."""
    path = tmp_path / "bare.tflite"
    shutil.copy(exports("tflite").path, path)
    return path


@pytest.fixture
def adb(adb_program, monkeypatch):
    """Calls adb; this process and its children use the same one."""
    for name, value in adb_program.items():
        monkeypatch.setenv(name, value)
    root = str(HERE.parents[1])  # the stand-ins import the package
    monkeypatch.setenv("PYTHONPATH", f"{root}:{os.environ.get('PYTHONPATH', '')}")

    def call(*arguments):
        command = [adb_program["ADB"], *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    yield call
    call("disconnect")


@pytest.fixture
def connect(adb, tmp_path):
    """Makes a phone and connects it; returns it."""
    made = []

    def connected(state="device", **attributes):
        phone = Device(tmp_path / f"phone{len(made)}")
        made.append(phone)
        for name, value in attributes.items():
            setattr(phone, name, value)
        # To one that does not answer, adb waits for ever.
        threading.Thread(target=adb, args=("connect", phone.serial), daemon=True).start()
        deadline = time.monotonic() + 20
        while client.listed(adb("devices")).get(phone.serial) != state:
            assert time.monotonic() < deadline, adb("devices")
            time.sleep(0.1)
        return phone

    yield connected
    for phone in made:
        phone.vanish()


@pytest.fixture
def bench(in_process, tools):
    """Runs ``cct-bench tflite --device adb`` in this process."""

    def run(*arguments, device="adb", format="tflite", binary="benchmark_model"):
        options = ("--device", device, "--benchmark-binary", tools / binary)
        return in_process("bench", format, *arguments, *options, *BRIEFLY, "--json", "-")

    return run


def test_a_phone_gives_the_same_result_as_this_machine_but_for_raw_times(
    bench, connect, exports, in_process
):
    phone, path = connect(), exports("tflite").path
    ended = bench(path)
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    local = in_process("bench", "tflite", path, *BRIEFLY, "--json", "-").record["results"][0]
    assert found.keys() == local.keys()
    assert found["device"] == f"adb:{phone.serial}"
    assert found["artifact"] == local["artifact"]
    assert found["parity"] == local["parity"]
    assert found["parity"]["passed"]
    for key in ("delegate", "accelerator", "threads", "delegated_nodes", "total_nodes"):
        assert found["runtime"][key] == local["runtime"][key]
    told = found["latency_ms"]
    assert found["times_ns"] == []
    assert told["count"] >= 20
    assert 0 < told["min"] <= told["p50"] <= told["p95"] <= told["max"]
    assert told["p90"] is None
    assert found["throughput_per_s"] == pytest.approx(1e3 / told["p50"])
    assert found["load_ms"] > 0
    assert found["first_inference_ms"] > 0
    assert found["peak_rss_bytes"] == round(11.5 * 2**20)
    assert found["machine"].keys() >= local["machine"].keys()
    assert found["machine"]["cpu"] == "Stand-in S1000"
    assert found["machine"]["os"] == "Android 14 (API 34)"
    assert found["machine"]["cores"] >= 1
    assert found["conditions"]["before"]["battery_percent"] == 80
    assert found["conditions"]["after"]["temperature_c"] == 41.5
    assert not list(phone.room.iterdir())


def test_a_record_from_a_phone_is_read_compared_and_never_called_a_regression(
    bench, connect, bare, in_process, tmp_path
):
    connect()
    saved, page = tmp_path / "phone.json", tmp_path / "page.html"
    saved.write_text(bench(bare, "--threads", "1,2").out)
    results = record.read(saved)
    assert [result.reported_ms["p50"] > 0 for result in results] == [True, True]
    compared = in_process("bench", "compare", saved, "--html", page, "--json", "-")
    assert compared.code == 0, compared.err
    assert [row["latency_ms"]["p50"] for row in compared.record["results"]] == [
        result.reported_ms["p50"] for result in results
    ]
    assert page.is_file()
    checked = in_process("bench", "check", "--baseline", saved, saved)
    assert checked.code == 7
    assert "statistics only" in checked.err


def test_the_name_of_a_file_does_nothing_to_the_phone(bench, connect, exports, tmp_path):
    phone = connect()
    (phone.room / "x").write_text("still here")
    path = tmp_path / "a b;rm -rf x'.tflite"
    shutil.copy(exports("tflite").path, path)
    shutil.copy(f"{exports('tflite').path}.json", f"{path}.json")
    ended = bench(path)
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"]["passed"]
    assert [left.name for left in phone.room.iterdir()] == ["x"]
    assert not [command for command in phone.commands if "rm -rf x" in command]


def test_files_of_several_types_are_each_fed_and_compared_as_they_want(bench, connect, exports):
    connect()
    files = exports("tflite", "int8").path, exports("tflite", "int8-full", "int8").path
    ended = bench(*files)
    assert ended.code == 0, ended.err
    for scheme, found in zip(("int8", "int8-full"), ended.record["results"], strict=True):
        assert found["parity"]["passed"]
        assert found["parity"]["scheme"] == scheme
        assert found["latency_ms"]["p50"] > 0


def test_wrong_logits_leave_no_latency(bench, connect, exports):
    phone = connect(environment={"PLAYED": "wrong"})
    ended = bench(exports("tflite").path)
    assert ended.code == 3
    (found,) = ended.record["results"]
    assert found["latency_ms"] is None
    assert found["parity"]["failures"]
    assert not [command for command in phone.commands if "--min_secs=0.1" in command]


def test_a_gpu_that_is_not_there_is_never_the_cpu(bench, connect, bare):
    connect()
    ended = bench(bare, "--delegate", "gpu", "--allow-fallback")
    assert ended.code == 6
    assert "gpu takes no operator" in ended.err
    assert "GPU acceleration is unsupported on this platform" in ended.err


def test_a_part_of_the_operators_is_measured_only_if_that_is_allowed(bench, connect, bare):
    connect(environment={"PLAYED": "partly"})
    path = bare
    refused = bench(path, "--delegate", "xnnpack")
    assert refused.code == 6
    assert "--allow-fallback" in refused.err
    ended = bench(path, "--delegate", "xnnpack", "--allow-fallback")
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    assert found["runtime"]["delegated_nodes"] == found["runtime"]["total_nodes"] - 4
    assert any("4 of" in warning for warning in found["warnings"])


def test_a_phone_that_tells_no_exit_codes_is_understood(bench, connect, bare):
    phone = connect(features="", environment={"PLAYED": "crash"})
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


def test_repeats_give_the_middle_one(connect, bare, tools):
    phone = connect()
    (found,) = cct_export.benchmark(
        "tflite", sources=bare, devices=[f"adb:{phone.serial}"], repeats=3,
        benchmark_binary=tools / "benchmark_model", **QUICK,
    )  # fmt: skip
    assert found.device == f"adb:{phone.serial}"
    assert found.reported_ms["count"] >= 7
    assert sum("--num_runs=7" in command for command in phone.commands) == 3


def test_a_tool_that_cannot_show_its_output_leaves_parity_unknown(bench, connect, exports):
    connect(environment={"PLAYED": "old"})
    ended = bench(exports("tflite").path)
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    assert found["parity"] is None
    assert found["latency_ms"]["p50"] > 0
    assert any("cannot write what it computes" in warning for warning in found["warnings"])


def test_the_tool_of_another_api_is_not_taken_for_this_one(bench, connect, bare):
    connect(environment={"PLAYED": "compiled"})
    ended = bench(bare)
    assert ended.code == 6
    assert "does not know --use_xnnpack" in ended.err


def test_a_hot_phone_on_its_charger_is_warned_of(bench, connect, bare):
    connect(environment={"THERMAL": "3", "BATTERY": "12", "BATTERY_STATUS": "2"})
    (found,) = bench(bare).record["results"]
    text = " ".join(found["warnings"])
    assert "thermal status 3" in text
    assert "12 %" in text
    assert "charging" in text


def test_onnx_files_keep_every_time(bench, connect, exports):
    phone = connect()
    ended = bench(exports("onnx").path, "--batch", "1,2", format="onnx", binary="perf_test")
    assert ended.code == 0, ended.err
    for batch, found in zip((1, 2), ended.record["results"], strict=True):
        assert found["batch"] == batch
        assert len(found["times_ns"]) >= 20
        assert found["latency_ms"]["count"] == len(found["times_ns"])
        assert found["peak_rss_bytes"] == 20971520
        assert found["parity"] is None
        assert any("does not show what it computes" in line for line in found["warnings"])
    assert not list(phone.room.iterdir())


def test_a_provider_that_the_tool_was_built_without_is_not_available(bench, connect, exports):
    connect()
    ended = bench(exports("onnx").path, "--delegate", "nnapi", format="onnx", binary="perf_test")
    assert ended.code == 6
    assert "NNAPI is not supported in this build" in ended.err


def test_a_crash_is_its_rows_only(bench, connect, bare):
    phone = connect(environment={"PLAYED": "crash"})
    ended = bench(bare, "--threads", "1,2")
    assert ended.code == 1
    good, bad = ended.record["results"]
    assert good["latency_ms"]["p50"] > 0
    assert bad["latency_ms"] is None
    assert bad["failure_kind"] == "EngineFailed"
    assert "SIGSEGV" in bad["failure"]
    assert not list(phone.room.iterdir())


@pytest.mark.parametrize(
    ("played", "said"),
    [("garbled", "'what is this'"), ("refused", "Failed to apply XNNPACK delegate")],
)
def test_a_tool_that_fails_is_quoted(bench, connect, bare, played, said):
    connect(environment={"PLAYED": played})
    ended = bench(bare)
    assert ended.code == 1
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) <= 2


def test_a_run_without_end_is_ended(bench, connect, bare, monkeypatch):
    monkeypatch.setattr(with_litert, "START_LIMIT_S", 1.5)
    phone = connect(environment={"PLAYED": "hang"})
    ended = bench(bare)
    assert ended.code == 1
    assert "no end of `adb shell` within 1.5 s" in ended.err
    assert not list(phone.room.iterdir())


def test_a_phone_that_is_pulled_off_in_the_middle_is_said_to_be(bench, connect, bare):
    phone = connect(environment={"PLAYED": "hang"})
    threading.Timer(2, phone.vanish).start()
    ended = bench(bare)
    assert ended.code == 6
    assert f"device {phone.serial} is not there any more" in ended.err


def test_a_full_phone_is_said_to_be(bench, connect, bare):
    phone = connect(room_bytes=20_000)
    ended = bench(bare)
    assert ended.code == 6
    assert "No space left on device" in ended.err
    assert not list(phone.room.iterdir())


def test_no_phone(bench, adb, bare):
    adb("devices")
    ended = bench(bare)
    assert ended.code == 6
    assert "adb sees no device" in ended.err


def test_a_phone_that_does_not_trust_this_machine(bench, connect, bare):
    phone = connect("unauthorized", trusts=False)
    ended = bench(bare)
    assert ended.code == 6
    assert f"device {phone.serial} cannot be used: it does not trust this machine" in ended.err


def test_a_phone_that_does_not_answer(bench, connect, bare):
    phone = connect("offline", answers=False)
    ended = bench(bare)
    assert ended.code == 6
    assert f"device {phone.serial} cannot be used" in ended.err
    assert "does not answer" in ended.err


def test_several_phones_must_be_told_apart(bench, connect, bare):
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


def test_a_machine_without_adb_is_told_where_it_is(bench, adb, bare, monkeypatch, tmp_path):
    monkeypatch.delenv("ADB")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    ended = bench(bare)
    assert ended.code == 6
    assert "apt install adb" in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_tidies_the_phone_up(connect, bare, tools, number):
    phone = connect(environment={"PLAYED": "hang"})
    code = "from cct_export.commands.program import bench_main; bench_main()"
    options = ("--device", "adb", "--benchmark-binary", tools / "benchmark_model")
    command = [sys.executable, "-c", code, "tflite", bare, *options]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (pids := list(phone.room.glob("*/pid"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    there = int(pids[0].read_text())
    process.send_signal(number)
    assert process.wait(timeout=30) != 0
    assert not list(phone.room.iterdir())
    with pytest.raises(ProcessLookupError):
        _await_end(there)


def _await_end(pid):
    """Raises ``ProcessLookupError`` once the process is gone."""
    for _ in range(50):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # its parent, the stand-in's shell, has not looked yet
            raise ProcessLookupError
        time.sleep(0.1)


def test_files_are_compared_and_checked_on_a_phone_with_the_program_that_is_named(
    connect, exports, in_process, tools, tmp_path
):
    connect()
    paths = [exports("onnx").path, exports("onnx", "int8").path]
    binary, saved = ("--benchmark-binary", tools / "perf_test"), tmp_path / "phone.json"
    compared = in_process(
        "bench", "compare", *paths, "--device", "adb", *binary, *BRIEFLY, "--json", saved
    )
    assert compared.code == 0, compared.err
    lenient = ("--max-regression", "10000%", *BRIEFLY, "--repeats", "2", "--json", "-")
    checked = in_process("bench", "check", "--baseline", saved, *binary, *lenient)
    assert [one["status"] for one in checked.record["verdicts"]] == ["pass", "pass"], checked.err
    unnamed = in_process("bench", "check", "--baseline", saved, *lenient)
    assert unnamed.code == 2
    assert "--benchmark-binary" in unnamed.err


def test_one_program_is_not_taken_for_that_of_another_format(adb, exports, in_process, tools):
    both = (exports("tflite").path, exports("onnx").path)
    binary = ("--device", "adb", "--benchmark-binary", tools / "perf_test")
    ended = in_process("bench", "compare", *both, *binary, *BRIEFLY)
    assert ended.code == 2
    assert "one format at a time" in ended.err


def test_what_the_tools_cannot_do_is_refused(bench, in_process, adb, bare, tools):
    path = bare
    for options in (("--profile-ops",), ("--sustained", "5"), ("--profile", "strict")):
        assert bench(path, *options).code == 2
    assert "--benchmark-binary" in in_process("bench", "tflite", path, "--device", "adb").err
    local = in_process("bench", "tflite", path, "--benchmark-binary", tools / "benchmark_model")
    assert local.code == 2
    assert json.dumps(local.err).count("adb") >= 1
