"""Metadata, nodes, input and output of a ``.tflite`` file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact
from cct_export.files import check_file
from cct_export.records import CONTRACT_KEY, Contract, OutputContract
from cct_export.records.output import output_of
from cct_export.runtimes.session import Quantization, classifies
from cct_export.untrusted import Malformed, refusing

# Begins the reason why a file is refused.
UNREADABLE = "not a readable TFLite file"
_DELEGATE = "DELEGATE"  # the kind of a node that runs a partition
_IMAGE_TYPES = ("float32", "uint8", "int8")


@dataclass(frozen=True)
class Node:
    """A node that LiteRT runs: an operator of the file, or a partition of the delegate.

    Attributes:
        index: position in the file; the delegate's nodes follow the operators.
        kind: name of the operator, such as ``CONV_2D``; ``DELEGATE`` for a partition.
        inputs: indices of the tensors that it reads.
        outputs: indices of the tensors that it writes.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def is_partition(self) -> bool:
        """Whether the node is a partition that the delegate runs."""
        return self.kind == _DELEGATE


@dataclass(frozen=True)
class TensorDetails:
    """The image input or an output of a file.

    Attributes:
        index: of the tensor.
        name: of the tensor.
        shape: with the batch axis.
        dtype: numpy's name of the type.
        quantization: what its integers stand for; None for floats and plain pixels.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None

    @property
    def contract(self) -> OutputContract:
        """What the graph tells about it as an output."""
        return output_of(self.name, self.dtype, self.shape)


def contract_of(path: Path) -> Contract:
    """Returns the contract stored in a file; an empty one if there is none.

    Raises:
        InvalidRequest: there is no such file.
        InvalidArtifact: it is no flatbuffer, its contract cannot be read, or its weights are in
            another file.
    """
    from ai_edge_litert import schema_py_generated as schema

    check_file(path)
    text = b"{}"
    with refusing(InvalidArtifact, f"{path}: {UNREADABLE}", otherwise="it is damaged"):
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise Malformed("the identifier TFL3 is missing")
        model = schema.Model.GetRootAs(content, 0)
        if model.ExternalBufferGroupsLength():  # CompiledModel would open any path
            raise Malformed("it keeps weights in another file, convert it with its weights inside")
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == CONTRACT_KEY.encode():
                text = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
        return Contract.parse(text)


def nodes_of(interpreter: Any) -> list[Node]:
    """Returns the nodes of LiteRT's interpreter: operators first, then the partitions."""
    return [
        Node(
            int(details["index"]),
            str(details["op_name"]),
            tuple(map(int, details["inputs"])),
            tuple(map(int, details["outputs"])),
        )
        for details in interpreter._get_ops_details()
    ]


def operator_names(content: bytes) -> list[str]:
    """Returns the name of the first output of each operator of the main subgraph.

    Args:
        content: a flatbuffer that LiteRT can open.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    operators = map(graph.Operators, range(graph.OperatorsLength()))
    tensors = [each.Outputs(0) if each.OutputsLength() else -1 for each in operators]
    names = [graph.Tensors(index).Name() if index >= 0 else None for index in tensors]
    return [(name or b"").decode(errors="replace") for name in names]


def runs_main_subgraph(content: bytes) -> bool:
    """Returns whether the first signature, which CompiledModel runs, is of the main subgraph.

    Args:
        content: a flatbuffer that LiteRT can open; one without signatures runs that subgraph.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    return not model.SignatureDefsLength() or model.SignatureDefs(0).SubgraphIndex() == 0


def partitions(nodes: Sequence[Node]) -> dict[int, int]:
    """Returns the partition, counted from 0, of each operator that the delegate runs.

    LiteRT keeps the delegated operators in its list. A partition holds the operators between the
    outputs and the inputs of a delegate node.

    Args:
        nodes: all nodes of a file, see ``nodes_of``.

    Returns:
        The partition by the index of the operator.
    """
    operators = {node.index: node for node in nodes if not node.is_partition}
    producers = {tensor: node for node in operators.values() for tensor in node.outputs}
    assigned: dict[int, int] = {}
    for partition, delegate in enumerate(node for node in nodes if node.is_partition):
        pending = list(delegate.outputs)
        while pending:
            tensor = pending.pop()
            producer = producers.get(tensor)
            if tensor in delegate.inputs or producer is None or producer.index in assigned:
                continue
            assigned[producer.index] = partition
            pending += producer.inputs
    return assigned


def image_and_outputs(
    interpreter: Any, *, path: Path
) -> tuple[TensorDetails, tuple[TensorDetails, ...]]:
    """Returns the image input and the outputs of a file.

    Args:
        interpreter: LiteRT's, opened on ``path``.
        path: named in errors.

    Raises:
        InvalidArtifact: the file does not map one image to classes.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    is_classifier = (
        len(inputs) == 1
        and -1 not in inputs[0]["shape_signature"][1:]
        and classifies(len(inputs[0]["shape"]), [len(details["shape"]) for details in outputs])
    )
    if not is_classifier:
        shapes = [tuple(map(int, details["shape"])) for details in (*inputs, *outputs)]
        raise InvalidArtifact(
            f"{path} does not map one image to logits: its inputs and outputs are {shapes}"
        )
    image = _details(inputs[0])
    if image.dtype not in _IMAGE_TYPES:
        raise InvalidArtifact(f"{path} takes {image.dtype}, not {', '.join(_IMAGE_TYPES)} images")
    if image.dtype == "int8" and image.quantization is None:
        raise InvalidArtifact(f"{path} has no scale for its int8 input: the pixels are undefined")
    return image, tuple(map(_details, outputs))


def _details(details: Any) -> TensorDetails:
    scale, zero_point = details["quantization"]
    return TensorDetails(
        int(details["index"]),
        str(details["name"]),
        tuple(map(int, details["shape"])),
        np.dtype(details["dtype"]).name,
        Quantization(float(scale), int(zero_point)) if scale else None,
    )
