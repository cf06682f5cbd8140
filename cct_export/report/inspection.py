"""What is in a file, or in two, as tables for a terminal and as a JSON record."""

import logging
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from cct_export.records import Contract, Inspection, Tensor
from cct_export.report import terminal
from cct_export.report.terminal import printable, text

log = logging.getLogger(__name__)

_NONE = "–"
MOST_LABELS = 20
_TOTALS = {
    "size_bytes": "bytes",
    "macs": "MACs",
    "parameters": "parameters",
    "operators": "operators",
    "tensors": "tensors",
    "nodes": "nodes run",
    "delegated": "nodes delegated",
    "partitions": "partitions",
}

# Both figures, and the first over the second.
Pair = tuple[int | None, int | None, float | None]


def record(found: Inspection, other: Inspection | None) -> dict[str, Any]:
    """Returns ``artifact`` and, with ``other``, ``against`` and ``comparison`` as JSON types."""
    if other is None:
        return {"artifact": found.to_dict()}
    totals, kinds = _compared(found, other)
    names = ("artifact", "against", "ratio")
    return {
        "artifact": found.to_dict(),
        "against": other.to_dict(),
        "comparison": {
            "totals": {name: dict(zip(names, pair, strict=True)) for name, pair in totals.items()},
            "operators": {
                name: dict(zip(names, pair, strict=True)) for name, pair in kinds.items()
            },
        },
    }


def _compared(found: Inspection, other: Inspection) -> tuple[dict[str, Pair], dict[str, Pair]]:
    """Returns the totals by name, and how many operators there are by kind."""
    left, right = found.totals(), other.totals()
    counts = [{kind.name: kind.count for kind in side.kinds()} for side in (found, other)]
    kinds = dict.fromkeys([*counts[0], *counts[1]])
    return (
        {name: _pair(left[name], right[name]) for name in left},
        {name: _pair(counts[0].get(name, 0), counts[1].get(name, 0)) for name in kinds},
    )


def _pair(left: int | None, right: int | None) -> Pair:
    return left, right, None if left is None or not right else left / right


def show(found: Inspection, tensors: bool = False) -> None:
    """Prints header, operators by kind, every operator, totals, and what is quantized.

    Args:
        found: what is in the file.
        tensors: list every quantized tensor, not only how many there are.
    """
    console = terminal.console()
    _header(console, found)
    console.print(_kinds(found))
    console.print()
    console.print(_steps(found))
    console.print()
    for name, value in found.totals().items():
        console.print(f"{_TOTALS[name]:15} {_count(value):>12}")
    console.print()
    _summary(console, found)
    if tensors and found.quantized:
        console.print(_tensors(found))
    _warn(found)


def compare(found: Inspection, other: Inspection) -> None:
    """Prints both headers, and the figures of both files side by side."""
    console = terminal.console()
    _header(console, found)
    _header(console, other)
    totals, kinds = _compared(found, other)
    table = _table("", right=(text(found.path.name), text(other.path.name), "ratio"))
    for name, pair in totals.items():
        table.add_row(_TOTALS[name], *_cells(*pair))
    for name, pair in kinds.items():
        table.add_row(text(name), *_cells(*pair))
    console.print(table)
    _warn(found)
    _warn(other)


def _warn(found: Inspection) -> None:
    for warning in found.warnings:
        log.warning("%s: %s", found.path, printable(warning))


def _count(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _cells(left: int | None, right: int | None, ratio: float | None) -> tuple[str, str, str]:
    return _count(left), _count(right), _NONE if ratio is None else f"{ratio:.3f}"


def _shape(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return _NONE
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"


def _header(console: Console, found: Inspection) -> None:
    scheme = "no scheme recorded" if found.scheme is None else f"scheme {text(found.scheme)}"
    size = f"{found.size_bytes:,} bytes"
    console.print(f"{text(str(found.path))}: {found.format}, {scheme}, {size}, {found.engine}")
    for word, ends in (("input", found.inputs), ("output", found.outputs)):
        for end in ends:
            _, scale, zero = _quantization(end)
            meaning = f", scale {scale}, zero point {zero}" if end.scales else ""
            console.print(f"  {word:6} {text(end.name)} {end.dtype} {_shape(end.shape)}{meaning}")
    for word, said in _contract(found.contract).items():
        console.print(f"  {word:6} {text(said)}")
    console.print()


def _contract(contract: Contract) -> dict[str, str]:
    """Returns what a program needs to know to use the file, as far as the file says it."""
    lines = {}
    if contract.input is not None:
        image = contract.input
        span = " to ".join(f"{value:g}" for value in image.range)
        resize = f"other sizes {image.resize}" if image.resize else ""
        parts = (image.preprocessing, span, image.channels, image.layout, resize)
        lines["pixels"] = ", ".join(filter(None, parts))
    if contract.labels:
        few, count = ", ".join(contract.labels[:MOST_LABELS]), len(contract.labels)
        lines["labels"] = few if count <= MOST_LABELS else f"{few} … ({count})"
    if contract.source:
        lines["of"] = contract.source
    return lines


def _table(*left: str, right: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _kinds(found: Inspection) -> Table:
    table = _table("kind", right=("operators", "MACs", "parameters", "delegated"))
    for kind in found.kinds():
        taken = _NONE if found.partitions is None else f"{kind.delegated}/{kind.count}"
        figures = (_count(kind.count), _count(kind.macs), _count(kind.parameters), taken)
        table.add_row(text(kind.name), *figures)
    return table


def _steps(found: Inspection) -> Table:
    table = _table("#", "operator", "output", right=("MACs", "parameters", "weights", "partition"))
    for step in found.operators:
        table.add_row(
            str(step.index),
            text(step.kind),
            _shape(step.shape),
            "?" if step.macs is None else _count(step.macs),
            _count(step.parameters),
            step.weight_dtype or _NONE,
            _count(step.partition),
        )
    return table


def _summary(console: Console, found: Inspection) -> None:
    """Says how many tensors are quantized, and how."""
    groups = Counter(f"{tensor.dtype} per {tensor.granularity}" for tensor in found.quantized)
    parts = ", ".join(f"{count} {name}" for name, count in groups.most_common())
    console.print(f"{len(found.quantized)} quantized tensors" + (f": {parts}" if parts else ""))


def _tensors(found: Inspection) -> Table:
    table = _table("tensor", "type", "shape", "scale per", "scale", "zero point", right=())
    for tensor in found.quantized:
        table.add_row(text(tensor.name), tensor.dtype, _shape(tensor.shape), *_quantization(tensor))
    return table


def _quantization(tensor: Tensor) -> tuple[str, str, str]:
    """Returns what shares a scale, and the range of scales and of zero points."""
    axis = "" if tensor.axis is None else f" of axis {tensor.axis}"
    scales = _range([f"{end:.3g}" for end in _ends(tensor.scales)]) or "not in the file"
    zeros = _range([str(end) for end in _ends(tensor.zero_points)]) or "0"
    return f"{tensor.granularity}{axis}", scales, zeros


def _ends(values: tuple[Any, ...]) -> list[Any]:
    return [min(values), max(values)] if values else []


def _range(ends: list[str]) -> str:
    """Returns ``a`` for twice the same, else ``a to b``; nothing for nothing."""
    return " to ".join(dict.fromkeys(ends))
