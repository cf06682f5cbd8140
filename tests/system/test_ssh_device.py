"""Measuring behind ssh, on a real OpenSSH server on loopback."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import loopback
import psutil
import pytest
from cct_export.bench.hosts.channel import Channel

from cct_export.bench.hosts.ssh import SSHHost
from cct_export.bench.hosts.ssh_connection import CHUNK_BYTES, Connection, digest_of
from cct_export.errors import ConnectionLost, EngineFailed, NotAvailable, OutputError

pytestmark = pytest.mark.ssh

BRIEFLY = ("--min-runs", "20", "--min-seconds", "0.1", "--warmup-seconds", "0")
ODD = "a b;rm -rf x'.tflite"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with an engine on it, put there by our own command."""
    try:
        loopback.install()
        running = loopback.Server(tmp_path_factory.mktemp("ssh"))
    except loopback.Unavailable as error:
        pytest.skip(str(error))
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def known(server, monkeypatch):
    """The client knows server and key, unless a test says otherwise."""
    monkeypatch.setenv("CCT_EXPORT_SSH", server.client()["CCT_EXPORT_SSH"])


@pytest.fixture(scope="module")
def ready(server, in_process):
    """The record of ``cct-bench device setup``."""
    os.environ |= server.client()
    try:
        python = ("--python", os.path.realpath(sys.executable))
        ended = in_process("bench", "device", "setup", "ssh:pi", *python, "--json", "-")
    finally:
        del os.environ["CCT_EXPORT_SSH"]
    if "pip" in ended.err and ended.code:
        pytest.skip(f"no package index: {ended.err.strip()[-300:]}")
    assert ended.code == 0, ended.err
    return ended.record["setup"]


@pytest.fixture
def model(exports, tmp_path):
    """A copy of an int8 TFLite file, with its sidecar."""
    return _copied(exports("tflite", "int8").path, tmp_path / "m.tflite")


def _copied(path, there):
    shutil.copy(path, there)
    shutil.copy(f"{path}.json", f"{there}.json")
    return there


@pytest.fixture
def connection(server):
    opened = Connection("pi")
    yield opened
    opened.close()


def keys(record, prefix=""):
    """Returns the dotted names of all keys but those of library versions."""
    found = set()
    for key, value in record.items():
        found.add(prefix + key)
        if isinstance(value, dict) and key != "versions":
            found |= keys(value, f"{prefix}{key}.")
    return found


def test_setup_puts_the_versions_of_this_machine_there(ready, server):
    from importlib.metadata import version

    assert ready["folder"] == str(server.cache / "cct-export")
    for name in ("ai-edge-litert", "onnxruntime", "numpy"):
        assert ready["versions"][name] == version(name)


def test_the_record_is_that_of_a_local_run_but_for_the_device(ready, model, in_process):
    records = []
    for device in ("ssh:pi", "local"):
        options = ("--device", device, *BRIEFLY, "--accuracy", "--data", "digits", "--json", "-")
        ended = in_process("bench", "tflite", model, *options)
        assert ended.code == 0, ended.err
        records.append(ended.record["results"][0])
    there, here = records
    assert (there["device"], here["device"]) == ("ssh:pi", "local")
    assert keys(there) == keys(here)
    for same in ("artifact", "parity", "accuracy", "batch", "headline", "failure"):
        assert there[same] == here[same]
    assert there["runtime"] == here["runtime"]
    assert there["machine"]["cpu"] == here["machine"]["cpu"]
    assert "jax" not in there["machine"]["versions"]  # it is the device that was asked
    assert len(there["times_ns"]) >= 20


def test_onnx_and_operators_are_measured_there_too(ready, exports, in_process):
    path = exports("onnx", "int8").path
    ended = in_process(
        "bench", "onnx", path, "--device", "ssh:pi", *BRIEFLY, "--profile-ops", "--json", "-"
    )
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    assert found["parity"]["passed"]
    assert len(found["operators"]["operators"]) > 10


