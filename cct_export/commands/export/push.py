"""``cct-export push``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options


@click.command()
@click.argument("hub_id")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default="runs/cct",
    help="Run directory.",
)
@click.option(
    "--artifact",
    "artifacts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    help="A .tflite or .onnx file made of the run, sent with its sidecar; may be repeated.",
)
@click.option(
    "--license",
    metavar="ID",
    help="For the model card, as the Hub calls it, such as apache-2.0; by default none is said.",
)
@click.option(
    "--revision",
    metavar="BRANCH",
    help="Branch to commit to, made if there is none; by default main.",
)
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--dry-run", is_flag=True, help="Send nothing, and list what would be sent.")
@options.common
def command(hub_id: str, run: Path, artifacts: tuple[Path, ...], **how: Any) -> dict[str, Any]:
    """Send a finished run to the Hugging Face Hub as HUB_ID (OWNER/NAME).

    The repository is made if there is none, and gets the model card, the best weights, the record,
    metrics, pictures and the calibration record in one commit; the state to resume from stays here.
    The token is that of `hf auth login`, or HF_TOKEN.
    """
    from cct_export import api
    from cct_export.report import console

    pushed = api.push(hub_id, run=run, artifacts=artifacts, **how)
    console.pushed(pushed)
    return {"pushed": pushed.to_dict()}
