"""Commands and files over ssh, and hosts that cannot be reached: OpenSSH's server on loopback."""

import contextlib
import hashlib
import os
import signal
import threading
import time

import psutil
import pytest

from cct_export.bench.hosts.ssh_connection import CHUNK_BYTES, Connection, digest_of
from cct_export.errors import ConnectionLost, NotAvailable, OutputError
from cct_export.specs.progress import no_progress

pytestmark = [pytest.mark.ssh, pytest.mark.usefixtures("ssh")]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_is_sent_several_times_at_once_arrives_whole(server, tmp_path):
    content = os.urandom(40 * CHUNK_BYTES)
    path = tmp_path / "big.bin"
    path.write_bytes(content)
    folder = f"{server.remote}/twice"
    failures = []

    def send(pause_s):
        with contextlib.closing(Connection("pi")) as opened:
            try:
                opened.send(path, folder, sha256(content), lambda message: time.sleep(pause_s))
            except (ConnectionLost, OutputError) as error:
                failures.append(str(error))

    threads = [threading.Thread(target=send, args=(pause,)) for pause in (0.02, 0.01, 0.002, 0)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)  # so that later ones find a part, or the file
    for thread in threads:
        thread.join()
    assert failures == []
    assert (server.remote / "twice" / "big.bin").read_bytes() == content
    assert not (server.remote / "twice" / "big.bin.part").exists()


def test_the_rest_of_a_file_is_sent_after_a_lost_connection(server, connection, tmp_path):
    content = os.urandom(80 * CHUNK_BYTES)
    path = tmp_path / "big.bin"
    path.write_bytes(content)
    folder = f"{server.remote}/resumed"
    messages = []

    def cut(message):
        messages.append(message)
        if len(messages) == 40:
            # What was written into the pipe by now has left it, or has not: both may be.
            time.sleep(0.3)
            server.drop()
            time.sleep(0.3)

    with pytest.raises(ConnectionLost, match="run the command again"):
        connection.send(path, folder, sha256(content), cut)
    (part,) = (server.remote / "resumed").iterdir()
    assert part.name == "big.bin.part"
    arrived = part.stat().st_size
    assert 0 < arrived < len(content)
    messages.clear()
    remote_path = connection.send(path, folder, sha256(content), messages.append)
    assert remote_path == f"{folder}/big.bin"
    assert (server.remote / "resumed" / "big.bin").read_bytes() == content
    assert len(messages) == -(-(len(content) - arrived) // CHUNK_BYTES)


def test_the_part_of_another_file_is_replaced(server, connection, tmp_path):
    content = b"the right content"
    path = tmp_path / "m.bin"
    path.write_bytes(content)
    folder = server.remote / "mixed"
    folder.mkdir()
    (folder / "m.bin.part").write_bytes(b"another")
    connection.send(path, str(folder), sha256(content), no_progress)
    assert (folder / "m.bin").read_bytes() == content


def test_a_full_disk_is_reported_as_the_device_reports_it_and_nothing_is_left(
    small_disk, connection, tmp_path
):
    content = bytes(200_000)
    path = tmp_path / "big.bin"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="No space left on device"):
        connection.send(path, f"{small_disk}/artifacts", sha256(content), no_progress)
    assert list((small_disk / "artifacts").iterdir()) == []


def test_a_command_that_takes_too_long_is_ended(connection):
    with pytest.raises(ConnectionLost, match=r"no answer within 0\.5 s"):
        connection.run("sleep 60", limit_s=0.5)


def test_a_command_that_fails_is_quoted(connection):
    with pytest.raises(OutputError, match=r"ssh:pi: .*no-such-folder"):
        connection.run('cd "$1"', "/no-such-folder")


def test_a_configuration_that_keeps_connections_alive_leaves_none_behind(server, monkeypatch):
    lasting = server.folder / "lasting"
    lasting.write_text((server.folder / "config").read_text() + " ControlPersist yes\n")
    monkeypatch.setenv("CCT_EXPORT_SSH", server.client("lasting")["CCT_EXPORT_SSH"])
    with contextlib.closing(Connection("pi")) as opened:
        assert opened.run("echo hello") == "hello\n"
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(lasting) in (process.info["cmdline"] or ())
    ]
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    assert left == []


@pytest.mark.parametrize(
    ("command", "reason"), [("'ssh", "CCT_EXPORT_SSH is no command"), ("false", "ended with 1")]
)
def test_an_invalid_ssh_command_is_reported(monkeypatch, bare, in_process, command, reason):
    monkeypatch.setenv("CCT_EXPORT_SSH", command)
    ended = in_process("bench", "tflite", bare, "--device", "ssh:pi")
    assert ended.code in (2, 6)
    assert reason in ended.err
    assert "unexpected" not in ended.err


def test_an_unknown_host_is_refused_and_not_remembered(server, bare, in_process):
    server.known_hosts.write_text("")
    try:
        ended = in_process("bench", "tflite", bare, "--device", "ssh:pi")
        assert ended.code == 6
        assert "not a known host" in ended.err
        assert f"ssh -F {server.folder}/config pi" in ended.err
        assert server.known_hosts.read_text() == ""
    finally:
        server.set_known_key()


def test_a_host_with_another_key_than_the_known_one_is_refused(server, bare, in_process):
    server.set_known_key("stranger")
    try:
        ended = in_process("bench", "tflite", bare, "--device", "ssh:pi")
    finally:
        server.set_known_key()
    assert ended.code == 6
    assert "another host key" in ended.err


def test_a_key_that_the_host_does_not_accept_is_reported(server, bare, in_process, monkeypatch):
    monkeypatch.setenv("CCT_EXPORT_SSH", server.client("strange")["CCT_EXPORT_SSH"])
    ended = in_process("bench", "tflite", bare, "--device", "ssh:pi")
    assert ended.code == 6
    assert "accepts none of your keys" in ended.err


def test_a_port_that_nothing_listens_on_is_reported():
    with pytest.raises(NotAvailable, match=r"cannot reach ssh:127\.0\.0\.1:1"):
        Connection("127.0.0.1:1").run("true")


def test_the_digest_of_several_contents_depends_on_their_borders():
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
