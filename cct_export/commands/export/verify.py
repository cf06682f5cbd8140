"""``cct-export verify``."""

from typing import Any

import click

from cct_export.commands import options


@click.command()
@click.argument("artifact")
@click.option(
    "--against", metavar="MODEL", help="Compare with this model, not the one recorded in the file."
)
@click.option(
    "--data",
    help="Images to compare on: cifar10, cifar100, digits, a folder, TFRecord shards or an .npz.",
)
@options.samples
@options.common
def command(artifact: str, against: str | None, data: str | None, samples: int) -> dict[str, Any]:
    """Prove that ARTIFACT, run by its own engine, gives the logits of its Keras model.

    Ends with 3 if it does not. The file is left as it is.
    """
    options.start_keras("tensorflow")
    from pathlib import Path

    from cct_export import api
    from cct_export.files import sha256
    from cct_export.report import console

    report = api.verify(artifact, against=against, data=data, samples=samples)
    console.parity(report)
    path = Path(artifact)
    return {
        "artifact": {
            "path": artifact,
            "format": path.suffix[1:],
            "scheme": report.scheme,
            "size_bytes": path.stat().st_size,
            "sha256": sha256(path),
        },
        "parity": report.to_dict(),
        "exit_code": 0 if report.passed else options.PARITY_FAILED,
    }
