"""Measures what JPEG compression of the images costs a model.

``python benchmarks/robustness.py [MODEL ...] --data DATA`` prints top-1 on the test images as they
are and after JPEG compression, of the Keras model and of its int8 TFLite file.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

import cct_export
from cct_export import data as sources
from cct_export.data.dataset import Dataset
from cct_export.data.recompressed import QUALITY, JpegSplit
from cct_export.evaluation.accuracy import measure
from cct_export.runtimes import engine_of
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import Session
from cct_export.specs import DEFAULT_MODEL


@dataclass(frozen=True)
class Robustness:
    """Accuracy of a model on images as they are, and as JPEG.

    Attributes:
        model: as the commands take it.
        form: ``keras``, or the format and scheme of an export.
        images: number of test images.
        top1: on the images as they are, 0 to 1.
        jpeg_top1: on the same images after JPEG compression, 0 to 1.
    """

    model: str
    form: str
    images: int
    top1: float
    jpeg_top1: float


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--data", required=True, help="Images: cifar10, digits, a folder or an .npz.")
@click.option("--quality", type=click.IntRange(1, 100), default=QUALITY, help="Of the JPEG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def main(models: tuple[str, ...], data: str, quality: int, as_json: bool) -> None:
    """Print top-1 on test images as they are and after JPEG compression (4:2:0)."""
    rows = [row for model in models or (DEFAULT_MODEL,) for row in robustness(model, data, quality)]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    click.echo("| model | form | images | top-1 | top-1 as JPEG | difference |")
    click.echo("|---|---|---:|---:|---:|---:|")
    for row in rows:
        figures = f"{row.top1:.2%} | {row.jpeg_top1:.2%} | {100 * (row.jpeg_top1 - row.top1):+.2f}"
        click.echo(f"| {row.model} | {row.form} | {row.images:,} | {figures} |")


def robustness(model: str, data: str, quality: int) -> Iterator[Robustness]:
    """Measures the Keras model and its int8 TFLite file.

    Args:
        model: as the commands take it.
        data: as the commands take ``--data``.
        quality: of libjpeg, 1 to 100.
    """
    loaded = cct_export.load(model)
    dataset = sources.read(data, loaded.image_shape, resize=loaded.resize)
    yield _measured(model, "keras", KerasSession(loaded), dataset, quality)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.tflite")
        exported = cct_export.export_tflite(loaded, output=path, scheme="int8")
        if not exported.parity.passed:
            raise click.ClickException("; ".join(exported.parity.failures))
        with closing(engine_of("tflite").open_session(path, trusted=True)) as session:
            yield _measured(model, "tflite int8", session, dataset, quality)


def _measured(
    model: str, form: str, session: Session, dataset: Dataset, quality: int
) -> Robustness:
    compressed = replace(dataset, test=JpegSplit(dataset.test, quality))
    plain, jpeg = (measure(session, dataset=each).accuracy for each in (dataset, compressed))
    return Robustness(model, form, plain.samples, plain.top1, jpeg.top1)


if __name__ == "__main__":
    main()
