"""Calls of adb that go wrong; the program is a script that plays it."""

import pytest

from cct_export.bench.hosts.adb import client, workplace
from cct_export.bench.hosts.adb.client import Client
from cct_export.errors import ConnectionLost, EngineFailed, NotAvailable

LISTED = "printf 'List of devices attached\\nR58M\\tdevice\\n'"


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Plays adb: what it does for ``devices``, and for all else."""

    def play(devices=LISTED, otherwise=":"):
        program = tmp_path / "adb"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = devices ]; then\n{devices}\nexit\nfi\n{otherwise}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("ADB", str(program))
        return program

    return play


def test_a_command_ends_with_its_own_code(played):
    # adb -s SERIAL shell COMMAND
    played(otherwise='sh -c "$4"')
    assert Client().shell("echo a; echo b >&2; exit 3") == (3, "a\nb\n")
    assert Client().shell("printf 'no end of line'").text == "no end of line"


def test_lines_of_old_phones_end_differently(played):
    played(otherwise="printf 'a\\r\\nb\\r\\n\\r\\ncct-export ended with 0\\r\\n'")
    assert Client().shell("x") == (0, "a\nb\n")


def test_a_shell_that_breaks_off_is_a_lost_phone_or_a_failure(played):
    played(otherwise="echo half; echo 'error: closed' >&2; exit 255")
    with pytest.raises(EngineFailed, match="ended early: closed"):
        Client().shell("x")
    here = Client()
    played(devices="echo 'List of devices attached'", otherwise="echo 'error: closed' >&2; exit 1")
    with pytest.raises(ConnectionLost, match=r"R58M is not there any more \(closed\)"):
        here.shell("x")


def test_a_push_says_why_not(played, tmp_path):
    played(
        otherwise="echo \"adb: error: failed to copy 'a': remote Read-only file system\" >&2\n"
        "echo 'a: 0 files pushed, 0 skipped.' >&2; exit 1"
    )
    (tmp_path / "a").write_text("a")
    with pytest.raises(NotAvailable) as caught:
        Client().push(tmp_path / "a", "/data/local/tmp/a")
    assert str(caught.value).endswith("failed to copy 'a': remote Read-only file system")


def test_a_server_that_hangs_is_not_waited_for(played, monkeypatch):
    monkeypatch.setattr(client, "CALL_LIMIT_S", 0.3)
    played(devices="exec sleep 20")
    with pytest.raises(NotAvailable, match="adb kill-server"):
        Client()


def test_a_call_that_hangs_is_not_waited_for(played):
    played(otherwise="exec sleep 20")
    with pytest.raises(EngineFailed, match=r"no end of `adb shell` within 0\.3 s"):
        Client().shell("x", 0.3)


def test_a_server_that_does_not_start_is_quoted(played):
    played(devices="echo 'error: cannot bind to port' >&2; exit 1")
    with pytest.raises(NotAvailable, match="adb does not work: cannot bind to port"):
        Client()


def test_what_is_no_program_is_not_available(played):
    played().chmod(0o644)
    with pytest.raises(NotAvailable, match="cannot be started"):
        Client()


def test_a_workplace_runs_a_program_of_any_name_with_any_argument(played, tmp_path, monkeypatch):
    played(otherwise='sh -c "$4"')
    monkeypatch.setattr(workplace, "ROOM", str(tmp_path))
    odd = "a b;echo gone'$HOME\"`id`*"
    there = workplace.Workplace(Client())
    there.open()
    program = tmp_path / odd
    program.write_text("#!/bin/sh\nprintf '[%s]' \"$@\"; exit 7\n")
    program.chmod(0o755)
    assert there.run([str(program), odd, "", "--x=y z"], 5.0) == (7, f"[{odd}][][--x=y z]")
    there.close()
    assert [path.name for path in tmp_path.glob("cct-export-*")] == []
