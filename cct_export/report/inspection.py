"""Artifacts and models, operator by operator and layer by layer, on a terminal."""

import logging
from collections import Counter
from typing import NamedTuple

from cct_export.operator_lists import OperatorList
from cct_export.records import (
    Architecture,
    Contract,
    Inspection,
    Layer,
    Operator,
    OperatorKind,
    Tensor,
)
from cct_export.report.columns import NONE, Column, number, shape
from cct_export.report.tables import print_table
from cct_export.report.terminal import say
from cct_export.specs import JSONObject

log = logging.getLogger(__name__)

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
    "arena_bytes": "arena bytes",
}


class Pair(NamedTuple):
    """A figure of two files, and the first over the second; the names are keys of the JSON."""

    artifact: int | None
    against: int | None
    ratio: float | None

    @classmethod
    def of(cls, artifact: int | None, against: int | None) -> "Pair":
        """Returns the pair of two figures; without a ratio where one is not known, or 0."""
        return cls(
            artifact, against, artifact / against if artifact is not None and against else None
        )


class Comparison(NamedTuple):
    """Two files side by side: totals by name, and numbers of operators by kind."""

    totals: dict[str, Pair]
    operators: dict[str, Pair]

    @classmethod
    def of(cls, artifact: Inspection, against: Inspection) -> "Comparison":
        """Returns the comparison of two files."""
        totals, others = artifact.totals(), against.totals()
        counts, other_counts = (
            {kind.name: kind.count for kind in file.kinds()} for file in (artifact, against)
        )
        return cls(
            {name: Pair.of(total, others[name]) for name, total in totals.items()},
            {
                name: Pair.of(counts.get(name, 0), other_counts.get(name, 0))
                for name in dict.fromkeys([*counts, *other_counts])
            },
        )


def record(artifact: Inspection, against: Inspection | None) -> JSONObject:
    """Returns ``artifact`` and, for two files, ``against`` and ``comparison`` as JSON types."""
    if against is None:
        return {"artifact": artifact.to_dict()}
    comparison = Comparison.of(artifact, against)
    return {
        "artifact": artifact.to_dict(),
        "against": against.to_dict(),
        "comparison": {
            name: {row: pair._asdict() for row, pair in pairs.items()}
            for name, pairs in comparison._asdict().items()
        },
    }


def show(inspection: Inspection, tensors: bool = False) -> None:
    """Prints inputs and outputs, operators by kind, every operator, totals, and quantization.

    Args:
        inspection: of the file.
        tensors: list every quantized tensor, not only how many there are.
    """
    _print_header(inspection)
    _print_kinds(inspection)
    say()
    print_table(operator_columns(), inspection.operators)
    say()
    for name, total in inspection.totals().items():
        if name == "arena_bytes" and total is None:
            continue
        say(f"{_TOTALS[name]:15} {number(total):>12}")
    say()
    groups = Counter(f"{tensor.dtype} per {tensor.granularity}" for tensor in inspection.quantized)
    parts = ", ".join(f"{count} {name}" for name, count in groups.most_common())
    say(f"{len(inspection.quantized)} quantized tensors{': ' if parts else ''}{parts}")
    if tensors and inspection.quantized:
        _print_tensors(inspection)
    _log_warnings(inspection)


def show_comparison(artifact: Inspection, against: Inspection) -> None:
    """Prints inputs and outputs of two files, and their figures side by side."""
    _print_header(artifact)
    _print_header(against)
    comparison = Comparison.of(artifact, against)
    totals = {_TOTALS[name]: pair for name, pair in comparison.totals.items()}
    columns: list[Column[tuple[str, Pair]]] = [
        Column("", lambda row: row[0]),
        Column.number(artifact.path.name, lambda row: row[1].artifact),
        Column.number(against.path.name, lambda row: row[1].against),
        Column.number("ratio", lambda row: row[1].ratio, ".3f"),
    ]
    print_table(columns, [*totals.items(), *comparison.operators.items()])
    _log_warnings(artifact)
    _log_warnings(against)


def _log_warnings(inspection: Inspection) -> None:
    for warning in inspection.warnings:
        log.warning("%s: %s", inspection.path, warning)


def _print_header(inspection: Inspection) -> None:
    scheme = "no scheme recorded" if inspection.scheme is None else f"scheme {inspection.scheme}"
    size = f"{inspection.size_bytes:,} bytes"
    file = f"{inspection.path}: {inspection.format}, {scheme}, {size}, {inspection.engine}"
    say(file)
    for name, ends in (("input", inspection.inputs), ("output", inspection.outputs)):
        for end in ends:
            quantization = ""
            if end.scales:
                quantization = f", scale {_scales(end)}, zero point {_zero_points(end)}"
            line = f"  {name:6} {end.name} {end.dtype} {shape(end.shape)}{quantization}"
            say(line)
    for name, value in _contract(inspection.contract).items():
        say(f"  {name:6} {value}")
    say()


