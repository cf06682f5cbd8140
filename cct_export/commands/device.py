"""``cct-bench device``: machines behind ssh."""

import click

from cct_export.commands import options
from cct_export.commands.group import Group
from cct_export.commands.options import Outcome
from cct_export.commands.types import OneOf

# What a device can get by "cct-bench device", and what it gets by default.
ENGINES = ("litert", "onnxruntime", "openvino")
DEFAULT_ENGINES = ENGINES[:2]


@click.group(cls=Group)
def device() -> None:
    """Prepare a machine behind ssh, such as a Raspberry Pi, for measuring on it."""


@device.command()
@click.argument("device")
@click.option(
    "--engine",
    "engines",
    type=OneOf(ENGINES),
    multiple=True,
    default=DEFAULT_ENGINES,
    help="Engine to install; may be repeated.",
)
@click.option("--offline", is_flag=True, help="Download the wheels here and send them.")
@click.option(
    "--python",
    default="",
    help="The device's Python, 3.11 or newer; by default python3 if it is new enough.",
)
@options.common
def setup(device: str, engines: tuple[str, ...], offline: bool, python: str) -> Outcome:
    """Install engines on DEVICE, ssh:USER@HOST[:PORT], in a virtual environment of their own.

    Needs Python 3.11 or newer with venv, and a package index unless --offline is set.
    """
    from cct_export import api
    from cct_export.report.terminal import say, status

    with status() as progress:
        ready = api.setup_device(
            device, engines=engines, offline=offline, python=python, progress=progress
        )
    versions = ", ".join(f"{name} {version}" for name, version in ready.versions.items())
    facts = f"Python {ready.python}, {versions}, in {ready.folder}"
    return Outcome({"setup": ready}, show=lambda: say(f"{ready.device}: {facts}"))


@device.command()
@click.argument("device")
@options.common
def remove(device: str) -> Outcome:
    """Remove everything that cct-bench installed on DEVICE, ssh:USER@HOST[:PORT]."""
    from cct_export import api
    from cct_export.report.terminal import say

    folder = api.remove_device(device)
    return Outcome(
        {"removed": {"device": device, "folder": folder}},
        show=lambda: say(f"{device}: removed {folder}"),
    )
