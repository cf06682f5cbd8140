"""What --device may say, and what a setup chooses, without any device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench import run
from cct_export.bench.hosts import open_device
from cct_export.bench.hosts.ssh import package_archive
from cct_export.bench.hosts.ssh_connection import Connection
from cct_export.bench.hosts.ssh_setup import platforms
from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.specs import BenchPasses, Timing


@pytest.mark.parametrize(
    "name",
    ["", "phone", "local:here", "ssh:", "ssh:-oProxyCommand=x", "ssh:a b", "ssh:h:port", "ssh:@h"],
)
def test_a_device_that_cannot_be_called_so_is_refused(name):
    with pytest.raises(InvalidRequest):
        open_device(name)


@pytest.mark.parametrize(
    ("which", "ending"),
    [
        ("pi", ["pi"]),
        ("pi@raspberrypi.local", ["pi@raspberrypi.local"]),
        ("pi@host:2222", ["-p", "2222", "pi@host"]),
        ("pi@[::1]:22", ["-p", "22", "pi@::1"]),
    ],
)
def test_user_host_and_port_are_told_apart(which, ending, monkeypatch):
    monkeypatch.delenv("CCT_EXPORT_SSH", raising=False)
    assert Connection(which).by_hand == " ".join(["ssh", *ending])


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_any_argument_reaches_the_far_script_as_it_is(arguments):
    import subprocess

    command = Connection("pi").command('printf "%s\\0" "$@"', *arguments)
    done = subprocess.run(["sh", "-c", command[-1]], capture_output=True, check=True)
    said = done.stdout.decode().split("\0")[:-1]
    assert said == (arguments or [""])


def test_a_device_is_measured_on_once():
    with pytest.raises(InvalidRequest, match="named twice"):
        run.measure(["local", "local"], [], Timing(), BenchPasses(), print)


def test_wheels_are_chosen_by_the_c_library():
    tags = platforms("aarch64", ("glibc", "2.36"))
    assert tags[0] == "manylinux_2_36_aarch64"
    assert tags[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert "manylinux_2_28_aarch64" in tags
    with pytest.raises(NotAvailable, match="glibc"):
        platforms("aarch64", ("musl", "1.2"))


def test_the_modules_that_are_sent_are_the_same_bytes_every_time():
    assert package_archive() == package_archive()
    assert len(package_archive()) < 1_000_000
