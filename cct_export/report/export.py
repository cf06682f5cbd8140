"""The results of ``cct-export`` on a terminal; ``inspect`` is in ``inspection``."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cct_export.quantize.schemes import BY_FORMAT
from cct_export.records import (
    Artifact,
    Diagnosis,
    Exported,
    Imported,
    MachineInfo,
    ParityReport,
    Pushed,
    QuantizationReport,
    QuantizationSummary,
    StepError,
    sidecar,
)
from cct_export.records.encoding import to_json
from cct_export.report import plots
from cct_export.report.candidates import show_candidates
from cct_export.report.columns import NONE, Column
from cct_export.report.tables import print_table
from cct_export.report.terminal import say
from cct_export.text import plural

log = logging.getLogger(__name__)

# SQNR of the longest bar: an exact tensor has an infinite one.
LONGEST_BAR_DB = 150.0
_STATUS = {True: "works", False: "fails", None: "not tried"}


def show_export(exported: Exported) -> None:
    """Logs the file, its quantization, and its parity with the Keras model."""
    artifact = exported.artifact
    log.info(
        "wrote %s: %s %s, %s bytes, input %s%s",
        artifact.path,
        artifact.format,
        artifact.scheme,
        format(artifact.size_bytes, ","),
        artifact.contract.io,
        f"; and its sidecar {sidecar.path_of(artifact.path).name}"
        if exported.parity.passed
        else "",
    )
    if artifact.contract.quantization is not None:
        _log_quantization(artifact, artifact.contract.quantization)
    _log_engine_operators([exported])
    _show_constraints(exported)
    show_parity(exported.parity)


@dataclass(frozen=True)
class ExportRow:
    """A file among several that one command wrote; the fields are the header of the CSV.

    Attributes:
        path: of the file.
        format: ``tflite`` or ``onnx``.
        scheme: quantization scheme.
        size_bytes: size of the file.
        sqnr_db: SQNR of the logits in dB.
        top1_agreement: share of the decided images with the same best class, 0 to 1.
        passed: whether the file passed parity.
    """

    path: str
    format: str
    scheme: str
    size_bytes: int
    sqnr_db: float
    top1_agreement: float
    passed: bool


def export_rows(files: Sequence[Exported]) -> list[ExportRow]:
    """Returns a row per file."""
    return [
        ExportRow(
            str(exported.artifact.path),
            exported.artifact.format,
            exported.artifact.scheme,
            exported.artifact.size_bytes,
            exported.parity.sqnr_db,
            exported.parity.top1_agreement,
            exported.parity.passed,
        )
        for exported in files
    ]


def export_columns() -> list[Column[ExportRow]]:
    """Returns the columns of a table of files."""
    return [
        Column("file", lambda row: row.path),
        Column("scheme", lambda row: row.scheme),
        Column.number("kB", lambda row: row.size_bytes / 1e3, ",.0f"),
        Column.number("SQNR dB", lambda row: row.sqnr_db, ".1f"),
        Column.number("agreement", lambda row: row.top1_agreement, ".4f"),
        Column("parity", lambda row: "passed" if row.passed else "FAILED"),
    ]


def show_exports(files: Sequence[Exported]) -> None:
    """Prints a row per file; logs why one failed parity."""
    for exported in files:
        _show_constraints(exported)
        if not exported.parity.passed:
            show_parity(exported.parity)
    print_table(export_columns(), export_rows(files), f"parity on {files[0].parity.images}")
    written = sum(exported.parity.passed for exported in files)
    log.info("wrote %s, each with its sidecar", plural(written, "file"))
    _log_engine_operators(files)


def _log_engine_operators(files: Sequence[Exported]) -> None:
    """Logs which operators of ONNX files no other engine has."""
    operators = {operator for file in files for operator in file.engine_operators}
    if operators:
        names = ", ".join(sorted(operators))
        log.info("for ONNX Runtime alone, cct-export onnx --pure-onnx leaves them out: %s", names)


def _log_quantization(artifact: Artifact, summary: QuantizationSummary) -> None:
    """Logs how many steps compute in integers."""
    modes = {"static": summary.static, "dynamic": summary.dynamic}
    parts = [f"{plural(len(steps), 'step')} {mode}" for mode, steps in modes.items() if steps]
    if summary.kept_float:
        parts.append(f"kept in float: {', '.join(summary.kept_float)}")
    none_static = summary.dynamic and not (summary.static or summary.kept_float)
    if artifact.scheme == "int8" and none_static and "int8-dynamic" in BY_FORMAT[artifact.format]:
        parts.append("the same as int8-dynamic")
    log.info("integers: %s", ", ".join(parts) or "weights only")


def _show_constraints(exported: Exported) -> None:
    """Logs what ``--min-sqnr`` cost, and prints the schemes that ``auto`` tried."""
    bound = exported.bound
    if bound is not None and bound.in_float:
        log.info(
            "--min-sqnr %.1f: %s in float, %.1f dB instead of %.1f, %.2f times the latency",
            bound.min_sqnr_db,
            ", ".join(bound.in_float),
            bound.after_db,
            bound.before_db,
            bound.slowdown,
        )
    show_candidates(exported)


def show_parity(report: ParityReport) -> None:
    """Logs parity in a line; as an error, with the requirements that were not met, if it failed."""
    line = (
        f"parity {'passed' if report.passed else 'FAILED'} on {report.images}: "
        f"{f'worst of the outputs is {report.output}: ' if report.output else ''}"
        f"SQNR {report.sqnr_db:.1f} dB, "
        f"top-1 agreement {report.top1_agreement:.4f} ({report.decided} decided), "
        f"max |difference| {report.max_abs:.2e}, cosine {report.cosine:.6f}"
    )
    if report.passed:
        log.info("%s", line)
    else:
        lines = "\n  %s" * len(report.failures)  # the handler puts each argument on one line
        log.error(f"%s: %s{lines}", report.candidate, line, *report.failures)


def show_import(imported: Imported) -> None:
    """Prints what was read and the file that was written."""
    height, width, channels = imported.image_shape
    log.info("%s: %s", imported.source, imported.kind)
    for note in imported.notes:
        log.info("%s", note)
    if imported.difference is not None:
        log.info(
            "logits differ by %.1e at most from the source's own on %d images",
            imported.difference,
            imported.images,
        )
    say(
        f"{imported.path}: {imported.name}, {imported.tensors} tensors, "
        f"{imported.parameters:,} parameters, all used; "
        f"{height}×{width}×{channels} → {imported.classes} classes, {imported.size_bytes:,} bytes"
    )


def show_push(pushed: Pushed) -> None:
    """Prints the address of the commit; after a dry run the files that it would have."""
    for note in pushed.notes:
        log.info("%s", note)
    size = sum(file.size_bytes for file in pushed.files)
    total = f"{plural(len(pushed.files), 'file')}, {size:,} bytes"
    if pushed.url is not None:
        log.info("%s: %s on %s", pushed.repository, total, pushed.revision)
        say(pushed.url)
        return
    for file in pushed.files:
        say(f"{file.size_bytes:>13,}  {file.name}")
    kind = "the private repository " if pushed.private else ""
    say(f"{total} would be sent to {kind}{pushed.repository}, {pushed.revision}")


def show_diagnosis(machine: MachineInfo, delegates: Sequence[Diagnosis]) -> None:
    """Prints the machine, and a line per engine and delegate; with ``-v`` every fact of both."""
    if log.isEnabledFor(logging.DEBUG):
        _show_facts(machine, delegates)
        return
    cores = plural(machine.cores, "core") if machine.cores else ""
    say(", ".join(filter(None, (machine.cpu, cores, machine.os, f"Python {machine.python}"))))
    engines = dict.fromkeys(f"{row.engine} {row.version}" for row in delegates if row.version)
    say(", ".join(engines))
    say()
    columns: list[Column[Diagnosis]] = [
        Column("delegate", lambda row: f"{row.engine} {row.delegate}"),
        Column("status", lambda row: _STATUS[row.works]),
        Column("", lambda row: row.why or row.about, elided=True),
    ]
    print_table(columns, delegates)
    log.info("-v shows every reason, and all facts about the machine")


def _show_facts(machine: MachineInfo, delegates: Sequence[Diagnosis]) -> None:
    for name, value in to_json(machine).items():
        if value != "":
            say(f"{name:<14}{_fact(value)}")
    say()
    print_table(delegate_columns(), delegates)


def delegate_columns() -> list[Column[Diagnosis]]:
    """Returns the columns of a table of engines and delegates."""
    return [
        Column("engine", lambda row: f"{row.engine} {row.version}".strip()),
        Column("delegate", lambda row: row.delegate),
        Column("status", lambda row: _STATUS[row.works]),
        Column("description", lambda row: row.about),
        Column("reason", lambda row: row.why),
    ]


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "not known" if value is None else str(value)


def worst_first(report: QuantizationReport) -> list[StepError]:
    """Returns the steps by the SQNR of the logits with each alone quantized, else of its tensor."""
    return sorted(report.steps, key=lambda s: s.sqnr_db if s.alone_db is None else s.alone_db)


def show_quantization(report: QuantizationReport) -> None:
    """Prints a row per step, the largest error first."""
    model = f"{report.model} as {report.format} {report.scheme}"
    title = f"{model}: {report.sqnr_db:.1f} dB on {report.images}"
    print_table(step_columns(report), worst_first(report), title)
    if report.kernels:
        kernels = ", ".join(f"{count} {name}" for name, count in report.kernels.items())
        say(f"kernels that ONNX Runtime ran: {kernels}")


def step_columns(report: QuantizationReport) -> list[Column[StepError]]:
    """Returns the columns of a table of steps; those of the sensitivity only where it is known."""
    columns: list[Column[StepError]] = [
        Column("step", lambda step: step.step),
        Column("kind", lambda step: step.kind),
        Column("inputs", lambda step: step.inputs),
        Column(
            "weights",
            lambda step: NONE if step.weight_bits is None else f"int{step.weight_bits}",
            lambda step: step.weight_bits,
        ),
        Column.number("SQNR dB", lambda step: step.sqnr_db, ".1f"),
        Column("range", lambda step: _interval(step.low, step.high), lambda step: step.low),
        Column(
            "integers",
            lambda step: _interval(step.grid_low, step.grid_high),
            lambda step: step.grid_low,
        ),
        Column.number("clipped", lambda step: step.clipped, ".3%"),
    ]
    if any(step.alone_db is not None for step in report.steps):
        columns += [
            Column.number("alone dB", lambda step: step.alone_db, ".1f"),
            Column.number("without dB", lambda step: step.without_db, ".1f"),
        ]
    return columns


def _interval(low: float | None, high: float | None) -> str:
    return NONE if low is None or high is None else f"{low:.3g} … {high:.3g}"


def plot_quantization(report: QuantizationReport, path: Path) -> None:
    """Draws a bar per step, the largest error on top.

    Args:
        report: with or without sensitivity; if it has it, the bars show it.
        path: the ``.png`` file to write.

    Raises:
        MissingDependency: matplotlib is not installed.
        OutputError: ``path`` cannot be written.
    """
    steps = worst_first(report)
    sensitivity = any(step.alone_db is not None for step in steps)
    ratios = [step.alone_db if sensitivity else step.sqnr_db for step in steps]
    quantity = "SQNR of the logits with only this step quantized"
    plots.bars(
        path,
        [step.step for step in steps],
        [0.0 if ratio is None else min(ratio, LONGEST_BAR_DB) for ratio in ratios],
        f"{quantity if sensitivity else 'SQNR of the tensor'} (dB; longer is better)",
        f"{Path(report.model).name}, {report.format} {report.scheme}: {report.sqnr_db:.1f} dB",
    )
