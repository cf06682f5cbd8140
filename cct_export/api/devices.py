"""Machines behind ssh: preparing them for measurements, and clearing up."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cct_export.errors import InvalidRequest

if TYPE_CHECKING:
    from cct_export.bench.hosts.ssh import SSHHost
    from cct_export.bench.hosts.ssh_setup import Ready


def _silent(message: str) -> None:
    """Default progress: none."""


def setup_device(
    device: str,
    engines: Sequence[str] = ("litert", "onnxruntime"),
    offline: bool = False,
    python: str = "",
    progress: Callable[[str], None] = _silent,
) -> "Ready":
    """Puts engines on a machine behind ssh, in a virtual environment of their own.

    The versions are those of this machine where it has the engine, so that figures compare.

    Args:
        device: ``ssh:USER@HOST[:PORT]``.
        engines: ``litert``, ``onnxruntime`` or both.
        offline: download the wheels here and send them, for a machine without a package index.
        python: its Python, 3.11 or newer; empty for ``python3`` if that will do.
        progress: called with what is done now.

    Returns:
        Where it is, and which versions.

    Raises:
        InvalidRequest: no such device or engine.
        NotAvailable: the machine cannot be reached, or has no such Python.
        OutputError: the environment cannot be made; one that was there before stays.
    """
    from cct_export.bench.hosts import ssh_setup

    host = _ssh(device)
    try:
        return ssh_setup.set_up(host, engines, offline, python, progress)
    finally:
        host.close()


def remove_device(device: str) -> str:
    """Removes from a machine behind ssh all that this package ever put there.

    Args:
        device: ``ssh:USER@HOST[:PORT]``.

    Returns:
        The folder there that it was in.

    Raises:
        NotAvailable: the machine cannot be reached.
    """
    from cct_export.bench.hosts import ssh_setup

    host = _ssh(device)
    try:
        return ssh_setup.remove(host)
    finally:
        host.close()


def _ssh(device: str) -> "SSHHost":
    from cct_export.bench.hosts import ssh

    word, _, which = device.partition(":")
    if word != "ssh":
        raise InvalidRequest(f"{device} is not set up: that is for ssh:USER@HOST[:PORT]")
    return ssh.open_device(which)
