"""Which TFLite operators chips and engines for integers take, as their makers list them.

A list says what a compiler or engine knows, not what it does well with the sizes of a model: the
Edge TPU's compiler, for one, also refuses tensors with more than three axes longer than 1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# With integer weights for float activations an operator is in none of the lists.
_FLOATS = frozenset({"float16", "float32"})


@dataclass(frozen=True)
class OperatorUse:
    """An operator as a file has it.

    Attributes:
        kind: its name in TFLite's schema, such as ``CONV_2D``.
        version: of the operator.
        types: of the activations that it reads and writes.
        constants: types of the weights, indices and others that are stored in the file.
    """

    kind: str
    version: int
    types: frozenset[str]
    constants: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OperatorList:
    """The operators that a chip or engine takes.

    Attributes:
        about: what takes them.
        source: where the list is from.
        types: of activations.
        operators: highest version of each operator; None where no version is published.
        types_of: of the activations of single operators, where they are others.
        unknown: operators of which nothing was found, neither that they are taken nor that not.
    """

    about: str
    source: str
    types: frozenset[str]
    operators: Mapping[str, int | None]
    types_of: Mapping[str, frozenset[str]]
    unknown: frozenset[str] = frozenset()

    def takes(self, use: OperatorUse) -> bool:
        """Returns whether the list has an operator in this version and with these types."""
        if use.kind not in self.operators:
            return False
        highest = self.operators[use.kind]
        hybrid = use.types & _FLOATS and use.constants & {"int4", "int8", "int16"}
        if hybrid or (highest and use.version > highest):
            return False
        return use.types <= self.types_of.get(use.kind, self.types)

    def missing(self, uses: Iterable[OperatorUse]) -> list[str]:
        """Returns what of ``uses`` is not taken, each once, such as ``GELU (int8)``."""
        refused = (use for use in uses if not self.takes(use))
        return sorted({f"{use.kind} ({', '.join(sorted(use.types))})" for use in refused})


def _unversioned(names: str) -> dict[str, int | None]:
    return dict.fromkeys(names.split())


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


# The table of the compiler's documentation, in copies that others published, and what they say of
# TRANSPOSE and TRANSPOSE_CONV in the last release, 16.0.
_EDGE_TPU = OperatorList(
    "Edge TPU",
    "coral.ai/docs/edgetpu/models-intro/#supported-operations",
    _set("int8 uint8"),
    _unversioned(
        "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED "
        "L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE "
        "REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
        "RESIZE_NEAREST_NEIGHBOR SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE STRIDED_SLICE SUB TANH "
        "TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM"
    ),
    {},
    _set("RSQRT SQUARED_DIFFERENCE SUM"),
)
# What LiteRT's compiler plugin translates for Qualcomm's QNN.
_HEXAGON = OperatorList(
    "Hexagon, by QNN",
    "github.com/google-ai-edge/LiteRT: litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md",
    _set("bool float16 float32 int4 int8 int16 int32 uint8 uint16"),
    _unversioned(
        "ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CEIL CONCATENATION "
        "CONV_2D CONV_3D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV "
        "DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV FULLY_CONNECTED "
        "GATHER GATHER_ND GELU GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D "
        "LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM "
        "MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU QUANTIZE "
        "REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN RELU RELU_0_TO_1 RELU6 RELU_N1_TO_1 RESHAPE "
        "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT SELECT_V2 SIGN SIN "
        "SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARE SQUARED_DIFFERENCE SQRT STRIDED_SLICE SUB SUM "
        "TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK"
    ),
    {},
)
# Registered by python_ops_resolver.cc, with the types that the kernels check. TFLite Micro looks
# operators up without their version: these are the highest whose features the kernels have.
_TFLM = OperatorList(
    "TFLite Micro",
    "github.com/tensorflow/tflite-micro: python/tflite_micro/python_ops_resolver.cc",
    _set("bool float32 int8 int16 int32 int64"),
    {
        **_unversioned(
            "ASSIGN_VARIABLE BATCH_TO_SPACE_ND BROADCAST_ARGS CALL_ONCE CUMSUM "
            "DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP EQUAL FILL FLOOR_DIV FLOOR_MOD GATHER_ND "
            "GREATER GREATER_EQUAL IF L2_POOL_2D LESS LESS_EQUAL LOGICAL_AND LOGICAL_NOT "
            "LOGICAL_OR NOT_EQUAL READ_VARIABLE REDUCE_ALL SELECT_V2 SHAPE SVDF "
            "UNIDIRECTIONAL_SEQUENCE_LSTM VAR_HANDLE WHILE"
        ),
        "ABS": 3, "ADD": 4, "ADD_N": 1, "ARG_MAX": 2, "ARG_MIN": 2, "AVERAGE_POOL_2D": 3,
        "BATCH_MATMUL": 4, "BROADCAST_TO": 2, "CAST": 1, "CEIL": 1, "CONCATENATION": 3,
        "CONV_2D": 5, "COS": 1, "DEPTH_TO_SPACE": 2, "DEPTHWISE_CONV_2D": 6, "DEQUANTIZE": 3,
        "DIV": 2, "ELU": 1, "EXP": 1, "EXPAND_DIMS": 1, "FLOOR": 1, "FULLY_CONNECTED": 7,
        "GATHER": 2, "HARD_SWISH": 1, "L2_NORMALIZATION": 2, "LEAKY_RELU": 2, "LOG": 1,
        "LOGISTIC": 3, "LOG_SOFTMAX": 2, "MAX_POOL_2D": 3, "MAXIMUM": 4, "MEAN": 3, "MINIMUM": 4,
        "MIRROR_PAD": 2, "MUL": 4, "NEG": 1, "PACK": 2, "PAD": 3, "PADV2": 2, "PRELU": 1,
        "QUANTIZE": 2, "REDUCE_MAX": 3, "REDUCE_MIN": 3, "RELU": 3, "RELU6": 3, "RESHAPE": 1,
        "RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "REVERSE_V2": 2, "ROUND": 1,
        "RSQRT": 2, "SIN": 1, "SLICE": 4, "SOFTMAX": 3, "SPACE_TO_BATCH_ND": 3,
        "SPACE_TO_DEPTH": 2, "SPLIT": 2, "SPLIT_V": 2, "SQRT": 1, "SQUARE": 1,
        "SQUARED_DIFFERENCE": 2, "SQUEEZE": 2, "STRIDED_SLICE": 4, "SUB": 5, "SUM": 2, "TANH": 3,
        "TRANSPOSE": 4, "TRANSPOSE_CONV": 3, "UNPACK": 2, "ZEROS_LIKE": 1,
    },
    {
        **dict.fromkeys(
            ("CEIL", "COS", "EXP", "FLOOR", "LOG", "NEG", "ROUND", "SIN", "SQRT", "SQUARE"),
            _set("float32"),
        ),
        **dict.fromkeys(
            ("DEPTH_TO_SPACE", "DIV", "ELU", "HARD_SWISH", "L2_NORMALIZATION",
             "LOG_SOFTMAX", "PRELU", "RESIZE_BILINEAR", "RSQRT", "SPACE_TO_DEPTH"),
            _set("float32 int8"),
        ),
        "GATHER": _set("float32 int8 int32"),  # the positions
        # It takes integers too, and does not rescale them to its output.
        "RELU6": _set("float32"),
        "QUANTIZE": _set("float32 int8 int16 int32 uint8"),
        "RESHAPE": _set("bool float32 int8 int16 int32 uint8"),
    },
)  # fmt: skip
OPERATOR_LISTS = {"edge-tpu": _EDGE_TPU, "hexagon": _HEXAGON, "tflm": _TFLM}
