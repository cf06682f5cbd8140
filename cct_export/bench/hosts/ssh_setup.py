"""Putting an engine on a machine behind ssh: a virtual environment of its own there."""

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cct_export import machine
from cct_export.bench.hosts.host import Say
from cct_export.bench.hosts.ssh import SSHHost
from cct_export.errors import InvalidRequest, NotAvailable, OutputError
from cct_export.files import sha256

ENGINES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime"}
# What a worker imports beside the engine.
_NEEDED = ("msgspec", "numpy", "psutil")
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
# Each setup makes a folder of its own, $2, and venv is a link to that of the last one that was
# complete: it is never away, whoever else sets up or measures. What an interrupted one left is
# removed by a later one.
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
        folder: everything is below that, there.
        python: version of its Python.
        versions: what was installed.
    """

    device: str
    folder: str
    python: str
    versions: dict[str, str]


def set_up(host: SSHHost, engines: Sequence[str], offline: bool, python: str, say: Say) -> Ready:
    """Makes an environment with engines on ``host``; one that was there is replaced.

    Args:
        host: the machine.
        engines: of ``ENGINES``.
        offline: download the wheels here and send them, for a machine without a package index.
        python: its Python, empty to look for one.
        say: called with what is done now.

    Raises:
        InvalidRequest: no such engine.
        NotAvailable: the machine cannot be reached, or has no Python that is new enough.
        OutputError: the environment cannot be made there; what was there before stays.
    """
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines:
        raise InvalidRequest(f"no engine {unknown}: choose from {', '.join(ENGINES)}")
    say(f"connecting to {host.name}")
    found = _python(host, python)
    wanted, new = _requirements(engines), f"venv.{secrets.token_hex(6)}"
    say(f"making an environment with Python {'.'.join(map(str, found['version']))}")
    try:
        host.connection.run(_MAKE, host.root, new, found["python"], limit_s=_PIP_S)
    except OutputError as error:
        raise OutputError(
            f"{error} (a virtual environment cannot be made there; on Raspberry Pi OS "
            "`sudo apt install python3-venv` brings what is missing)"
        ) from error
    options = _sent(host, wanted, found, say) if offline else []
    host.connection.run(_INSTALL, host.root, new, *options, *wanted, limit_s=_PIP_S, say=say)
    host.connection.run(_READY, host.root, new, limit_s=_PIP_S)
    fresh = SSHHost(host.connection)  # the old one knows that there was no environment
    facts = fresh.describe()
    return Ready(host.name, host.root, facts.python, facts.versions)


def remove(host: SSHHost) -> str:
    """Removes from ``host`` all that this package ever put there; returns the folder it was in."""
    host.connection.run(_REMOVE, host.root, limit_s=_PIP_S)
    return host.root


def _python(host: SSHHost, python: str) -> dict[str, Any]:
    newer = [f"python3.{minor}" for minor in (13, 12, 11)]
    printed = host.connection.run(_FIND, *([python] if python else ["python3", *newer]))
    seen = [
        json.loads(line.partition(":")[2])
        for line in printed.splitlines()
        if line.startswith("cct-export:")
    ]
    if not seen:
        raise NotAvailable(
            f"{host.name} has no {python or 'python3'}: install Python 3.11 or newer"
        )
    facts: dict[str, Any] = seen[-1]
    if tuple(facts["version"]) < _OLDEST_PYTHON:
        raise NotAvailable(
            f"{host.name} has Python {'.'.join(map(str, facts['version']))}, and 3.11 is needed: "
            "--python names another"
        )
    return facts


def _requirements(engines: Sequence[str]) -> list[str]:
    """Returns what pip installs there: the versions that are here, so that figures compare."""
    names = [*_NEEDED, *(ENGINES[engine] for engine in engines)]
    here = machine.versions(*names)
    return [f"{name}=={here[name]}" if name in here else name for name in names]


def platforms(architecture: str, libc: Sequence[str]) -> list[str]:
    """Returns the platform tags of wheels that a machine takes, the newest first.

    Args:
        architecture: such as ``aarch64``.
        libc: name and version of its C library, as ``platform.libc_ver`` gives them.

    Raises:
        NotAvailable: it is no glibc, which the engines' wheels are made for.
    """
    name, version = libc
    if name != "glibc":
        raise NotAvailable(
            f"the engines' wheels are made for glibc, not {name or 'an unknown C library'}"
        )
    newest = int(version.split(".")[1])
    tags = []
    for minor in range(newest, 16, -1):
        tags.append(f"manylinux_2_{minor}_{architecture}")
        if minor in _TAGS:
            tags.append(f"{_TAGS[minor]}_{architecture}")
    return tags


def _sent(host: SSHHost, wanted: Sequence[str], found: dict[str, Any], say: Say) -> list[str]:
    """Downloads wheels for ``host`` here, sends them, and returns pip's options there."""
    with tempfile.TemporaryDirectory() as folder:
        say("downloading wheels")
        chosen = [f"--platform={tag}" for tag in platforms(found["machine"], found["libc"])]
        version = ".".join(map(str, found["version"]))
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet",
                "--only-binary=:all:", "--implementation=cp", f"--python-version={version}",
                *chosen, "--dest", folder, *wanted,
            ],
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise NotAvailable(f"cannot download wheels for {found['machine']}: {last}")
        for wheel in sorted(Path(folder).iterdir()):
            host.connection.send(wheel, f"{host.root}/wheels", sha256(wheel), say)
    return ["--no-index", "--find-links", f"{host.root}/wheels"]
