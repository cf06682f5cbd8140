"""``cct-bench tflite --engine tflm``: what TFLite Micro makes of files."""

from collections.abc import Sequence

import click
from click.core import ParameterSource

from cct_export.commands.options import ExitCode, Outcome
from cct_export.errors import InvalidRequest

# What it takes of the parameters of a measurement.
PARAMETERS = ("engines", "sources", "data", "json_path", "quiet", "verbose")


def prove_on_tflm(sources: Sequence[str], data: str | None) -> Outcome:
    """Runs artifacts in TFLite Micro; refuses the options of measurements."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT
        if given and parameter.name not in PARAMETERS:
            raise InvalidRequest(f"--engine tflm times nothing: leave {parameter.opts[0]} out")
    if not sources:
        raise InvalidRequest("--engine tflm takes .tflite files: name one")
    from cct_export import api
    from cct_export.report import micro
    from cct_export.report.terminal import status

    with status() as progress:
        reports = [api.tflm_report(source, data=data, progress=progress) for source in sources]
    passed = all(report.passed for report in reports)
    return Outcome(
        {"files": [report.to_dict() for report in reports]},
        ExitCode.PASSED if passed else ExitCode.PARITY_FAILED,
        show=lambda: micro.show(reports),
    )
