"""The program adb: found, and what goes wrong with it; a script stands in for it."""

import pytest

from cct_export.bench.hosts.adb import client
from cct_export.bench.hosts.adb.client import Client, RemoteFolder, choose_device, parse_devices
from cct_export.errors import ConnectionLost, EngineFailed, NotAvailable

ONE_DEVICE = "printf 'List of devices attached\\nR58M\\tdevice\\n'"
DEVICES = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R58M\tdevice
192.168.1.5:5555\toffline
emulator-5554\tunauthorized

"""


@pytest.fixture
def fake_adb(tmp_path, monkeypatch):
    """Writes a script that stands in for adb: its commands for ``devices``, and for all else."""

    def write(devices=ONE_DEVICE, otherwise=":"):
        program = tmp_path / "adb"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = devices ]; then\n{devices}\nexit\nfi\n{otherwise}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("ADB", str(program))
        return program

    return write


def test_the_list_of_devices_is_read_whatever_the_server_prints_before_it():
    assert parse_devices(DEVICES) == {
        "R58M": "device",
        "192.168.1.5:5555": "offline",
        "emulator-5554": "unauthorized",
    }
    assert parse_devices("List of devices attached\n\n") == {}


def test_the_only_device_needs_no_name():
    assert choose_device("", {"R58M": "device"}) == "R58M"


def test_of_several_devices_the_named_one_is_used():
    assert choose_device("R58M", parse_devices(DEVICES)) == "R58M"


@pytest.mark.parametrize(
    ("serial", "states", "message"),
    [
        ("", {}, "adb connect HOST:PORT"),
        ("x", {"R58M": "device"}, "no device 'x', only R58M"),
        ("", {"a": "device", "b": "offline"}, "say which, adb:a or adb:b"),
        ("", {"a": "unauthorized"}, "Allow USB debugging"),
        ("", {"a": "offline"}, "does not answer"),
        ("", {"a": "recovery"}, "'recovery': start Android"),
        ("", {"????": "no permissions (user in plugdev group); see [http://x]"}, "udev"),
    ],
)
def test_a_device_that_cannot_be_used_is_one_line_with_what_to_do(serial, states, message):
    with pytest.raises(NotAvailable) as caught:
        choose_device(serial, states)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adb_is_found_in_the_sdk(monkeypatch, tmp_path):
    tools = tmp_path / "platform-tools"
    tools.mkdir()
    (tools / "adb").write_text("#!/bin/sh\n")
    (tools / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ADB", raising=False)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    assert client.find_adb() == str(tools / "adb")
    monkeypatch.setenv("ADB", "/elsewhere/adb")
    assert client.find_adb() == "/elsewhere/adb"


def test_a_command_ends_with_its_own_code(fake_adb):
    # adb -s SERIAL shell COMMAND
    fake_adb(otherwise='sh -c "$4"')
    assert Client().shell("echo a; echo b >&2; exit 3") == (3, "a\nb\n")
    assert Client().shell("printf 'no end of line'").text == "no end of line"


def test_line_ends_of_old_phones_are_removed(fake_adb):
    fake_adb(otherwise="printf 'a\\r\\nb\\r\\n\\r\\ncct-export ended with 0\\r\\n'")
    assert Client().shell("x") == (0, "a\nb\n")


def test_a_shell_that_breaks_off_is_a_lost_phone_or_a_failure(fake_adb):
    fake_adb(otherwise="echo half; echo 'error: closed' >&2; exit 255")
    with pytest.raises(EngineFailed, match="ended early: closed"):
        Client().shell("x")
    phone = Client()
    fake_adb(
        devices="echo 'List of devices attached'", otherwise="echo 'error: closed' >&2; exit 1"
    )
    with pytest.raises(ConnectionLost, match=r"R58M is not there any more \(closed\)"):
        phone.shell("x")


def test_a_push_that_fails_quotes_adb(fake_adb, tmp_path):
    fake_adb(
        otherwise="echo \"adb: error: failed to copy 'a': remote Read-only file system\" >&2\n"
        "echo 'a: 0 files pushed, 0 skipped.' >&2; exit 1"
    )
    (tmp_path / "a").write_text("a")
    with pytest.raises(NotAvailable) as caught:
        Client().push(tmp_path / "a", "/data/local/tmp/a")
    assert str(caught.value).endswith("failed to copy 'a': remote Read-only file system")


def test_a_server_that_hangs_is_not_waited_for(fake_adb, monkeypatch):
    monkeypatch.setattr(client, "CALL_LIMIT_S", 0.3)
    fake_adb(devices="exec sleep 20")
    with pytest.raises(NotAvailable, match="adb kill-server"):
        Client()


def test_a_call_that_hangs_is_not_waited_for(fake_adb):
    fake_adb(otherwise="exec sleep 20")
    with pytest.raises(EngineFailed, match=r"no end of `adb shell` within 0\.3 s"):
        Client().shell("x", 0.3)


def test_a_server_that_does_not_start_is_quoted(fake_adb):
    fake_adb(devices="echo 'error: cannot bind to port' >&2; exit 1")
    with pytest.raises(NotAvailable, match="adb does not work: cannot bind to port"):
        Client()


def test_an_adb_that_is_no_program_is_not_available(fake_adb):
    fake_adb().chmod(0o644)
    with pytest.raises(NotAvailable, match="cannot be started"):
        Client()


def test_a_remote_folder_runs_a_program_of_any_name_with_any_argument(
    fake_adb, tmp_path, monkeypatch
):
    fake_adb(otherwise='sh -c "$4"')
    monkeypatch.setattr(client, "TEMPORARY", str(tmp_path))
    odd = "a b;echo gone'$HOME\"`id`*"
    folder = RemoteFolder(Client())
    folder.open()
    program = tmp_path / odd
    program.write_text("#!/bin/sh\nprintf '[%s]' \"$@\"; exit 7\n")
    program.chmod(0o755)
    assert folder.run([str(program), odd, "", "--x=y z"], 5.0) == (7, f"[{odd}][][--x=y z]")
    folder.close()
    assert [path.name for path in tmp_path.glob("cct-export-*")] == []
