"""Building a TFLite flatbuffer, operator by operator."""

from typing import Any

import numpy as np

from cct_export.graph.steps import Shape

SIGNATURE = "serving_default"
# What numpy holds before it is written; two integers of 4 bits share a byte.
_STORED = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT4": np.int8,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}

# The first versions of operators that take 8 and 16 bits; 1 and 1 for what is not here.
_VERSIONS = {
    "ADD": (2, 4), "BATCH_MATMUL": (2, 3), "CONV_2D": (3, 4), "DEQUANTIZE": (2, 3),
    "FULLY_CONNECTED": (5, 7), "GELU": (2, 2), "MAX_POOL_2D": (2, 3), "MEAN": (2, 3),
    "MUL": (2, 4), "PAD": (2, 3), "PADV2": (2, 2), "RSQRT": (2, 3), "SLICE": (2, 4),
    "SOFTMAX": (2, 3), "SUB": (2, 5), "TRANSPOSE": (2, 4),
}  # fmt: skip


class FlatGraph:
    """A graph for one image; every activation has the batch axis.

    Tensors are known by their index in the flatbuffer.
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
        grid: tuple[np.ndarray, int] | None = None,
        axis: int = 0,
    ) -> int:
        """Adds a tensor.

        Args:
            name: for people.
            shape: with the batch axis.
            type: its name in the schema.
            buffer: index of what a constant holds; 0 for activations.
            grid: scales and zero point of integers.
            axis: to which several scales belong.

        Returns:
            Its index.
        """
        tensor = self.schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, type)
        tensor.buffer = buffer
        if grid is not None:
            scales = np.atleast_1d(np.asarray(grid[0], np.float32))
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.full(len(scales), grid[1], np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self,
        name: str,
        array: np.ndarray,
        type: str = "FLOAT32",
        grid: tuple[np.ndarray, int] | None = None,
        axis: int = 0,
    ) -> int:
        """Adds a constant of a type, the same one once; see ``tensor``."""
        stored = np.asarray(array, _STORED[type], order="C")
        packed = _pairs(stored) if type == "INT4" else stored.tobytes()
        scales = b"" if grid is None else np.asarray(grid[0], np.float32).tobytes()
        key = (type, stored.shape, packed, scales, None if grid is None else (grid[1], axis))
        if key not in self._constants:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(packed, np.uint8)
            self.model.buffers.append(buffer)
            last = len(self.model.buffers) - 1
            self._constants[key] = self.tensor(name, stored.shape, type, last, grid, axis)
        return self._constants[key]

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
            output: tensor that it makes.
            options: name of its options in the schema, such as ``Conv2DOptions``.
            version: of the operator at least, as LiteRT counts them; types of inputs may ask for
                a later one.
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
        eight, sixteen = _VERSIONS.get(kind, (1, 1))
        if self.schema.TensorType.INT16 in types:
            return sixteen
        return eight if self.schema.TensorType.INT8 in types else 1

    def _code(self, kind: str, version: int) -> int:
        if (kind, version) not in self._codes:
            code = self.schema.OperatorCodeT()
            builtin = getattr(self.schema.BuiltinOperator, kind)
            code.builtinCode = builtin
            # The old field is one byte; operators beyond it say so there.
            code.deprecatedBuiltinCode = min(builtin, 127)
            code.version = version
            self.model.operatorCodes.append(code)
            self._codes[kind, version] = len(self.model.operatorCodes) - 1
        return self._codes[kind, version]

    def serialize(self, image: tuple[str, int], logits: tuple[str, int]) -> bytes:
        """Returns the flatbuffer with its signature.

        Args:
            image: name and tensor of the input.
            logits: name and tensor of the output.
        """
        from ai_edge_litert.tools import flatbuffer_utils

        signature = self.schema.SignatureDefT()
        signature.signatureKey = SIGNATURE.encode()
        signature.subgraphIndex = 0
        signature.inputs, signature.outputs = [self._end(*image)], [self._end(*logits)]
        self.model.signatureDefs = [signature]
        self.graph.inputs = np.asarray([image[1]], np.int32)
        self.graph.outputs = np.asarray([logits[1]], np.int32)
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    def _end(self, name: str, tensor: int) -> Any:
        end = self.schema.TensorMapT()
        end.name, end.tensorIndex = name.encode(), tensor
        return end


def _pairs(integers: np.ndarray) -> bytes:
    """Returns integers of 4 bits, two in a byte, the first in the lower half."""
    flat = integers.reshape(-1).astype(np.uint8) & 15
    even = np.append(flat, 0) if len(flat) % 2 else flat
    return (even[::2] | even[1::2] << 4).astype(np.uint8).tobytes()
