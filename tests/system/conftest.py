"""What these tests need of the system, fetched into temporary folders."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import arm64 as emulated
import linux_cpp
import loopback
import ncnn_library
import pytest
from adb_device import Device
from debian_archive import Unavailable, unpack

from cct_export.bench.doctor import PROBES
from cct_export.bench.hosts.adb.client import parse_devices
from cct_export.bench.hosts.ssh_connection import Connection

FOLDER = Path(__file__).parent

ON_ARM64 = pytest.StashKey()


@pytest.fixture(scope="session")
def vulkan(tmp_path_factory):
    """The variables with which a child process finds Mesa's software Vulkan (lavapipe).

    LiteRT may refuse the Mesa of Debian's stable release, so the backports are preferred.
    """
    folder = tmp_path_factory.mktemp("vulkan")
    try:
        root = unpack(folder, "mesa-vulkan-drivers", "libvulkan1", backports=True)
    except Unavailable as error:
        pytest.skip(f"no software Vulkan: {error}")
    loaders = sorted(root.glob("usr/lib/*/libvulkan.so.1"))
    drivers = sorted(root.glob("usr/share/vulkan/icd.d/lvp_icd*.json"))
    if not (loaders and drivers):
        pytest.skip("no software Vulkan: the packages contain no loader, or no driver")
    return {
        "LD_LIBRARY_PATH": str(loaders[0].parent),
        "VK_ICD_FILENAMES": str(drivers[0]),
        "MESA_SHADER_CACHE_DIR": str(folder / "shaders"),  # compiling them takes most of the time
    }


@pytest.fixture(scope="session")
def arm64(tmp_path_factory):
    """An emulated machine; see ``arm64.Machine``."""
    try:
        return emulated.Machine(tmp_path_factory.mktemp("arm64"))
    except Unavailable as error:
        pytest.skip(f"no emulated arm64: {error}")


@pytest.fixture(scope="session")
def engine_of(tmp_path_factory):
    """Returns the option that tells CMake where the engine of a format is, fetched once."""
    get = {"onnx": linux_cpp.unpack_onnxruntime, "ncnn": ncnn_library.install}
    options = {"onnx": "-DONNXRUNTIME_ROOT", "ncnn": "-DNCNN_ROOT"}

    @functools.cache
    def option(format):
        try:
            return f"{options[format]}={get[format](tmp_path_factory.mktemp(format))}"
        except Unavailable as error:
            return error

    def engine(format):
        found = option(format)
        if isinstance(found, Unavailable):
            pytest.skip(f"no C++ bundles of {format} files: {found}")
        return found

    return engine


@pytest.fixture
def summary_line(request):
    """Adds a line to the summary that is printed after the tests."""
    return request.config.stash.setdefault(ON_ARM64, []).append


def pytest_terminal_summary(terminalreporter, config):
    """Prints the lines that the arm64 tests added."""
    lines = config.stash.get(ON_ARM64, [])
    if lines:
        terminalreporter.section("on emulated arm64: no statement about latency")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def adb_program(tmp_path_factory):
    """The real program ``adb``, with a server of its own that is gone afterwards."""
    folder = tmp_path_factory.mktemp("adb")
    program = shutil.which("adb")
    if program is None:
        program = folder / "adb"
        try:
            root = unpack(folder / "apt", "adb")
        except Unavailable as error:
            pytest.skip(f"no adb: {error}")
        # Libraries that the machine has already are not unpacked.
        library = next(root.glob("usr/lib/*/android/*.so*")).parent.parent
        real = root / "usr/lib/android-sdk/platform-tools/adb"
        program.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH={library}:{library}/android exec {real} "$@"\n'
        )
        program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    environment = {
        "ADB": str(program),
        "HOME": str(folder),  # the key that devices know this machine by
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADB_MDNS": "0",
    }
    # Two clients at once would each start a server.
    subprocess.run([str(program), "start-server"], env=os.environ | environment, timeout=60)
    yield environment
    subprocess.run([str(program), "kill-server"], env=os.environ | environment, timeout=30)


@pytest.fixture
def adb(adb_program, monkeypatch):
    """Calls adb; this process and its children use the same one."""
    for name, value in adb_program.items():
        monkeypatch.setenv(name, value)
    root = str(FOLDER.parents[1])  # the fake tools import the package
    monkeypatch.setenv("PYTHONPATH", f"{root}:{os.environ.get('PYTHONPATH', '')}")

    def call(*arguments):
        command = [adb_program["ADB"], *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    yield call
    call("disconnect")


@pytest.fixture
def connect(adb, tmp_path):
    """Makes a fake phone and connects it; returns it."""
    phones = []

    def make(state="device", **attributes):
        phone = Device(tmp_path / f"phone{len(phones)}")
        phones.append(phone)
        for name, value in attributes.items():
            setattr(phone, name, value)
        # adb waits for ever for one that does not answer.
        threading.Thread(target=adb, args=("connect", phone.serial), daemon=True).start()
        deadline = time.monotonic() + 20
        while parse_devices(adb("devices")).get(phone.serial) != state:
            assert time.monotonic() < deadline, adb("devices")
            time.sleep(0.1)
        return phone

    yield make
    for phone in phones:
        phone.vanish()


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """The fakes of both tools, as programs."""
    folder = tmp_path_factory.mktemp("tools")
    # pytest would collect a source file of the name *_test.py.
    sources = {"benchmark_model": "fake_benchmark_model.py", "perf_test": "fake_onnxruntime.py"}
    for name, source in sources.items():
        text = (FOLDER / source).read_text()
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
    return folder


@pytest.fixture
def probe(tmp_path):
    """Copies a small artifact with its sidecar; returns the copy."""

    def copy(name="probe.tflite"):
        source = PROBES["onnxruntime" if name.endswith(".onnx") else "litert"]
        shutil.copy(source, tmp_path / name)
        shutil.copy(f"{source}.json", tmp_path / f"{name}.json")
        return tmp_path / name

    return copy


@pytest.fixture
def bare(probe):
    """A TFLite file without a sidecar: no golden images are compared, which takes its time."""
    path = probe("bare.tflite")
    path.with_name("bare.tflite.json").unlink()
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """An OpenSSH server on loopback."""
    try:
        loopback.install()
        running = loopback.Server(tmp_path_factory.mktemp("ssh"))
    except loopback.Unavailable as error:
        pytest.skip(str(error))
    yield running
    running.stop()


@pytest.fixture
def ssh(server, monkeypatch):
    """The client knows the server and has a key; returns the server."""
    monkeypatch.setenv("CCT_EXPORT_SSH", server.client()["CCT_EXPORT_SSH"])
    return server


@pytest.fixture(scope="session")
def ready(server, in_process):
    """The record of ``cct-bench device setup``, which installs engines on the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCT_EXPORT_SSH", server.client()["CCT_EXPORT_SSH"])
        python = ("--python", os.path.realpath(sys.executable))
        ended = in_process("bench", "device", "setup", "ssh:pi", *python, "--json", "-")
    if "pip" in ended.err and ended.code:
        pytest.skip(f"no package index: {ended.err.strip()[-300:]}")
    assert ended.code == 0, ended.err
    return ended.record["setup"]


@pytest.fixture
def connection(ssh):
    """A connection to the server."""
    with contextlib.closing(Connection("pi")) as opened:
        yield opened


@pytest.fixture
def small_disk(server):
    """A disk of 64 kB on the server."""
    folder = server.remote / "small"
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
