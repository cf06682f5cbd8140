"""What a model is made of, as a table for a terminal."""

import logging

from rich.table import Table

from cct_export.records import Architecture
from cct_export.report import terminal
from cct_export.report.terminal import text

log = logging.getLogger(__name__)

_NONE = "–"
MOST_LABELS = 20


def show(found: Architecture) -> None:
    """Prints what goes in and comes out, every layer, and totals."""
    console = terminal.console()
    console.print(f"{text(found.name)}: images of {_shape(found.image_shape)} to ", end="")
    console.print(f"{found.classes:,} logits" + _labels(found.labels))
    console.print()
    console.print(_layers(found))
    if found.folded is not None:
        console.print()
        console.print(
            f"as exported, folded: {found.folded.steps:,} steps, "
            f"{found.folded.parameters:,} parameters, {found.folded.macs:,} MACs"
        )
    else:
        log.warning("%s is no CCT: what its layers cost is known once it is exported", found.name)


def _labels(labels: tuple[str, ...]) -> str:
    if not labels:
        return ""
    few = text(", ".join(labels[:MOST_LABELS]))
    return f" ({few})" if len(labels) <= MOST_LABELS else f" ({few} …)"


def _layers(found: Architecture) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "kind", "output"):
        table.add_column(name, overflow="fold")
    for name in ("trainable", "fixed", "MACs"):
        table.add_column(name, justify="right")
    for layer in found.layers:
        figures = (_count(layer.trainable), _count(layer.fixed), _macs(layer.macs))
        table.add_row(text(layer.name), layer.kind, _shape(layer.shape), *figures)
    table.add_row("total", "", "", f"{found.trainable:,}", f"{found.fixed:,}", _macs(found.macs))
    return table


def _count(value: int) -> str:
    return f"{value:,}" if value else _NONE


def _macs(value: int | None) -> str:
    return "?" if value is None else _count(value)


def _shape(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"
