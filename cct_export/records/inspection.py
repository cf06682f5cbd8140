"""What is in an artifact: tensors, operators, totals."""

from dataclasses import dataclass
from pathlib import Path

from cct_export.operator_lists import OPERATOR_LISTS, OperatorList
from cct_export.records.artifact import Contract
from cct_export.records.encoding import to_json
from cct_export.records.layout import image_shape_of, layout_of
from cct_export.records.output import output_of
from cct_export.specs import JSONObject


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, with its quantization if it has one.

    Attributes:
        name: as in the file; of an end the name in the signature, where there is one.
        dtype: ``float32``, ``int8`` and so on.
        shape: sizes, None for one that is open; None if the file does not tell.
        granularity: ``tensor``, ``channel`` or ``block``: what shares a scale. Empty if the tensor
            is not quantized.
        axis: the axis along which the channels lie, None unless there are any.
        scales: ``real = scale · (stored − zero point)``, one per channel; empty where none is
            found in the file.
        zero_points: one per scale, or one for all; empty if it is 0.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    granularity: str = ""
    axis: int | None = None
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operator:
    """A step of a file.

    Attributes:
        index: its place in the file, from 0 on.
        kind: as the format calls it, such as ``CONV_2D`` or ``Conv``.
        shape: of its first output, see ``Inspection``; None if unknown, as is a size.
        macs: multiply-accumulates, see ``Inspection``; None if a shape that decides is unknown.
        parameters: elements of the constant weights that it reads.
        weight_dtype: type in which the largest of them is stored, None if there is none.
        partition: which part of the delegate, counted from 0, runs it; None if none does, or if
            the engine's own optimizations did away with it.
        taken_by: the chips and engines for integers, of ``operator_lists``, that take it in this
            version and with these types; None of ONNX.
    """

    index: int
    kind: str
    shape: tuple[int | None, ...] | None
    macs: int | None
    parameters: int
    weight_dtype: str | None
    partition: int | None
    taken_by: tuple[str, ...] | None = None


@dataclass(frozen=True)
class OperatorKind:
    """All operators of one kind.

    Attributes:
        name: as the format calls it.
        count: operators.
        macs: of those where they are known.
        parameters: summed over the operators; one that two of them read counts twice.
        delegated: how many the delegate runs.
        taken_by: how many each chip or engine of ``operator_lists`` takes; empty of ONNX.
    """

    name: str
    count: int
    macs: int
    parameters: int
    delegated: int
    taken_by: dict[str, int]


@dataclass(frozen=True)
class Inspection:
    """What is in an exported file, or any other TFLite or ONNX file.

    Shapes and multiply-accumulates are per image: an open batch counts as 1. In a file that
    fixes another batch they are per run. Only convolutions and products of matrices have
    multiply-accumulates, other operators count 0. The body of a loop or branch counts once.

    Attributes:
        path: the file.
        format: ``tflite`` or ``onnx``.
        contract: what the file says about itself.
        size_bytes: size of the file.
        inputs: what it takes.
        outputs: what it gives.
        operators: every step, in order.
        parameters: elements of constant weights, each tensor once however many read it. Scales,
            zero points, shapes, axes, paddings and single numbers of rank 0 are none.
        tensors: number of tensors in the file, constants too.
        quantized: the tensors that are stored or computed as integers standing for real numbers.
        engine: name and version of what runs such a file.
        nodes: steps that the engine runs after its own optimizations, None if it cannot.
        delegated: how many of them the delegate took, None if the engine cannot run it.
        partitions: into how many parts it took them, None if the engine cannot run it.
        warnings: what to know before believing the figures.
        arena_bytes: memory that TFLite Micro takes beside the file; None where it cannot run the
            file, or is not installed.
    """

    path: Path
    format: str
    contract: Contract
    size_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    parameters: int
    tensors: int
    quantized: tuple[Tensor, ...]
    engine: str
    nodes: int | None
    delegated: int | None
    partitions: int | None
    warnings: tuple[str, ...] = ()
    arena_bytes: int | None = None

    @property
    def scheme(self) -> str | None:
        """Quantization scheme that the contract names, None without one."""
        return self.contract.scheme or None

    @property
    def contradiction(self) -> str:
        """Where the contract contradicts the graph, see ``Contract.contradiction``."""
        if len(self.inputs) != 1:
            return ""
        (image,) = self.inputs
        shape = image.shape or ()
        layout = layout_of(shape)
        image_shape = image_shape_of(shape, layout) if len(shape) == 4 else shape[1:]
        return self.contract.contradiction(
            format=self.format,
            io=image.dtype,
            layout=layout,
            image_shape=image_shape,
            outputs=[output_of(tensor.name, tensor.dtype, tensor.shape) for tensor in self.outputs],
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all operators where they are known."""
        return sum(operator.macs or 0 for operator in self.operators)

    @property
    def operator_lists(self) -> dict[str, OperatorList]:
        """The lists that say what takes its operators, by name; empty of ONNX."""
        return OPERATOR_LISTS if self.format == "tflite" else {}

    def kinds(self) -> tuple[OperatorKind, ...]:
        """Returns the operators by kind: most multiply-accumulates first, then most operators."""
        by_name: dict[str, list[Operator]] = {}
        for operator in self.operators:
            by_name.setdefault(operator.kind, []).append(operator)
        kinds = [
            OperatorKind(
                name,
                len(group),
                sum(operator.macs or 0 for operator in group),
                sum(operator.parameters for operator in group),
                sum(operator.partition is not None for operator in group),
                {
                    name: sum(name in (operator.taken_by or ()) for operator in group)
                    for name in self.operator_lists
                },
            )
            for name, group in by_name.items()
        ]
        return tuple(sorted(kinds, key=lambda kind: (-kind.macs, -kind.count, kind.name)))

    def totals(self) -> dict[str, int | None]:
        """Returns the figures of the whole file by name."""
        return {
            "size_bytes": self.size_bytes,
            "macs": self.macs,
            "parameters": self.parameters,
            "operators": len(self.operators),
            "tensors": self.tensors,
            "nodes": self.nodes,
            "delegated": self.delegated,
            "partitions": self.partitions,
            "arena_bytes": self.arena_bytes,
        }

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types: ends, totals, kinds, every operator and quantized tensor."""
        return {
            "path": str(self.path),
            "format": self.format,
            "scheme": self.scheme,
            "engine": self.engine,
            "contract": self.contract.to_dict(),
            "inputs": to_json(self.inputs),
            "outputs": to_json(self.outputs),
            "totals": self.totals(),
            "kinds": to_json(self.kinds()),
            "operator_lists": {
                name: {"about": listed.about, "source": listed.source}
                for name, listed in self.operator_lists.items()
            },
            "operators": to_json(self.operators),
            "quantized": to_json(self.quantized),
            "warnings": list(self.warnings),
        }
