"""``cct-bench device``: machines behind ssh."""

from dataclasses import asdict
from typing import Any

import click

from cct_export.commands import options


@click.group()
def command() -> None:
    """Prepare machines behind ssh, such as a Raspberry Pi, for measuring on them."""


@command.command()
@click.argument("device")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["litert", "onnxruntime"]),
    multiple=True,
    default=("litert", "onnxruntime"),
    help="Engine to install; may be repeated.",
)
@click.option("--offline", is_flag=True, help="Download the wheels here, and send them.")
@click.option(
    "--python", default="", help="The device's Python, 3.11 or newer; python3 if that will do."
)
@options.common
def setup(device: str, engines: tuple[str, ...], offline: bool, python: str) -> dict[str, Any]:
    """Put engines on DEVICE, ssh:USER@HOST[:PORT], into a folder of their own.

    It needs Python 3.11 or newer with venv, and a package index unless --offline is said.
    """
    from cct_export import api
    from cct_export.report.progress import saying

    with saying() as say:
        ready = api.setup_device(
            device, engines=engines, offline=offline, python=python, progress=say
        )
    found = ", ".join(f"{name} {version}" for name, version in ready.versions.items())
    click.echo(f"{ready.device}: Python {ready.python}, {found}, in {ready.folder}")
    return {"setup": asdict(ready)}


@command.command()
@click.argument("device")
@options.common
def remove(device: str) -> dict[str, Any]:
    """Remove from DEVICE, ssh:USER@HOST[:PORT], all that cct-bench put there."""
    from cct_export import api

    folder = api.remove_device(device)
    click.echo(f"{device}: nothing of cct-bench is left in {folder}")
    return {"removed": {"device": device, "folder": folder}}
