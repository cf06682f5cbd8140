"""Where a quantized model loses accuracy, as a table and as bars."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from cct_export.records import QuantizationReport, StepError
from cct_export.report import terminal
from cct_export.report.bars import draw

_NONE = "–"


def worst_first(report: QuantizationReport) -> list[StepError]:
    """Returns the steps by what each alone does to the logits, else by the noise of its tensor."""
    return sorted(report.steps, key=lambda s: s.sqnr_db if s.alone_db is None else s.alone_db)


def show(report: QuantizationReport) -> None:
    """Prints a row per step, the worst first."""
    console = terminal.console()
    deep = any(step.alone_db is not None for step in report.steps)
    what = f"{report.model} as {report.format} {report.scheme}"
    title = f"{what}: {report.sqnr_db:.1f} dB on {report.images}"
    table = Table(box=None, title=escape(title), title_justify="left")
    columns = ["step", "kind", "inputs", "weights", "SQNR dB", "range", "integers", "clipped"]
    if deep:
        columns += ["alone dB", "without dB"]
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < 3 else "right", no_wrap=True)
    for step in worst_first(report):
        table.add_row(*_row(step, deep))
    console.print(table)
    if report.kernels:
        kernels = ", ".join(f"{count} {name}" for name, count in report.kernels.items())
        console.print(f"kernels that ONNX Runtime ran: {kernels}")


def _row(step: StepError, deep: bool) -> list[str]:
    grid = _NONE
    if step.grid_low is not None and step.grid_high is not None:
        grid = f"{step.grid_low:.3g} … {step.grid_high:.3g}"
    row = [
        escape(step.step),
        step.kind,
        step.inputs,
        _NONE if step.weight_bits is None else f"int{step.weight_bits}",
        f"{step.sqnr_db:.1f}",
        f"{step.low:.3g} … {step.high:.3g}",
        grid,
        _NONE if step.clipped is None else f"{step.clipped:.3%}",
    ]
    if deep:
        row += [_NONE if v is None else f"{v:.1f}" for v in (step.alone_db, step.without_db)]
    return row


def plot(report: QuantizationReport, path: Path) -> None:
    """Draws a bar per step, the worst on top; raises ``OutputError``.

    Args:
        report: with or without sensitivity, which the bars show where it is there.
        path: a ``.png`` file.
    """
    rows = worst_first(report)
    deep = any(step.alone_db is not None for step in rows)
    lengths = [step.alone_db if deep else step.sqnr_db for step in rows]
    what = "SQNR of the logits with this step alone quantized" if deep else "SQNR of the tensor"
    draw(
        path,
        [step.step for step in rows],
        [0.0 if length is None else min(length, 150.0) for length in lengths],
        f"{what} (dB; longer is better)",
        f"{Path(report.model).name}, {report.format} {report.scheme}: {report.sqnr_db:.1f} dB",
    )
