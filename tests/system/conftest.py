"""What these tests need of the system, fetched into temporary folders."""

import os
import shutil
import socket
import subprocess

import arm64 as emulated
import pytest
from debian_archive import Unavailable, unpack

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
        library = next(root.glob("usr/lib/*/libusb-1.0.so*")).parent
        real = root / "usr/lib/android-sdk/platform-tools/adb"
        program.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH={library}:{library}/android exec {real} "$@"\n'
        )
        program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
