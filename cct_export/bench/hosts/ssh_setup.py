"""Installing engines on a machine behind ssh, in a virtual environment of their own."""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cct_export import machine
from cct_export.bench.hosts.ssh import SSHHost
from cct_export.errors import InvalidRequest, NotAvailable, OutputError
from cct_export.files import sha256
from cct_export.names import choose
from cct_export.records.encoding import from_json, parse_json
from cct_export.specs.progress import StatusProgress

ENGINES = {
    "litert": ("ai-edge-litert",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "ai-edge-litert"),
}
# What a worker imports besides the engine.
REQUIREMENTS = ("msgspec", "numpy", "psutil")
_PIP_S = 1800.0
_OLDEST_PYTHON = (3, 11)
# manylinux tags that wheels are named by; others are of the form manylinux_2_N.
_TAGS = {17: "manylinux2014"}

_FIND = """
echo
for python in "$@"; do
    command -v "$python" >/dev/null 2>&1 && "$python" -c '
import json, platform, sys
print("cct-export:" + json.dumps({
    "python": sys.executable, "version": sys.version_info[:2],
    "machine": platform.machine(), "libc": platform.libc_ver(),
}))
sys.exit(sys.version_info < (3, 11))
' && exit 0
done
exit 0
"""
# Each setup makes a folder of its own, $2, and venv is a link to that of the last complete one, so
# that other commands always find one. A later setup removes what an interrupted one left.
_MAKE = """
cd "$1" || exit 1
find . -maxdepth 1 -name 'venv.*' ! -name "$(readlink venv)" -mmin +120 -exec rm -rf {} +
"$3" -m venv "$2" || { rm -rf "$2"; exit 1; }
"""
_INSTALL = """
cd "$1" || exit 1
new=$2
shift 2
"$new/bin/python" -m pip install --disable-pip-version-check --only-binary=:all: "$@" 2>&1 &&
exit 0
rm -rf "$new"
exit 1
"""
_READY = """
cd "$1" || exit 1
before=$(readlink venv)
ln -s "$2" "$2.link" && mv -T "$2.link" venv || { rm -rf "$2" "$2.link"; exit 1; }
rm -rf ${before:+"$before"} wheels
"""
# By name: the same folder holds what cct-export itself keeps, where that is used there, too.
_REMOVE = """
cd "$1" || exit 1
rm -rf venv venv.* wheels code artifacts data || exit 1
cd .. && rmdir "$1" 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Ready:
    """A machine that was set up.

    Attributes:
        device: its name.
        folder: on the machine; everything is below it.
        python: version of its Python.
        versions: of the engines and numpy.
    """

    device: str
    folder: str
    python: str
    versions: dict[str, str]


@dataclass(frozen=True)
class _RemotePython:
    """A Python on the machine, as ``_FIND`` prints it.

    Attributes:
        python: its path.
        version: major and minor.
        machine: architecture, such as ``aarch64``.
        libc: name and version of the C library.
    """

    python: str
    version: tuple[int, int]
    machine: str
    libc: tuple[str, str]

    @property
    def dotted(self) -> str:
        """The version as text."""
        return ".".join(map(str, self.version))


def set_up(
    host: SSHHost, engines: Sequence[str], offline: bool, python: str, progress: StatusProgress
) -> Ready:
    """Installs engines on ``host``, in an environment that replaces any earlier one.

    Args:
        host: the machine.
        engines: of ``ENGINES``.
        offline: download the wheels here and send them, for a machine without a package index.
        python: path or name of its Python; empty to look for one.
        progress: called with what runs now.

    Raises:
        InvalidRequest: no such engine.
        NotAvailable: the machine cannot be reached, or has no Python that is new enough.
        OutputError: the environment cannot be made; the earlier one stays.
    """
    engines = [choose(name, ENGINES, what="engine") for name in engines]
    if not engines:
        raise InvalidRequest(f"no engine to install: choose from {', '.join(ENGINES)}")
    progress(f"connecting to {host.name}")
    remote = _find_python(host, python)
    requirements, folder = _requirements(engines), f"venv.{secrets.token_hex(6)}"
    progress(f"making an environment with Python {remote.dotted}")
    try:
        host.connection.run(_MAKE, host.root, folder, remote.python, limit_s=_PIP_S)
    except OutputError as error:
        raise OutputError(
            f"{error} (a virtual environment cannot be made there; on Raspberry Pi OS "
            "`sudo apt install python3-venv` brings what is missing)"
        ) from error
    options = _send_wheels(host, requirements, remote, progress) if offline else []
    host.connection.run(
        _INSTALL, host.root, folder, *options, *requirements, limit_s=_PIP_S, progress=progress
    )
    host.connection.run(_READY, host.root, folder, limit_s=_PIP_S)
    # The host object has cached that there was no environment.
    info = SSHHost(host.connection).describe()
    return Ready(host.name, host.root, info.python, info.versions)


def remove(host: SSHHost) -> str:
    """Removes everything that this package put on ``host``; returns the folder it was in."""
    host.connection.run(_REMOVE, host.root, limit_s=_PIP_S)
    return host.root


def _find_python(host: SSHHost, python: str) -> _RemotePython:
    newer = [f"python3.{minor}" for minor in (13, 12, 11)]
    output = host.connection.run(_FIND, *([python] if python else ["python3", *newer]))
    candidates = [
        from_json(parse_json(line.partition(":")[2]), _RemotePython)
        for line in output.splitlines()
        if line.startswith("cct-export:")
    ]
    if not candidates:
        raise NotAvailable(
            f"{host.name} has no {python or 'python3'}: install Python 3.11 or newer"
        )
    if candidates[-1].version < _OLDEST_PYTHON:
        raise NotAvailable(
            f"{host.name} has Python {candidates[-1].dotted}, and 3.11 is needed: "
            "--python names another"
        )
    return candidates[-1]


def _requirements(engines: Sequence[str]) -> list[str]:
    """Returns what pip installs: the versions of this machine, so that figures compare."""
    packages = [package for engine in engines for package in ENGINES[engine]]
    names = dict.fromkeys((*REQUIREMENTS, *packages))
    local = machine.versions(*names)
    return [f"{name}=={local[name]}" if name in local else name for name in names]


def platforms(architecture: str, libc: Sequence[str]) -> list[str]:
    """Returns the platform tags of wheels that a machine takes, the newest first.

    Args:
        architecture: such as ``aarch64``.
        libc: name and version of its C library, as ``platform.libc_ver`` gives them.

    Raises:
        NotAvailable: it is not glibc, which the engines' wheels are built for.
    """
    name, version = libc
    if name != "glibc":
        raise NotAvailable(
            f"the engines' wheels are built for glibc, not {name or 'an unknown C library'}"
        )
    newest = int(version.split(".")[1])
    tags = []
    for minor in range(newest, 16, -1):
        tags.append(f"manylinux_2_{minor}_{architecture}")
        if minor in _TAGS:
            tags.append(f"{_TAGS[minor]}_{architecture}")
    return tags


def _send_wheels(
    host: SSHHost, requirements: Sequence[str], remote: _RemotePython, progress: StatusProgress
) -> list[str]:
    """Downloads wheels for ``host``, sends them, and returns the options of its pip."""
    with tempfile.TemporaryDirectory() as folder:
        progress("downloading wheels")
        tags = [f"--platform={tag}" for tag in platforms(remote.machine, remote.libc)]
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet",
                "--only-binary=:all:", "--implementation=cp", f"--python-version={remote.dotted}",
                *tags, "--dest", folder, *requirements,
            ],
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise NotAvailable(f"cannot download wheels for {remote.machine}: {reason}")
        for wheel in sorted(Path(folder).iterdir()):
            host.connection.send(wheel, f"{host.root}/wheels", sha256(wheel), progress)
    return ["--no-index", "--find-links", f"{host.root}/wheels"]
