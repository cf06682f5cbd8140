"""``cct-export verify``, ``predict``, ``bundle`` and ``doctor``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cct_export.commands import messages, options
from cct_export.commands.options import DATASETS, ExitCode, Outcome
from cct_export.commands.outputs import TableFiles, table_files
from cct_export.commands.types import Model, Number, OneOf, Output
from cct_export.errors import InvalidData
from cct_export.specs import DEFAULT_MODEL, SIZE
from cct_export.text import plural


@click.command()
@click.argument("artifact", type=options.ARTIFACT)
@click.option(
    "--against", type=Model(), help="Compare with this model, not the one recorded in the file."
)
@click.option("--data", type=options.DATA, help=f"Images to compare on: {DATASETS}.")
@options.parity_samples
@options.softmax
@options.loading
@options.common
def verify(artifact: str, parity_samples: int, **arguments: Any) -> Outcome:
    """Verify numerical parity of ARTIFACT, run by its own engine, with its Keras model.

    Ends with 3 if parity fails. The file is not changed.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.files import sha256
    from cct_export.records import weights
    from cct_export.report.export import show_parity
    from cct_export.report.terminal import status
    from cct_export.runtimes import format_of

    with status() as progress:
        report = api.verify(artifact, samples=parity_samples, progress=progress, **arguments)
    path = Path(artifact)
    file = {
        "path": artifact,
        "format": format_of(path),
        "scheme": report.scheme,
        "size_bytes": weights.size_of(path),
        "sha256": sha256(path),
    }
    return Outcome(
        {"artifact": file, "parity": report.to_dict()},
        ExitCode.PASSED if report.passed else ExitCode.PARITY_FAILED,
        show=lambda: show_parity(report),
    )


@click.command()
@click.argument("names", type=Model(), metavar="[ARTIFACT|MODEL] IMAGE...", nargs=-1, required=True)
@click.option("--top", type=Number(SIZE), default=5, help="Classes per image.")
@click.option(
    "--allow-changed",
    is_flag=True,
    help="Classify with a file that has changed since it was exported; by default it is refused.",
)
@options.loading
@table_files
@options.common
def predict(names: tuple[str, ...], files: TableFiles, **arguments: Any) -> Outcome:
    """Classify images: the best classes with their probabilities.

    IMAGE is a PNG, JPEG, WebP, BMP or TIFF file, a folder with such files at any depth, or a quoted
    pattern such as "photos/*.jpg" or "photos/**/*.png". Without ARTIFACT or MODEL the shipped
    CIFAR-10 model classifies. Images that cannot be read are reported, and the command ends with 1.
    """
    from cct_export import api
    from cct_export.evaluation.images import find_images
    from cct_export.report import predictions as report
    from cct_export.report.terminal import status

    source, images = _source_and_images(names)
    paths = find_images(images)
    unreadable: list[InvalidData] = []

    def report_unreadable(error: InvalidData) -> None:
        unreadable.append(error)
        messages.report(error)

    with status() as progress:
        predictions = api.predict(
            source,
            images=paths,
            on_prediction=lambda prediction: report.show_prediction(prediction, len(paths)),
            on_unreadable=report_unreadable,
            progress=progress,
            **arguments,
        )
    rows = report.prediction_rows(predictions)
    return Outcome(
        {"source": source, "predictions": [prediction.to_dict() for prediction in predictions]},
        InvalidData.exit_code if unreadable else ExitCode.PASSED,
        files=files.of_table(report.prediction_columns(), rows, report.PredictionRow),
    )


def _source_and_images(names: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Returns the model and the images of ``[ARTIFACT|MODEL] IMAGE...``."""
    from cct_export.evaluation.images import names_images
    from cct_export.runtimes import is_artifact

    source, images = (DEFAULT_MODEL, names) if names_images(names[0]) else (names[0], names[1:])
    if not images:
        raise click.UsageError(
            f"Missing argument 'IMAGE...': {source} is taken as the model, for it is neither an "
            "image (.png, .jpg, …) nor a folder or pattern of images"
        )
    for name in images:
        if is_artifact(Path(name)):
            raise click.UsageError(f"{name} is no image: name the model before the images")
    return source, images


@click.command()
@click.argument("artifact", type=options.ARTIFACT)
@click.option(
    "--target",
    required=True,
    type=OneOf(("raspberry-pi", "android", "linux-cpp", "microcontroller"), "NAME"),
    help="Device to make it for: raspberry-pi, android, linux-cpp or microcontroller.",
)
@click.option(
    "-o",
    "--output",
    type=Output(),
    help="Folder to make; by default named after file and target.",
)
@options.common
def bundle(artifact: str, target: str, output: Path | None) -> Outcome:
    """Make a folder with ARTIFACT and the code that tests and runs it on a device.

    ARTIFACT is a .tflite, .onnx or .ncnn.param file that cct-export wrote, with its .json beside
    it.
    """
    from cct_export import api
    from cct_export.report.terminal import say, status

    with status("making the bundle"):
        folder = api.bundle(artifact, target=target, output=output)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    size = sum((folder / name).stat().st_size for name in files)
    facts = f"{target}, {plural(len(files), 'file')}, {size:,} bytes"
    return Outcome(
        {"bundle": {"path": folder, "target": target, "size_bytes": size, "files": files}},
        show=lambda: say(f"{folder}: {facts}; see its README.md"),
    )


@click.command()
@table_files
@options.common
def doctor(files: TableFiles) -> Outcome:
    """List the engines and delegates that work on this machine, and why others do not.

    Runs a small CCT on each, in a process of its own, and compares its logits with Keras.
    """
    from cct_export import api, machine
    from cct_export.records import Diagnosis
    from cct_export.report.export import delegate_columns, show_diagnosis
    from cct_export.report.terminal import status

    with status() as progress:
        delegates = api.doctor(progress=progress)
    facts = machine.describe()
    return Outcome(
        {"machine": facts, "delegates": delegates},
        files=files.of_table(delegate_columns(), delegates, Diagnosis),
        show=lambda: show_diagnosis(facts, delegates),
    )