def _contract(contract: Contract) -> dict[str, str]:
    """Returns the lines about preprocessing, classes and source that the file has."""
    lines = {}
    if contract.input is not None:
        image = contract.input
        limits = " to ".join(f"{value:g}" for value in image.range)
        resize = f"other sizes {image.resize}" if image.resize else ""
        parts = (image.preprocessing, limits, image.channels, image.layout, resize)
        lines["pixels"] = ", ".join(filter(None, parts))
    if contract.labels:
        lines["labels"] = _few(contract.labels)
        if len(contract.labels) > MOST_LABELS:
            lines["labels"] += f" ({len(contract.labels)})"
    if contract.source:
        lines["of"] = contract.source
    return lines


def _few(labels: tuple[str, ...]) -> str:
    few = ", ".join(labels[:MOST_LABELS])
    return few if len(labels) <= MOST_LABELS else f"{few} …"


def _print_kinds(inspection: Inspection) -> None:
    delegated = inspection.partitions is not None
    columns: list[Column[OperatorKind]] = [
        Column("kind", lambda kind: kind.name),
        Column.number("operators", lambda kind: kind.count),
        Column.number("MACs", lambda kind: kind.macs),
        Column.number("parameters", lambda kind: kind.parameters),
        Column(
            "delegated",
            lambda kind: f"{kind.delegated}/{kind.count}" if delegated else NONE,
            lambda kind: kind.delegated,
        ),
        *(_taken(name, listed) for name, listed in inspection.operator_lists.items()),
    ]
    print_table(columns, inspection.kinds())
    for listed in inspection.operator_lists.values():
        say(f"{listed.about}: {listed.source}")


def _taken(name: str, listed: OperatorList) -> Column[OperatorKind]:
    """Returns the column that says whether a chip or engine takes the operators of a kind."""

    def cell(kind: OperatorKind) -> str:
        taken = kind.taken_by[name]
        if not taken:
            return "?" if kind.name in listed.unknown else "no"
        return "yes" if taken == kind.count else f"{taken}/{kind.count}"

    return Column(listed.about, cell)


def operator_columns() -> list[Column[Operator]]:
    """Returns the columns of a table of operators."""
    return [
        Column("#", lambda operator: str(operator.index)),
        Column("operator", lambda operator: operator.kind),
        Column("output", lambda operator: shape(operator.shape)),
        Column("MACs", lambda operator: _macs(operator.macs), lambda operator: operator.macs),
        Column.number("parameters", lambda operator: operator.parameters),
        Column("weights", lambda operator: operator.weight_dtype or NONE),
        Column.number("partition", lambda operator: operator.partition),
    ]


def _macs(macs: int | None) -> str:
    return "?" if macs is None else f"{macs:,}"


def _print_tensors(inspection: Inspection) -> None:
    columns: list[Column[Tensor]] = [
        Column("tensor", lambda tensor: tensor.name),
        Column("type", lambda tensor: tensor.dtype),
        Column("shape", lambda tensor: shape(tensor.shape)),
        Column("scale per", _granularity),
        Column("scale", _scales),
        Column("zero point", _zero_points),
    ]
    print_table(columns, inspection.quantized)


def _granularity(tensor: Tensor) -> str:
    axis = "" if tensor.axis is None else f" of axis {tensor.axis}"
    return f"{tensor.granularity}{axis}"


def _scales(tensor: Tensor) -> str:
    return _interval(tensor.scales, ".3g") or "not in the file"


def _zero_points(tensor: Tensor) -> str:
    return _interval(tensor.zero_points, "d") or "0"


def _interval(values: tuple[float, ...], pattern: str) -> str:
    """Returns ``LEAST to MOST``, one number if both are the same; nothing for no values."""
    ends = [format(end, pattern) for end in (min(values), max(values))] if values else []
    return " to ".join(dict.fromkeys(ends))


def _outputs(model: Architecture) -> str:
    """Returns the sizes and contents of a model's outputs, with their names if it has several."""
    held = [f"{shape(output.sizes)} {output.contents}" for output in model.outputs]
    if len(held) < 2:
        return "".join(held)
    named = (f"{text} ({output.name})" for text, output in zip(held, model.outputs, strict=True))
    return ", ".join(named)


def show_model(model: Architecture) -> None:
    """Prints input and output, every layer, totals, and the cost of the exported file."""
    labels = f" ({_few(model.labels)})" if model.labels else ""
    images = f"images of {shape(model.image_shape)}"
    say(f"{model.name}: {images} to {_outputs(model) or f'{model.classes:,} logits'}{labels}")
    say()
    total = Layer("total", "", (), model.trainable, model.fixed, model.macs)
    print_table(layer_columns(), [*model.layers, total])
    if model.folded is None:
        log.warning("%s is traced as a whole: inspect the exported file for its cost", model.name)
        return
    say()
    say(
        f"as exported, folded: {model.folded.steps:,} steps, "
        f"{model.folded.parameters:,} parameters, {model.folded.macs:,} MACs"
    )


def layer_columns() -> list[Column[Layer]]:
    """Returns the columns of a table of layers; a total is a layer without a kind."""
    return [
        Column("layer", lambda layer: layer.name),
        Column("kind", lambda layer: layer.kind),
        Column("output", lambda layer: shape(layer.shape) if layer.kind else ""),
        Column.number("trainable", lambda layer: layer.trainable or None),
        Column.number("fixed", lambda layer: layer.fixed or None),
        Column(
            "MACs",
            lambda layer: NONE if layer.macs == 0 else _macs(layer.macs),
            lambda layer: layer.macs,
        ),
    ]
