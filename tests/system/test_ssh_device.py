"""cct-bench on a machine behind ssh: an OpenSSH server on loopback, with real engines."""

import contextlib
import shutil
import tempfile
import threading
import time

import loopback
import pytest

from cct_export.bench import measurement
from cct_export.bench.hosts.ssh import SSHHost
from cct_export.bench.hosts.ssh_connection import Connection
from cct_export.errors import EngineFailed
from cct_export.records import MachineInfo
from cct_export.workers import Channel

pytestmark = [pytest.mark.ssh, pytest.mark.usefixtures("ssh")]

BRIEFLY = ("--min-runs", "20", "--min-seconds", "0.1", "--warmup-seconds", "0")
ODD = "a b;rm -rf x'.tflite"


@pytest.fixture
def model(probe):
    """A small TFLite file with its sidecar."""
    return probe("m.tflite")


def keys(record, prefix=""):
    """Returns the dotted names of all keys but those of library versions."""
    names = set()
    for key, value in record.items():
        names.add(prefix + key)
        if isinstance(value, dict) and key != "versions":
            names |= keys(value, f"{prefix}{key}.")
    return names


def test_the_record_is_that_of_a_local_run_but_for_the_device(ready, exports, in_process):
    path, records = exports("tflite", "int8").path, []
    for device in ("ssh:pi", "local"):
        options = ("--device", device, *BRIEFLY, "--accuracy", "--data", "digits", "--json", "-")
        ended = in_process("bench", "tflite", path, *options)
        assert ended.code == 0, ended.err
        records.append(ended.record["results"][0])
    remote, local = records
    assert (remote["device"], local["device"]) == ("ssh:pi", "local")
    assert keys(remote) == keys(local)
    for name in ("artifact", "parity", "accuracy", "batch", "headline", "failure", "runtime"):
        assert remote[name] == local[name]
    assert remote["machine"]["cpu"] == local["machine"]["cpu"]
    assert "jax" not in remote["machine"]["versions"]  # the facts are those of the device
    assert len(remote["times_ns"]) >= 20


def test_operators_of_an_onnx_file_are_timed_on_the_device(ready, probe, in_process):
    path = probe("m.onnx")
    ended = in_process(
        "bench", "onnx", path, "--device", "ssh:pi", *BRIEFLY, "--profile-ops", "--json", "-"
    )
    assert ended.code == 0, ended.err
    (row,) = ended.record["results"]
    assert row["parity"]["passed"]
    assert len(row["operators"]["operators"]) > 10


def test_an_artifact_is_sent_once(ready, server, model, in_process):
    def copies():
        files = server.cache.rglob("artifacts/*/m.tflite*")
        return {path: path.stat().st_mtime_ns for path in files}

    command = ("bench", "tflite", model, "--device", "ssh:pi", *BRIEFLY)
    assert in_process(*command).code == 0
    first = copies()
    assert {path.name for path in first} == {"m.tflite", "m.tflite.json"}
    assert in_process(*command).code == 0
    assert copies() == first


