"""Building a TFLite flatbuffer, operator by operator."""

from typing import Any

import numpy as np

from cct_export.graph.plan import Shape

SIGNATURE = "serving_default"


class FlatGraph:
    """A graph of float32 activations for one image; every activation has the batch axis.

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
        self._codes: dict[str, int] = {}
        self._constants: dict[tuple[str, Shape, bytes], int] = {}

    def tensor(self, name: str, shape: Shape, type: str = "FLOAT32", buffer: int = 0) -> int:
        """Adds a tensor of a shape with the batch axis; returns its index."""
        tensor = self.schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, type)
        tensor.buffer = buffer
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, array: np.ndarray) -> int:
        """Adds a constant, as int32 if it holds integers, else as float32; the same one once."""
        kind = "INT32" if array.dtype.kind == "i" else "FLOAT32"
        stored = np.asarray(array, np.int32 if kind == "INT32" else np.float32, order="C")
        key = (kind, stored.shape, stored.tobytes())
        if key not in self._constants:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(key[2], np.uint8)
            self.model.buffers.append(buffer)
            last = len(self.model.buffers) - 1
            self._constants[key] = self.tensor(name, stored.shape, kind, last)
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
            version: of the operator, as LiteRT counts them.
            **fields: of the options, by the schema's names.

        Returns:
            ``output``.
        """
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._code(kind, version)
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray([output], np.int32)
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in fields.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return output

    def _code(self, kind: str, version: int) -> int:
        if kind not in self._codes:
            code = self.schema.OperatorCodeT()
            builtin = getattr(self.schema.BuiltinOperator, kind)
            code.builtinCode = builtin
            # The old field is one byte; operators beyond it say so there.
            code.deprecatedBuiltinCode = min(builtin, 127)
            code.version = version
            self.model.operatorCodes.append(code)
            self._codes[kind] = len(self.model.operatorCodes) - 1
        return self._codes[kind]

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
