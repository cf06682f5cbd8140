"""What TensorFlow Lite Micro makes of a file: its operators, its memory, its integers."""

import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.streams import redirected

# Operators that tflite-micro registers by default.
REGISTERED = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL
    EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX
    REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT
    SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905
)
# Methods of its resolver that are not named by the rule of ``resolver_method``.
_OTHER_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
# Bytes that a model may use here: far more than any chip that this engine is for has.
_LARGEST_ARENA = 2**26
_TOTAL = re.compile(rb"Arena allocation total (\d+) bytes")


@dataclass(frozen=True)
class Run:
    """What TensorFlow Lite Micro computed on this machine.

    Attributes:
        version: of tflite-micro.
        arena_bytes: memory for tensors and buffers.
        outputs: int8 ``(N, classes)``.
    """

    version: str
    arena_bytes: int
    outputs: np.ndarray


def operators_of(model: bytes) -> list[str]:
    """Returns the kinds of operators of a ``.tflite`` file that LiteRT runs, sorted."""
    from ai_edge_litert import schema_py_generated as schema

    root = schema.Model.GetRootAs(model, 0)
    codes = [root.OperatorCodes(index) for index in range(root.OperatorCodesLength())]
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    # Older files have the number in the first field only.
    numbers = {max(code.DeprecatedBuiltinCode(), code.BuiltinCode()) for code in codes}
    return sorted(names.get(number, f"BUILTIN {number}") for number in numbers)


def missing_operators(kinds: Iterable[str]) -> list[str]:
    """Returns those of the operators of a file that TensorFlow Lite Micro has not, sorted."""
    return sorted(set(kinds) - REGISTERED)


def resolver_method(kind: str) -> str:
    """Returns the method of ``MicroMutableOpResolver`` that adds an operator.

    Args:
        kind: an operator that TensorFlow Lite Micro has.

    Example:
        >>> resolver_method("MAX_POOL_2D")
        'AddMaxPool2D'
    """
    words = (word.upper() if word[0].isdigit() else word.capitalize() for word in kind.split("_"))
    return _OTHER_METHODS.get(kind, f"Add{''.join(words)}")


def run(model: bytes, *, inputs: np.ndarray) -> Run:
    """Runs a file on the reference kernels of TensorFlow Lite Micro.

    Args:
        model: content of a ``.tflite`` file that LiteRT runs.
        inputs: ``(N, height, width, channels)`` in the type of its input.

    Raises:
        MissingDependency: tflite-micro is not installed.
        InvalidArtifact: it cannot run the file.
    """
    try:
        from tflite_micro import runtime  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependency(
            "tflite-micro, which measures the memory of a microcontroller, is not installed: pip "
            "install tflite-micro installs it on Linux for x86-64"
        ) from error
    with tempfile.TemporaryFile() as log, redirected(2, log.fileno()):
        try:
            interpreter = runtime.Interpreter.from_bytes(model, arena_size=_LARGEST_ARENA)
            outputs = [_invoke(interpreter, image) for image in inputs]
            interpreter.print_allocations()
            problem = ""
        except (RuntimeError, ValueError) as error:
            problem = str(error)
        log.seek(0, os.SEEK_SET)
        printed = log.read()
    total = _TOTAL.search(printed)
    if problem or total is None:
        reason = printed.decode(errors="replace").strip().partition("\n")[0]
        raise InvalidArtifact(f"TensorFlow Lite Micro cannot run the model: {reason or problem}")
    version = metadata.version("tflite-micro")
    return Run(version=version, arena_bytes=int(total[1]), outputs=np.concatenate(outputs))


def _invoke(interpreter: Any, image: np.ndarray) -> np.ndarray:
    interpreter.set_input(image[np.newaxis], 0)
    interpreter.invoke()
    return np.array(interpreter.get_output(0))
