"""Builds a TFLite flatbuffer, operator by operator."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cct_export import memory
from cct_export.graph.steps import Shape

SIGNATURE = "serving_default"
# Room for what is no content of a buffer; more is made where a graph needs it.
_GRAPH_BYTES = 2**20
# The numpy types that hold constants; two 4-bit integers are packed into a byte.
_NUMPY_TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT4": np.int8,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}

# The first versions of operators that take 8-bit and 16-bit integers; 1 for all others.
_VERSIONS = {
    "ADD": (2, 4), "AVERAGE_POOL_2D": (2, 3), "BATCH_MATMUL": (2, 3), "CONCATENATION": (2, 3),
    "CONV_2D": (3, 4), "DEQUANTIZE": (2, 3), "EXP": (2, 2), "FULLY_CONNECTED": (5, 7),
    "GATHER": (2, 4), "GELU": (2, 2), "LOGISTIC": (2, 3), "MAX_POOL_2D": (2, 3), "MEAN": (2, 3),
    "MUL": (2, 4), "PAD": (2, 3), "PADV2": (2, 2), "REDUCE_MAX": (2, 3), "RELU": (2, 3),
    "RELU6": (2, 3), "RESIZE_BILINEAR": (2, 4), "RSQRT": (2, 3), "SLICE": (2, 4), "SOFTMAX": (2, 3),
    "SUB": (2, 5), "SUM": (2, 2), "TANH": (2, 3), "TRANSPOSE": (2, 4),
}  # fmt: skip


class Quantization(NamedTuple):
    """Scales and zero point of an integer tensor.

    Several scales belong to the first axis.
    """

    scale: np.ndarray
    zero_point: int = 0


class FlatGraph:
    """A graph for one image; every activation has the batch axis.

    Tensors are identified by their index in the flatbuffer.
    """

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = b"cct-export"
        self.model.buffers = [schema.BufferT()]  # by convention the first one is empty
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.name = b"main"
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]
        self._codes: dict[tuple[str, int], int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}

    def tensor(
        self,
        name: str,
        shape: Shape,
        type: str = "FLOAT32",
        buffer: int = 0,
        quantization: Quantization | None = None,
    ) -> int:
        """Adds a tensor.

        Args:
            name: for people.
            shape: with the batch axis.
            type: its name in the schema.
            buffer: index of a constant's content; 0 for activations.
            quantization: of integers.

        Returns:
            Its index.
        """
        tensor = self.schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, type)
        tensor.buffer = buffer
        if quantization is not None:
            scales = np.atleast_1d(np.asarray(quantization.scale, np.float32))
            zero_points = np.full(len(scales), quantization.zero_point, np.int64)
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = zero_points
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self,
        name: str,
        array: np.ndarray,
        type: str = "FLOAT32",
        quantization: Quantization | None = None,
    ) -> int:
        """Adds a constant and returns its index; equal constants share one tensor."""
        stored = np.asarray(array, _NUMPY_TYPES[type], order="C")
        content = _pack_int4(stored) if type == "INT4" else stored.reshape(-1).view(np.uint8)
        scales, zero_point = b"", None
        if quantization is not None:
            scales = np.asarray(quantization.scale, np.float32).tobytes()
            zero_point = quantization.zero_point
        # A key of the content itself would keep a copy of it.
        digest = hashlib.sha256(content.data).digest()
        key = (type, stored.shape, digest, scales, zero_point)
        if key not in self._constants:
            buffer = self._buffer(content)
            self._constants[key] = self.tensor(name, stored.shape, type, buffer, quantization)
        return self._constants[key]

    def _buffer(self, content: NDArray[np.uint8]) -> int:
        buffer = self.schema.BufferT()
        buffer.data = content
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def operator(
        self,
        kind: str,
        inputs: list[int],
        output: int,
        options: str = "",
        version: int = 1,
        **fields: Any,
    ) -> int:
        """Adds a builtin operator.

        Args:
            kind: its name in the schema, such as ``CONV_2D``.
            inputs: tensors; −1 where an optional one is missing.
            output: the tensor that it produces.
            options: name of its options in the schema, such as ``Conv2DOptions``.
            version: minimum operator version; the types of the inputs may require a later one.
            **fields: of the options, by the schema's names.

        Returns:
            ``output``.
        """
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._code(kind, max(version, self._version(kind, inputs)))
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray([output], np.int32)
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in fields.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return output

    def _version(self, kind: str, inputs: list[int]) -> int:
        """Returns the first version that takes the types of the inputs."""
        types = {self.graph.tensors[index].type for index in inputs if index >= 0}
        int8_version, int16_version = _VERSIONS.get(kind, (1, 1))
        if self.schema.TensorType.INT16 in types:
            return int16_version
        return int8_version if self.schema.TensorType.INT8 in types else 1

    def _code(self, kind: str, version: int) -> int:
        if (kind, version) not in self._codes:
            code = self.schema.OperatorCodeT()
            builtin = getattr(self.schema.BuiltinOperator, kind)
            code.builtinCode = builtin
            # The deprecated field is one byte; 127 marks operators beyond it.
            code.deprecatedBuiltinCode = min(builtin, 127)
            code.version = version
            self.model.operatorCodes.append(code)
            self._codes[kind, version] = len(self.model.operatorCodes) - 1
        return self._codes[kind, version]

    def serialize(
        self, image: tuple[str, int], logits: tuple[str, int], metadata: Mapping[str, str | bytes]
    ) -> bytes:
        """Returns the flatbuffer with its signature.

        Args:
            image: name and tensor of the input.
            logits: name and tensor of the output.
            metadata: names and contents.
        """
        signature = self.schema.SignatureDefT()
        signature.signatureKey = SIGNATURE.encode()
        signature.subgraphIndex = 0
        signature.inputs = [self._tensor_map(*image)]
        signature.outputs = [self._tensor_map(*logits)]
        self.model.signatureDefs = [signature]
        self.graph.inputs = np.asarray([image[1]], np.int32)
        self.graph.outputs = np.asarray([logits[1]], np.int32)
        add_metadata(self.model, metadata)
        return serialized(self.model)

    def _tensor_map(self, name: str, tensor: int) -> Any:
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), tensor
        return entry


def serialized(model: Any) -> bytes:
    """Returns a ``ModelT`` as a flatbuffer in which equal vectors are there once.

    Most are the zero points of channels, eight bytes each, which are all zeros. The contents of its
    buffers are gone then: there is one copy of a large model's weights at a time.
    """
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # it has no types
        def CreateNumpyVector(self, vector: np.ndarray) -> int:  # noqa: N802
            # Contents of buffers are shared before, by ``constant``, or change in the file.
            if vector.dtype == np.uint8:
                return int(super().CreateNumpyVector(vector))
            key = (vector.dtype.str, vector.tobytes())
            if key not in offsets:
                offsets[key] = super().CreateNumpyVector(vector)
            return offsets[key]

    offsets: dict[tuple[str, bytes], int] = {}
    contents = [buffer.data for buffer in model.buffers if buffer.data is not None]
    # Memory that is not written to yet takes none: room for all of it, which need not grow.
    builder = SharingBuilder(_GRAPH_BYTES + sum(map(len, contents)))
    del contents
    builder.Finish(_packed(model, builder), file_identifier=b"TFL3")
    memory.give_back()
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _packed(model: Any, builder: Any) -> int:
    """Packs a ``ModelT``, and drops the content of each of its buffers behind it."""

    def packing(buffer: Any, pack: Callable[[Any], int]) -> Callable[[Any], int]:
        def run(builder: Any) -> int:
            offset = pack(builder)
            buffer.data = None
            return offset

        return run

    for buffer in model.buffers:
        buffer.Pack = packing(buffer, buffer.Pack)
    return int(model.Pack(builder))


def add_metadata(model: Any, metadata: Mapping[str, str | bytes]) -> None:
    """Stores contents under their names in a ``ModelT``, each in a buffer of its own."""
    from ai_edge_litert import schema_py_generated as schema

    entries = list(model.metadata or [])
    for name, content in metadata.items():
        buffer = schema.BufferT()
        stored = content if isinstance(content, bytes) else content.encode()
        buffer.data = np.frombuffer(stored, np.uint8)
        model.buffers.append(buffer)
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), len(model.buffers) - 1
        entries.append(entry)
    if entries:
        model.metadata = entries


def _pack_int4(integers: np.ndarray) -> NDArray[np.uint8]:
    """Returns 4-bit integers packed in pairs, the first in the lower half of the byte."""
    flat = integers.reshape(-1).astype(np.uint8) & 15
    even = np.append(flat, 0) if len(flat) % 2 else flat
    packed: NDArray[np.uint8] = (even[::2] | even[1::2] << 4).astype(np.uint8)
    return packed