def test_a_name_that_a_shell_would_run_is_harmless(ready, server, probe, in_process):
    keep = server.home / "x"
    keep.write_text("still here")
    ended = in_process("bench", "tflite", probe(ODD), "--device", "ssh:pi", *BRIEFLY, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"]["passed"]
    assert keep.read_text() == "still here"
    assert [copy.name for copy in server.cache.rglob("a b*tflite")] == [ODD]


def test_a_name_that_looks_like_an_option_is_harmless(ready, probe, in_process):
    path = probe("-rf.tflite")
    ended = in_process("bench", "tflite", path, "--device", "ssh:pi", *BRIEFLY, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"]["passed"]


def test_several_commands_at_a_time_share_a_device_that_has_nothing_yet(
    ready, server, model, cct_bench
):
    for folder in ("code", "artifacts"):
        shutil.rmtree(server.cache / "cct-export" / folder, ignore_errors=True)
    ended = []

    def measure():
        ended.append(cct_bench("tflite", model, "--device", "ssh:pi", *BRIEFLY))

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.stderr for done in ended if done.returncode] == []
    assert list(server.cache.rglob("*.part")) == []
    assert len(list((server.cache / "cct-export" / "code").iterdir())) == 2  # packed, unpacked


def test_several_devices_share_a_table_and_one_that_is_gone_takes_nothing(ready, model, in_process):
    names = ["local", "ssh:pi", "ssh:nobody.invalid"]
    devices = [option for name in names for option in ("--device", name)]
    ended = in_process("bench", "tflite", model, *devices, *BRIEFLY, "--json", "-")
    local, remote, gone = ended.record["results"]
    assert [row["device"] for row in (local, remote, gone)] == names
    assert len(local["times_ns"]) >= 20
    assert len(remote["times_ns"]) >= 20
    assert "nobody.invalid" in gone["failure"]
    assert ended.code == 6


def _once_a_worker_runs(server, seconds, interrupt):
    """Calls ``interrupt`` once a worker has worked for so long; returns the thread."""

    def wait():
        limit = time.monotonic() + 60
        while time.monotonic() < limit and not server.workers(seconds):
            time.sleep(0.05)
        interrupt()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_after_a_lost_connection_the_measurement_goes_on(ready, server, model, in_process):
    thread = _once_a_worker_runs(server, 1.5, server.drop)
    ended = in_process(
        "bench", "tflite", model, "--device", "ssh:pi", "--min-seconds", "6", "--json", "-"
    )
    thread.join()
    assert ended.code == 0, ended.err
    (row,) = ended.record["results"]
    assert row["conditions"]["reconnections"] == 1
    assert "broke once" in " ".join(row["warnings"])
    assert sum(row["times_ns"]) >= 6e9


def test_a_device_that_vanishes_for_good_is_one_line(ready, server, model, in_process, monkeypatch):
    monkeypatch.setattr(measurement, "RECONNECT_AFTER_S", (0.1, 0.1))
    thread = _once_a_worker_runs(server, 0.0, server.stop)
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi", "--min-seconds", "30")
    finally:
        thread.join()
        server.start()
    assert ended.code == 6
    assert "cannot reach ssh:pi" in ended.err or "connection to ssh:pi was lost" in ended.err
    assert "Traceback" not in ended.err


def test_an_engine_that_is_killed_is_reported_as_a_crash(ready, server):
    host = SSHHost.at("pi")
    with contextlib.closing(host), host.start("m") as channel:
        assert channel.ask("machine", MachineInfo).cores
        (worker,) = server.workers()
        worker.kill()
        with pytest.raises(EngineFailed, match=r"crashed \(SIGKILL\)"):
            channel.ask("machine", MachineInfo)


def test_a_worker_that_takes_too_long_is_ended(connection):
    slow = connection.command("sleep 60")
    connection.connect()
    with (
        Channel(slow, "m", limit_s=0.5, connection_lost=connection.lost) as channel,
        pytest.raises(EngineFailed, match=r"within 0\.5 s"),
    ):
        channel.ask("machine", MachineInfo)


def test_the_greeting_of_a_login_shell_is_harmless(ready, server, model, in_process):
    # A word, a number, which is JSON too, letters that are no UTF-8, and a line without an end.
    (server.home / ".bashrc").write_text(
        "echo Welcome; echo 2026; printf 'Gr\\374\\337e\\n'; printf '\\033]0;title\\007'\n"
    )
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi", *BRIEFLY)
    finally:
        (server.home / ".bashrc").unlink()
    assert ended.code == 0, ended.err


def test_a_jump_host_of_the_configuration_is_used(ready, model, in_process):
    ended = in_process("bench", "tflite", model, "--device", "ssh:behind", *BRIEFLY)
    assert ended.code == 0, ended.err


def test_a_check_measures_on_the_device_of_the_baseline(ready, model, in_process, tmp_path):
    baseline = tmp_path / "baseline.json"
    ended = in_process("bench", "tflite", model, "--device", "ssh:pi", *BRIEFLY, "--json", baseline)
    assert ended.code == 0, ended.err
    ended = in_process(
        "bench", "check", "--baseline", baseline, "--device", "ssh:pi",
        "--max-regression", "1000%", "--min-runs", "20", "--min-seconds", "0.1",
        "--repeats", "2", "--json", "-",
    )  # fmt: skip
    assert [row["device"] for row in ended.record["results"]] == ["ssh:pi"]
    assert ended.record["verdicts"][0]["status"] in ("pass", "inconclusive")


def test_without_a_setup_the_error_names_the_command_for_it(
    model, in_process, tmp_path, monkeypatch
):
    empty = loopback.Server(tmp_path / "bare")
    monkeypatch.setenv("CCT_EXPORT_SSH", empty.client()["CCT_EXPORT_SSH"])
    ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
    empty.stop()
    assert ended.code == 6
    assert "cct-bench device setup ssh:pi" in ended.err


def test_a_full_disk_is_one_line(ready, small_disk, model, in_process, server):
    link = server.cache / "cct-export"
    real = server.cache / "real"
    link.rename(real)
    link.symlink_to(small_disk)
    (small_disk / "venv").symlink_to(real / "venv")
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
    finally:
        link.unlink()
        real.rename(link)
    assert ended.code == 1
    assert "ssh:pi" in ended.err
    assert "No space left on device" in ended.err
    assert "Traceback" not in ended.err


def test_keras_models_are_refused(in_process, tmp_path):
    ended = in_process("bench", "keras", "cct_2_3x2_32", "--device", "ssh:pi")
    assert ended.code == 2
    assert "not Keras models" in ended.err


@pytest.mark.parametrize("name", ["with a blank", "100%h", "long" * 25])
def test_temporary_files_may_be_anywhere(monkeypatch, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with contextlib.closing(Connection("pi")) as opened:
        assert opened.run("echo hello") == "hello\n"
    assert list(folder.iterdir()) == []
