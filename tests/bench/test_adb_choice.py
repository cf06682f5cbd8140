"""Which device adb is to use, told by what it lists."""

import pytest

from cct_export.bench.hosts.adb import client
from cct_export.errors import NotAvailable

LISTED = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R58M\tdevice
192.168.1.5:5555\toffline
emulator-5554\tunauthorized

"""


def test_the_list_is_read_whatever_the_server_says_before_it():
    assert client.listed(LISTED) == {
        "R58M": "device",
        "192.168.1.5:5555": "offline",
        "emulator-5554": "unauthorized",
    }
    assert client.listed("List of devices attached\n\n") == {}


def test_the_only_device_needs_no_name():
    assert client.chosen("", {"R58M": "device"}) == "R58M"


def test_a_named_device_is_taken_of_several():
    assert client.chosen("R58M", client.listed(LISTED)) == "R58M"


@pytest.mark.parametrize(
    ("wanted", "states", "said"),
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
def test_what_cannot_be_used_says_what_to_do(wanted, states, said):
    with pytest.raises(NotAvailable) as caught:
        client.chosen(wanted, states)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adb_is_found_in_the_sdk(monkeypatch, tmp_path):
    tools = tmp_path / "platform-tools"
    tools.mkdir()
    (tools / "adb").write_text("#!/bin/sh\n")
    (tools / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ADB", raising=False)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    assert client.program() == str(tools / "adb")
    monkeypatch.setenv("ADB", "/elsewhere/adb")
    assert client.program() == "/elsewhere/adb"
