"""Readers of data as commands: thousands of files a minute go through the programs' own errors."""

from pathlib import Path

import click

from cct_export.commands import options
from cct_export.commands.group import Group
from cct_export.commands.options import Outcome

SHAPE = (8, 8, 3)
# Images of a split that are decoded.
DECODED = 32


@click.command()
@click.argument("name")
@click.option("--skip", is_flag=True)
@options.common
def read(name: str, skip: bool) -> Outcome:
    """Read images as ``--data`` does, and decode the first ones."""
    from cct_export import data

    dataset = data.read(name, SHAPE, "skip" if skip else "refuse")
    for split in (dataset.train, dataset.test):
        split.images(range(min(DECODED, len(split.labels))))
    return Outcome({"classes": dataset.classes, "images": len(dataset.train.labels)})


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--grey", is_flag=True)
@options.common
def decode(path: Path, grey: bool) -> Outcome:
    """Decode an image as ``predict`` does."""
    from cct_export.data import decoding

    pixels, size = decoding.decode(path, (*SHAPE[:2], 1 if grey else 3))
    return Outcome({"shape": pixels.shape, "size": size})


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@options.common
def statistics(path: Path) -> Outcome:
    """Read a calibration record as an export does."""
    from cct_export.quantize import statistics

    return Outcome({"data": str(type(statistics.load(path)).__name__)})


READERS = Group(
    name="read", commands={"data": read, "image": decode, "statistics": statistics}
)  # fmt: skip
