"""arm64 under emulation: Debian's Python with the libraries' arm64 wheels, run by QEMU.

It needs no chroot and no container: QEMU in user mode looks for an arm64 program's files below a
folder first, and the packages are unpacked there.
"""

import subprocess
import sys

import debian_archive

# From backports: bookworm's own QEMU crashes in both engines.
QEMU = "qemu-user"
SYSTEM = ("python3", "libstdc++6")
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)]
TIMEOUT_S = 300
# Engines choose kernels by the processor's features.
PI_4, PI_5 = "cortex-a72", "cortex-a76"


class Machine:
    """An emulated machine.

    Args:
        folder: where everything is downloaded to.

    Attributes:
        version: of its Python, such as ``3.11``.

    Raises:
        debian_archive.Unavailable: no Debian, no network, no such package, or it does not run.
    """

    def __init__(self, folder):
        self._folder = folder
        qemu = debian_archive.unpack(folder / "qemu", QEMU, backports=True)
        self._qemu = qemu / "usr" / "bin" / "qemu-aarch64"
        self._root = debian_archive.unpack(folder / "system", *SYSTEM, architecture="arm64")
        if not (self._root / "lib").exists():  # from trixie on, everything is below usr
            (self._root / "lib").symlink_to("usr/lib")
        (self._python,) = self._root.glob("usr/bin/python3.[0-9]*")
        self.version = self._python.name.removeprefix("python")
        process = self.run(None, "-c", "import platform; print(platform.machine())", cwd=folder)
        if process.stdout.strip() != "aarch64":
            message = process.stderr.strip()[-300:]
            raise debian_archive.Unavailable(f"QEMU cannot run Python: {message}")

    def install(self, name, requirements):
        """Installs arm64 wheels into a folder, as pip would on the machine.

        Args:
            name: of the folder.
            requirements: pip's requirements file.

        Returns:
            The folder, for ``run``.

        Raises:
            debian_archive.Unavailable: no network, or no such wheel.
        """
        site = self._folder / name
        tags = [part for tag in PLATFORMS for part in ("--platform", tag)]
        python = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.version]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        debian_archive.run(*pip, "--target", site, *python, *tags, "-r", requirements)
        return site

    def run(self, site, *arguments, cwd, processor=PI_5):
        """Runs Python on the machine; returns the finished process.

        Args:
            site: what ``install`` returned, None for the standard library only.
            arguments: of Python.
            cwd: the working directory.
            processor: name of a CPU model of QEMU.
        """
        environment = {"HOME": str(cwd), "LC_ALL": "C.UTF-8"}
        if site is not None:
            environment["PYTHONPATH"] = str(site)
        command = [self._qemu, "-cpu", processor, "-L", self._root, self._python, *arguments]
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
