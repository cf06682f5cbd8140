"""A machine for arm64 without one: Debian's Python and the libraries' wheels, run by QEMU.

There is no chroot and no container. QEMU in user mode looks for an arm64 program's files below a
folder first; the packages are unpacked there.
"""

import subprocess
import sys
import time

import debian_archive

# Of bookworm, the release's own QEMU crashes in both engines.
QEMU = "qemu-user"
SYSTEM = ("python3", "libstdc++6")
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)]
RUN_S = 300
# Engines choose their kernels by what the processor can do.
PI_4, PI_5 = "cortex-a72", "cortex-a76"


class Machine:
    """An emulated machine.

    Args:
        folder: everything is fetched to it.

    Attributes:
        version: of its Python, such as ``3.11``.
        fetched_s: seconds that it took to fetch the system.

    Raises:
        debian_archive.Unavailable: no Debian, no network, no such package, or it does not run.
    """

    def __init__(self, folder):
        start = time.monotonic()
        self._folder = folder
        found = debian_archive.unpack(folder / "qemu", QEMU, backports=True)
        self._qemu = found / "usr" / "bin" / "qemu-aarch64"
        self._root = debian_archive.unpack(folder / "system", *SYSTEM, architecture="arm64")
        if not (self._root / "lib").exists():  # from trixie on everything is below usr
            (self._root / "lib").symlink_to("usr/lib")
        (self._python,) = self._root.glob("usr/bin/python3.[0-9]*")
        self.version = self._python.name.removeprefix("python")
        said = "import platform; print(platform.machine())"
        done = self.run(None, "-c", said, cwd=folder)
        if done.stdout.strip() != "aarch64":
            raise debian_archive.Unavailable(f"QEMU runs no Python: {done.stderr.strip()[-300:]}")
        self.fetched_s = time.monotonic() - start

    def install(self, name, requirements):
        """Installs the wheels for this machine into a folder, as pip would on it.

        Args:
            name: of the folder.
            requirements: a file for pip.

        Returns:
            The folder, for ``run``.

        Raises:
            debian_archive.Unavailable: no network, or no such wheel.
        """
        site = self._folder / name
        tags = [part for tag in PLATFORMS for part in ("--platform", tag)]
        kind = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.version]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        debian_archive.run(*pip, "--target", site, *kind, *tags, "-r", requirements)
        return site

    def run(self, site, *arguments, cwd, processor=PI_5):
        """Runs Python; returns the finished process.

        Args:
            site: what ``install`` returned, None for the standard library only.
            arguments: of Python.
            cwd: the working directory.
            processor: as QEMU names it.
        """
        environment = {"HOME": str(cwd), "LC_ALL": "C.UTF-8"}
        if site is not None:
            environment["PYTHONPATH"] = str(site)
        command = [self._qemu, "-cpu", processor, "-L", self._root, self._python, *arguments]
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=RUN_S,
        )  # fmt: skip
