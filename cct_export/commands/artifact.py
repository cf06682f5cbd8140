"""``cct-export verify``, ``predict``, ``bundle`` and ``doctor``."""

from pathlib import Path

import click

from cct_export.commands import options
from cct_export.commands.options import DATASETS, ExitCode, Outcome
from cct_export.commands.types import Model, OneOf
from cct_export.specs import PARITY_SAMPLES


@click.command()
@click.argument("artifact", type=options.ARTIFACT)
@click.option(
    "--against", type=Model(), help="Compare with this model, not the one recorded in the file."
)
@click.option("--data", type=options.DATA, help=f"Images to compare on: {DATASETS}.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=PARITY_SAMPLES,
    help="Test images to verify parity on.",
)
@options.common
def verify(artifact: str, against: str | None, data: str | None, samples: int) -> Outcome:
    """Verify numerical parity of ARTIFACT, run by its own engine, with its Keras model.

    Ends with 3 if parity fails. The file is not changed.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.files import sha256
    from cct_export.report.export import show_parity

    report = api.verify(artifact, against=against, data=data, samples=samples)
    show_parity(report)
    path = Path(artifact)
    file = {
        "path": artifact,
        "format": path.suffix[1:],
        "scheme": report.scheme,
        "size_bytes": path.stat().st_size,
        "sha256": sha256(path),
    }
    return Outcome(
        {"artifact": file, "parity": report.to_dict()},
        ExitCode.PASSED if report.passed else ExitCode.PARITY_FAILED,
    )


@click.command()
@click.argument("source", type=Model("ARTIFACT|MODEL"))
@click.argument("images", type=options.FILE, metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, help="Classes per image.")
@options.common
def predict(source: str, images: tuple[str, ...], top: int) -> Outcome:
    """Classify PNG or JPEG files: the best classes with their probabilities."""
    from cct_export import api
    from cct_export.report.export import show_predictions

    predictions = api.predict(source, images=images, top=top)
    show_predictions(predictions)
    return Outcome(
        {"source": source, "predictions": [prediction.to_dict() for prediction in predictions]}
    )


@click.command()
@click.argument("artifact", type=options.ARTIFACT)
@click.option(
    "--target",
    required=True,
    type=OneOf(("raspberry-pi", "android", "linux-cpp"), "NAME"),
    help="Device to make it for: raspberry-pi, android or linux-cpp.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to make; by default named after file and target.",
)
@options.common
def bundle(artifact: str, target: str, output: Path | None) -> Outcome:
    """Make a folder with ARTIFACT and the code that tests and runs it on a device.

    ARTIFACT is a .tflite or .onnx file that cct-export wrote, with its .json beside it.
    """
    from cct_export import api

    folder = api.bundle(artifact, target=target, output=output)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    size = sum((folder / name).stat().st_size for name in files)
    click.echo(f"{folder}: {target}, {len(files)} files, {size:,} bytes; see its README.md")
    return Outcome(
        {"bundle": {"path": folder, "target": target, "size_bytes": size, "files": files}}
    )


@click.command()
@options.common
def doctor() -> Outcome:
    """List the engines and delegates that work on this machine, and why others do not.

    Runs a small CCT on each, in a process of its own, and compares its logits with Keras.
    """
    from cct_export import api, machine
    from cct_export.report.export import show_diagnosis
    from cct_export.report.terminal import status

    with status() as progress:
        delegates = api.doctor(progress=progress)
    facts = machine.describe()
    show_diagnosis(facts, delegates)
    return Outcome({"machine": facts, "delegates": delegates})
