"""Names of devices, and what ssh and a setup choose, without any device."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench import run
from cct_export.bench.hosts.ssh import package_archive
from cct_export.bench.hosts.ssh_connection import Connection
from cct_export.bench.hosts.ssh_setup import platforms
from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.specs import BenchJob, BenchPlan, BenchSpec


@pytest.mark.parametrize(
    "name",
    ["", "phone", "local:here", "ssh:", "ssh:-oProxyCommand=x", "ssh:a b", "ssh:h:port", "ssh:@h"],
)
def test_a_malformed_name_of_a_device_is_refused(name):
    with pytest.raises(InvalidRequest):
        run.open_device(name)


@pytest.mark.parametrize(
    ("address", "ending"),
    [
        ("pi", ["pi"]),
        ("pi@raspberrypi.local", ["pi@raspberrypi.local"]),
        ("pi@host:2222", ["-p", "2222", "pi@host"]),
        ("pi@[::1]:22", ["-p", "22", "pi@::1"]),
    ],
)
def test_user_host_and_port_are_parsed(address, ending, monkeypatch):
    monkeypatch.delenv("CCT_EXPORT_SSH", raising=False)
    assert Connection(address).manual_command == " ".join(["ssh", *ending])


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_any_argument_reaches_the_remote_script_unchanged(arguments):
    command = Connection("pi").command('printf "%s\\0" "$@"', *arguments)
    done = subprocess.run(["sh", "-c", command[-1]], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == (arguments or [""])


def test_a_device_that_is_named_twice_is_refused():
    with pytest.raises(InvalidRequest, match="named twice"):
        run.open_devices(["local", "local"])


class FakeDevice:
    """A device that cannot be used, or that fails in a way that nobody expects."""

    def __init__(self, name, error):
        self.name, self.error, self.closed = name, error, False

    def measure(self, jobs, plan, progress):
        raise self.error

    def close(self):
        self.closed = True


def test_a_device_that_cannot_be_used_has_a_failure_for_every_job():
    devices = {"a": FakeDevice("a", NotAvailable("off")), "b": FakeDevice("b", KeyError("bug"))}
    jobs = [BenchJob(Path("m.tflite"), BenchSpec("litert"))] * 2
    results = run._in_parallel([devices["a"]], jobs, BenchPlan(), print)
    assert [(row.failure, row.failure_kind) for row in results] == [("off", "NotAvailable")] * 2
    with pytest.raises(NotAvailable, match="off"):
        run.measure(jobs, BenchPlan(), devices=[devices["a"]], progress=print)
    with pytest.raises(KeyError, match="bug"):
        run.measure(jobs, BenchPlan(), devices=list(devices.values()), progress=print)
    assert devices["a"].closed
    assert devices["b"].closed


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