def test_an_artifact_is_sent_once(ready, server, model, in_process):
    def sent():
        return {path: path.stat().st_mtime_ns for path in server.cache.rglob("*.tflite*")}

    measure = ("bench", "tflite", model, "--device", "ssh:pi", *BRIEFLY)
    assert in_process(*measure).code == 0
    first = sent()
    assert {path.name for path in first} == {"m.tflite", "m.tflite.json"}
    assert in_process(*measure).code == 0
    assert sent() == first


def test_a_name_that_a_shell_would_run_is_harmless(ready, server, exports, tmp_path, in_process):
    path = _copied(exports("tflite", "int8").path, tmp_path / ODD)
    keep = server.home / "x"
    keep.write_text("still here")
    ended = in_process("bench", "tflite", path, "--device", "ssh:pi", *BRIEFLY, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"]["passed"]
    assert keep.read_text() == "still here"
    assert [found.name for found in server.cache.rglob("a b*tflite")] == [ODD]


def test_a_name_that_looks_like_an_option_is_harmless(ready, model, in_process):
    path = _copied(model, model.with_name("-rf.tflite"))
    ended = in_process("bench", "tflite", path, "--device", "ssh:pi", *BRIEFLY, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"]["passed"]


def test_several_commands_at_a_time_on_a_device_that_has_nothing_yet(
    ready, server, model, cct_bench
):
    for sent in ("code", "artifacts"):
        shutil.rmtree(server.cache / "cct-export" / sent, ignore_errors=True)
    ended = []

    def measure():
        ended.append(cct_bench("tflite", model, "--device", "ssh:pi", *BRIEFLY))

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.stderr for one in ended if one.returncode] == []
    assert list(server.cache.rglob("*.part")) == []
    assert len(list((server.cache / "cct-export" / "code").iterdir())) == 2  # packed, unpacked


def test_one_file_sent_twice_at_a_time_arrives_whole(server, tmp_path):
    content = os.urandom(40 * CHUNK_BYTES)
    path = tmp_path / "big.bin"
    path.write_bytes(content)
    folder = f"{server.far}/twice"
    failed = []

    def send(pause_s):
        with contextlib.closing(Connection("pi")) as opened:
            try:
                opened.send(path, folder, digest_of_file(content), lambda said: time.sleep(pause_s))
            except (ConnectionLost, OutputError) as error:
                failed.append(str(error))

    threads = [threading.Thread(target=send, args=(pause,)) for pause in (0.02, 0.01, 0.002, 0)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)  # so that later ones find a part, or the file
    for thread in threads:
        thread.join()
    assert failed == []
    assert (server.far / "twice" / "big.bin").read_bytes() == content
    assert not (server.far / "twice" / "big.bin.part").exists()


def test_a_configuration_that_keeps_connections_alive_leaves_none_behind(server, monkeypatch):
    lasting = server.folder / "lasting"
    lasting.write_text((server.folder / "config").read_text() + " ControlPersist yes\n")
    monkeypatch.setenv("CCT_EXPORT_SSH", server.client("lasting")["CCT_EXPORT_SSH"])
    with contextlib.closing(Connection("pi")) as opened:
        assert opened.run("echo there") == "there\n"
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(lasting) in (process.info["cmdline"] or ())
    ]
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    assert left == []


@pytest.mark.parametrize("name", ["with a blank", "100%h", "long" * 25])
def test_temporary_files_may_be_anywhere(server, monkeypatch, tmp_path, name):
    room = tmp_path / name
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    with contextlib.closing(Connection("pi")) as opened:
        assert opened.run("echo there") == "there\n"
    assert list(room.iterdir()) == []


@pytest.mark.parametrize(
    ("stated", "reason"), [("'ssh", "CCT_EXPORT_SSH is no command"), ("false", "ended with 1")]
)
def test_an_ssh_that_is_none_is_told(monkeypatch, model, in_process, stated, reason):
    monkeypatch.setenv("CCT_EXPORT_SSH", stated)
    ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
    assert ended.code in (2, 6)
    assert reason in ended.err
    assert "not foreseen" not in ended.err


