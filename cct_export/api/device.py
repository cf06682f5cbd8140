"""Devices: engines and delegates of this machine, and preparing machines behind ssh."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cct_export.errors import InvalidRequest
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.bench.hosts.ssh import SSHHost
    from cct_export.bench.hosts.ssh_setup import Ready
    from cct_export.records import Diagnosis


def doctor(*, progress: StatusProgress = no_progress) -> "list[Diagnosis]":
    """Runs a small CCT on every engine and delegate of this machine.

    Args:
        progress: called with what runs now.

    Returns:
        Every engine with every delegate: whether it works, and if not, why.

    Raises:
        OSError: no process can be started.

    Example:
        >>> [row.delegate for row in cct_export.doctor() if row.works]
    """
    from cct_export.bench.doctor import examine
    from cct_export.bench.protocol import start_worker

    return examine(start_worker, progress)


def setup_device(
    device: str,
    *,
    engines: Sequence[str] = ("litert", "onnxruntime"),
    offline: bool = False,
    python: str = "",
    progress: StatusProgress = no_progress,
) -> "Ready":
    """Installs engines on a machine behind ssh, in a virtual environment of their own.

    The versions are those of this machine where it has the engine, so that figures compare.

    Args:
        device: ``ssh:USER@HOST[:PORT]``.
        engines: some of ``litert``, ``onnxruntime`` and ``openvino``.
        offline: download the wheels here and send them, for a machine without a package index.
        python: its Python, 3.11 or newer; empty for ``python3`` if that is new enough.
        progress: called with what runs now.

    Returns:
        Where the environment is, and which versions it has.

    Raises:
        InvalidRequest: no such device or engine.
        NotAvailable: the machine cannot be reached, or has no such Python.
        OutputError: the environment cannot be made; one that was there before stays.

    Example:
        >>> cct_export.setup_device("ssh:pi@raspberrypi.local", engines=["litert"]).versions
    """
    from cct_export.bench.hosts import ssh_setup

    host = _ssh(device)
    try:
        return ssh_setup.set_up(host, engines, offline, python, progress)
    finally:
        host.close()


def remove_device(device: str) -> str:
    """Removes everything that this package installed on a machine behind ssh.

    Args:
        device: ``ssh:USER@HOST[:PORT]``.

    Returns:
        The folder on that machine that it was in.

    Raises:
        NotAvailable: the machine cannot be reached.

    Example:
        >>> cct_export.remove_device("ssh:pi@raspberrypi.local")
    """
    from cct_export.bench.hosts import ssh_setup

    host = _ssh(device)
    try:
        return ssh_setup.remove(host)
    finally:
        host.close()


def _ssh(device: str) -> "SSHHost":
    from cct_export.bench.hosts.ssh import SSHHost

    kind, _, address = device.partition(":")
    if kind != "ssh":
        raise InvalidRequest(f"{device} is not set up: that is for ssh:USER@HOST[:PORT]")
    return SSHHost.at(address)
