"""What these tests need of the system, fetched into temporary folders."""

import os
import shutil
import socket
import subprocess

import apt_packages
import pytest
import vulkan as lavapipe


@pytest.fixture(scope="session")
def vulkan(tmp_path_factory):
    """The variables with which a child process finds a software Vulkan."""
    try:
        return lavapipe.environment(tmp_path_factory.mktemp("vulkan"))
    except lavapipe.Unavailable as error:
        pytest.skip(f"no software Vulkan: {error}")


@pytest.fixture(scope="session")
def adb_program(tmp_path_factory):
    """The real program ``adb``, with a server of its own that is gone afterwards."""
    folder = tmp_path_factory.mktemp("adb")
    program = shutil.which("adb")
    if program is None:
        program = folder / "adb"
        try:
            root = apt_packages.unpacked(folder, "adb")
        except apt_packages.Unavailable as error:
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