def test_two_setups_at_a_time_leave_one_that_works(ready, model, server, cct_bench):
    python = ("--engine", "litert", "--python", os.path.realpath(sys.executable))
    ended = []

    def set_up():
        ended.append(cct_bench("device", "setup", "ssh:pi", *python))

    threads = [threading.Thread(target=set_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.stderr for one in ended if one.returncode] == []
    done = cct_bench("tflite", model, "--device", "ssh:pi", *BRIEFLY)
    assert done.returncode == 0, done.stderr


def test_clearing_a_device_takes_only_what_was_put_there(ready, server, in_process, tmp_path):
    root = tmp_path / "far" / "cct-export"
    for name in ("venv", "code", "artifacts"):
        (root / name).mkdir(parents=True)
    kept = root / "cifar10.npz"
    kept.write_text("kept by cct-export itself")
    there = server.cache / "cct-export"
    away = there.rename(server.cache / "away")
    there.symlink_to(root)
    try:
        assert in_process("bench", "device", "remove", "ssh:pi").code == 0
        assert [path.name for path in root.iterdir()] == ["cifar10.npz"]
        kept.unlink()
        there.unlink()
    finally:
        away.rename(there)


def test_several_devices_share_one_table_and_one_that_is_gone_takes_nothing(
    ready, model, in_process
):
    devices = ("--device", "local", "--device", "ssh:pi", "--device", "ssh:nobody.invalid")
    ended = in_process("bench", "tflite", model, *devices, *BRIEFLY, "--json", "-")
    here, there, gone = ended.record["results"]
    assert [row["device"] for row in (here, there, gone)] == [
        "local", "ssh:pi", "ssh:nobody.invalid",
    ]  # fmt: skip
    assert len(here["times_ns"]) >= 20
    assert len(there["times_ns"]) >= 20
    assert "nobody.invalid" in gone["failure"]
    assert ended.code == 6


def test_a_connection_that_breaks_is_taken_up_again(ready, server, model, in_process):
    def cut():
        limit = time.monotonic() + 60
        while time.monotonic() < limit and not server.workers(seconds=2.0):
            time.sleep(0.05)
        server.drop()

    saboteur = threading.Thread(target=cut)
    saboteur.start()
    ended = in_process(
        "bench", "tflite", model, "--device", "ssh:pi", "--min-seconds", "4", "--json", "-"
    )
    saboteur.join()
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    assert found["conditions"]["reconnections"] == 1
    assert "broke once" in " ".join(found["warnings"])
    assert sum(found["times_ns"]) >= 4e9


def test_a_device_that_vanishes_for_good_is_told(ready, server, model, in_process, monkeypatch):
    from cct_export.bench import measurement

    monkeypatch.setattr(measurement, "RECONNECT_AFTER_S", (0.1, 0.1))

    def vanish():
        limit = time.monotonic() + 60
        while time.monotonic() < limit and not server.workers():
            time.sleep(0.05)
        server.stop()

    saboteur = threading.Thread(target=vanish)
    saboteur.start()
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi", "--min-seconds", "30")
    finally:
        saboteur.join()
        server.start()
    assert ended.code == 6
    assert "cannot reach ssh:pi" in ended.err or "connection to ssh:pi was lost" in ended.err
    assert "Traceback" not in ended.err


def test_an_engine_that_is_killed_there_is_told_as_a_crash(ready, server, model):
    host = SSHHost(Connection("pi"))
    with contextlib.closing(host), host.start("m") as channel:
        assert channel.ask("machine")["cores"]
        (worker,) = server.workers()
        worker.kill()
        with pytest.raises(EngineFailed, match=r"crashed \(SIGKILL\)"):
            channel.ask("machine")


def test_a_login_shell_that_greets_is_no_harm(ready, server, model, in_process):
    # A word, a number, which is JSON too, letters that are no UTF-8, and a line without an end.
    (server.home / ".bashrc").write_text(
        "echo Welcome; echo 2026; printf 'Gr\\374\\337e\\n'; printf '\\033]0;title\\007'\n"
    )
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi", *BRIEFLY)
    finally:
        (server.home / ".bashrc").unlink()
    assert ended.code == 0, ended.err


def test_a_machine_behind_another_is_reached_as_the_configuration_says(ready, model, in_process):
    ended = in_process("bench", "tflite", model, "--device", "ssh:behind", *BRIEFLY)
    assert ended.code == 0, ended.err


def test_a_check_measures_where_the_baseline_is_of(ready, model, in_process, tmp_path):
    baseline = tmp_path / "baseline.json"
    ended = in_process("bench", "tflite", model, "--device", "ssh:pi", *BRIEFLY, "--json", baseline)
    assert ended.code == 0, ended.err
    ended = in_process(
        "bench", "check", "--baseline", baseline, "--max-regression", "1000%", "--min-runs", "20",
        "--min-seconds", "0.1", "--repeats", "2", "--json", "-",
    )  # fmt: skip
    assert [row["device"] for row in ended.record["results"]] == ["ssh:pi"]
    assert ended.record["verdicts"][0]["status"] in ("pass", "inconclusive")


def test_without_setup_the_command_for_it_is_told(server, model, in_process, tmp_path):
    empty = loopback.Server(tmp_path / "bare")
    try:
        os.environ |= empty.client()
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
    finally:
        os.environ |= server.client()
        empty.stop()
    assert ended.code == 6
    assert "cct-bench device setup ssh:pi" in ended.err


def test_an_unknown_host_is_refused_and_not_remembered(server, model, in_process):
    server.known.write_text("")
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
        assert ended.code == 6
        assert "not a known host" in ended.err
        assert f"ssh -F {server.folder}/config pi" in ended.err
        assert server.known.read_text() == ""
    finally:
        server.know()


def test_a_host_with_another_key_than_the_known_one_is_refused(server, model, in_process):
    server.know("stranger")
    try:
        ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
    finally:
        server.know()
    assert ended.code == 6
    assert "another host key" in ended.err


def test_a_key_that_is_not_accepted_is_told(server, model, in_process, monkeypatch):
    monkeypatch.setenv("CCT_EXPORT_SSH", server.client("strange")["CCT_EXPORT_SSH"])
    ended = in_process("bench", "tflite", model, "--device", "ssh:pi")
    assert ended.code == 6
    assert "accepts none of your keys" in ended.err


def test_what_has_arrived_of_a_file_is_not_sent_again(server, connection, tmp_path):
    content = os.urandom(80 * CHUNK_BYTES)
    path = tmp_path / "big.bin"
    path.write_bytes(content)
    digest = digest_of_file(content)
    folder = f"{server.far}/resumed"
    said = []

    def cut(message):
        said.append(message)
        if len(said) == 40:
            # What was written into the pipe by now has left it, or has not: both may be.
            time.sleep(0.3)
            server.drop()
            time.sleep(0.3)

    with pytest.raises(ConnectionLost, match="run the command again"):
        connection.send(path, folder, digest, cut)
    (part,) = (server.far / "resumed").iterdir()
    assert part.name == "big.bin.part"
    arrived = part.stat().st_size
    assert 0 < arrived < len(content)
    said.clear()
    assert connection.send(path, folder, digest, said.append) == f"{folder}/big.bin"
    assert (server.far / "resumed" / "big.bin").read_bytes() == content
    assert len(said) == -(-(len(content) - arrived) // CHUNK_BYTES)


def digest_of_file(content):
    return hashlib.sha256(content).hexdigest()


def test_what_is_left_of_another_file_is_not_taken_for_this_one(server, connection, tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(b"the right content")
    folder = server.far / "mixed"
    folder.mkdir()
    (folder / "m.bin.part").write_bytes(b"another")
    digest = digest_of_file(b"the right content")
    connection.send(path, str(folder), digest, lambda said: None)
    assert (folder / "m.bin").read_bytes() == b"the right content"


@pytest.fixture
def small_disk(server, tmp_path):
    """A disk of 64 kB on the far side."""
    place = server.far / "small"
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_as_the_device_said_it_and_nothing_is_left(
    small_disk, connection, tmp_path
):
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(200_000))
    digest = digest_of_file(path.read_bytes())
    with pytest.raises(OutputError, match="No space left on device"):
        connection.send(path, f"{small_disk}/artifacts", digest, lambda said: None)
    assert list((small_disk / "artifacts").iterdir()) == []


def test_a_bench_on_a_device_with_a_full_disk_ends_with_one_line(
    ready, small_disk, model, in_process, server
):
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


def test_a_far_command_that_takes_too_long_is_ended(connection):
    with pytest.raises(ConnectionLost, match=r"no answer within 0\.5 s"):
        connection.run("sleep 60", limit_s=0.5)


def test_a_worker_that_takes_too_long_is_ended(ready, server):
    host = SSHHost(Connection("pi"))
    with contextlib.closing(host):
        slow = host.connection.command("sleep 60")
        host.connection.connect()
        with (
            Channel(slow, "m", limit_s=0.5, lost=host.connection.lost) as channel,
            pytest.raises(EngineFailed, match=r"within 0\.5 s"),
        ):
            channel.ask("machine")


def test_what_a_far_command_said_is_what_is_told(connection):
    with pytest.raises(OutputError, match=r"ssh:pi: .*no-such-folder"):
        connection.run('cd "$1"', "/no-such-folder")


def test_a_device_without_a_python_is_told(server, in_process):
    ended = in_process("bench", "device", "setup", "ssh:pi", "--python", "/no/python")
    assert ended.code == 6
    assert "has no /no/python" in ended.err


def test_a_python_that_is_too_old_is_told(server, in_process, tmp_path):
    old = tmp_path / "python-old"
    facts = {"python": str(old), "version": [3, 9], "machine": "aarch64", "libc": ["glibc", "2.31"]}
    old.write_text(f"#!/bin/sh\necho 'cct-export:{json.dumps(facts)}'\nexit 1\n")
    old.chmod(0o755)
    ended = in_process("bench", "device", "setup", "ssh:pi", "--python", old)
    assert ended.code == 6
    assert "has Python 3.9, and 3.11 is needed" in ended.err


def test_a_setup_that_fails_leaves_the_one_that_was_there(ready, server, in_process, tmp_path):
    broken = tmp_path / "python-broken"
    facts = {
        "python": str(broken), "version": [3, 11], "machine": "aarch64", "libc": ["glibc", "2.36"],
    }  # fmt: skip
    broken.write_text(
        f"#!/bin/sh\n[ \"$1\" = -c ] && echo 'cct-export:{json.dumps(facts)}' && exit 0\n"
        "echo 'The virtual environment was not created: ensurepip is not available' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    ended = in_process("bench", "device", "setup", "ssh:pi", "--python", broken)
    assert ended.code == 1
    assert "ensurepip is not available" in ended.err
    assert "python3-venv" in ended.err
    assert (server.cache / "cct-export" / "venv" / "bin" / "python").exists()
    (link,) = (server.cache / "cct-export").glob("venv.*")  # no other beside what venv is
    assert (server.cache / "cct-export" / "venv").resolve() == link


def test_a_device_without_an_index_gets_its_wheels_from_here_and_can_be_cleared(
    server, in_process, monkeypatch, tmp_path
):
    bare = loopback.Server(tmp_path / "offline")
    try:
        monkeypatch.setenv("CCT_EXPORT_SSH", bare.client()["CCT_EXPORT_SSH"])
        ended = in_process(
            "bench", "device", "setup", "ssh:pi", "--offline", "--engine", "litert",
            "--python", os.path.realpath(sys.executable), "--json", "-",
        )  # fmt: skip
        if ended.code == 6 and "cannot download wheels" in ended.err:
            pytest.skip(ended.err.strip()[-300:])
        assert ended.code == 0, ended.err
        assert "onnxruntime" not in ended.record["setup"]["versions"]
        root = bare.cache / "cct-export"
        assert (root / "venv").is_dir()
        assert not (root / "wheels").exists()
        assert in_process("bench", "device", "remove", "ssh:pi").code == 0
        assert not root.exists()
    finally:
        bare.stop()


def test_keras_models_are_not_measured_there(server, in_process, digits_model):
    ended = in_process("bench", "keras", digits_model, "--device", "ssh:pi")
    assert ended.code == 2
    assert "not Keras models" in ended.err


def test_nothing_is_listening(server):
    with pytest.raises(NotAvailable, match=r"cannot reach ssh:127\.0\.0\.1:1"):
        Connection("127.0.0.1:1").run("true")


def test_contents_have_one_digest_whatever_the_borders():
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
