"""``cct-export bundle``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options


@click.command()
@click.argument("artifact")
@click.option(
    "--target",
    required=True,
    metavar="NAME",
    help="What it is for: raspberry-pi, android or linux-cpp.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to make; by default named after file and target.",
)
@options.common
def command(artifact: str, target: str, output: Path | None) -> dict[str, Any]:
    """Make a folder of ARTIFACT that can be put on a device, proves itself there, and runs.

    ARTIFACT is a .tflite or .onnx file that this toolkit exported, with its .json beside it.
    """
    from cct_export import api

    made = api.bundle(artifact, target=target, output=output)
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    size = sum((made / name).stat().st_size for name in files)
    click.echo(f"{made}: {target}, {len(files)} files, {size:,} bytes; README.md says how to go on")
    return {"bundle": {"path": str(made), "target": target, "size_bytes": size, "files": files}}
