"""What goes wrong on a phone, and how it is reported; adb is real, phone and tools are fakes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cct_export.bench.hosts.adb import litert_tool

pytestmark = pytest.mark.adb

BRIEFLY = ("--min-runs", "20", "--min-seconds", "0.1", "--warmup-seconds", "0")


@pytest.fixture
def bench(in_process, tools):
    """Runs ``cct-bench tflite --device adb`` in this process."""

    def run(*arguments, format="tflite", binary="benchmark_model"):
        options = ("--device", "adb", "--benchmark-binary", tools / binary)
        return in_process("bench", format, *arguments, *options, *BRIEFLY, "--json", "-")

    return run


def test_wrong_logits_leave_no_latency(bench, connect, probe):
    phone = connect(environment={"FAULT": "wrong"})
    ended = bench(probe())
    assert ended.code == 3
    (row,) = ended.record["results"]
    assert row["latency_ms"] is None
    assert row["parity"]["failures"]
    assert not [command for command in phone.commands if "--min_secs=0.1" in command]


def test_a_gpu_that_is_not_there_is_never_the_cpu(bench, connect, bare):
    connect()
    ended = bench(bare, "--delegate", "gpu", "--allow-fallback")
    assert ended.code == 6
    assert "gpu takes no operator" in ended.err
    assert "GPU acceleration is unsupported on this platform" in ended.err


def test_the_tool_of_another_api_is_refused(bench, connect, bare):
    connect(environment={"FAULT": "compiled"})
    ended = bench(bare)
    assert ended.code == 6
    assert "does not know --use_xnnpack" in ended.err


def test_a_provider_that_the_tool_was_built_without_is_not_available(bench, connect, probe):
    connect()
    ended = bench(probe("m.onnx"), "--delegate", "nnapi", format="onnx", binary="perf_test")
    assert ended.code == 6
    assert "NNAPI is not supported in this build" in ended.err


def test_a_crash_concerns_its_row_only(bench, connect, bare):
    phone = connect(environment={"FAULT": "crash"})
    ended = bench(bare, "--threads", "1,2")
    assert ended.code == 1
    good, bad = ended.record["results"]
    assert good["latency_ms"]["p50"] > 0
    assert bad["latency_ms"] is None
    assert bad["failure_kind"] == "EngineFailed"
    assert "SIGSEGV" in bad["failure"]
    assert not list(phone.folder.iterdir())


@pytest.mark.parametrize(
    ("fault", "message"),
    [("garbled", "'what is this'"), ("refused", "Failed to apply XNNPACK delegate")],
)
def test_a_tool_that_fails_is_quoted(bench, connect, bare, fault, message):
    connect(environment={"FAULT": fault})
    ended = bench(bare)
    assert ended.code == 1
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) <= 2


def test_a_run_that_hangs_is_ended(bench, connect, bare, monkeypatch):
    monkeypatch.setattr(litert_tool, "START_LIMIT_S", 1.5)
    phone = connect(environment={"FAULT": "hang"})
    ended = bench(bare)
    assert ended.code == 1
    assert "no end of `adb shell` within 1.5 s" in ended.err
    assert not list(phone.folder.iterdir())


def test_a_phone_that_is_disconnected_meanwhile_is_reported(bench, connect, bare):
    phone = connect(environment={"FAULT": "hang"})
    threading.Timer(2, phone.vanish).start()
    ended = bench(bare)
    assert ended.code == 6
    assert f"device {phone.serial} is not there any more" in ended.err


def test_a_full_phone_is_reported(bench, connect, bare):
    phone = connect(file_limit=5_000)
    ended = bench(bare)
    assert ended.code == 6
    assert "No space left on device" in ended.err
    assert not list(phone.folder.iterdir())


def test_without_a_phone_the_error_says_how_to_connect_one(bench, adb, bare):
    adb("devices")
    ended = bench(bare)
    assert ended.code == 6
    assert "adb sees no device" in ended.err


def test_a_phone_that_does_not_trust_this_machine_is_reported(bench, connect, bare):
    phone = connect("unauthorized", trusts=False)
    ended = bench(bare)
    assert ended.code == 6
    assert f"device {phone.serial} cannot be used: it does not trust this machine" in ended.err


def test_a_phone_that_does_not_answer_is_reported(bench, connect, bare):
    phone = connect("offline", answers=False)
    ended = bench(bare)
    assert ended.code == 6
    assert f"device {phone.serial} cannot be used" in ended.err
    assert "does not answer" in ended.err


def test_without_adb_the_error_says_where_to_get_it(bench, adb, bare, monkeypatch, tmp_path):
    monkeypatch.delenv("ADB")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    ended = bench(bare)
    assert ended.code == 6
    assert "apt install adb" in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_tidies_the_phone_up(connect, bare, tools, number):
    phone = connect(environment={"FAULT": "hang"})
    code = "from cct_export.commands.program import bench_main; bench_main()"
    options = ("--device", "adb", "--benchmark-binary", tools / "benchmark_model")
    command = [sys.executable, "-c", code, "tflite", bare, *options]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (files := [file for file in phone.folder.glob("*/pid") if file.read_text()]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pid = int(files[0].read_text())
    process.send_signal(number)
    assert process.wait(timeout=30) != 0
    assert not list(phone.folder.iterdir())
    with pytest.raises(ProcessLookupError):
        _await_end(pid)


def _await_end(pid):
    """Raises ``ProcessLookupError`` once the process is gone."""
    for _ in range(50):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # its parent, the shell of the fake, has not looked yet
            raise ProcessLookupError
        time.sleep(0.1)


def test_files_of_two_formats_are_not_measured_with_one_program(adb, probe, in_process, tools):
    both = (probe("m.tflite"), probe("m.onnx"))
    binary = ("--device", "adb", "--benchmark-binary", tools / "perf_test")
    ended = in_process("bench", "compare", *both, *binary, *BRIEFLY)
    assert ended.code == 2
    assert "one format at a time" in ended.err


def test_options_that_the_tools_do_not_support_are_refused(bench, in_process, adb, bare, tools):
    for options in (("--profile-ops",), ("--sustained", "5"), ("--profile", "strict")):
        assert bench(bare, *options).code == 2
    assert "--benchmark-binary" in in_process("bench", "tflite", bare, "--device", "adb").err
    local = in_process("bench", "tflite", bare, "--benchmark-binary", tools / "benchmark_model")
    assert local.code == 2
    assert "adb" in local.err
