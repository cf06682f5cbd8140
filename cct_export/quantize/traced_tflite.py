"""Quantizes float32 flatbuffers: by ai-edge-quantizer, to integers only by TensorFlow's."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from cct_export.data.dataset import Images
from cct_export.errors import MissingDependency, UnsupportedScheme
from cct_export.quantize.file_statistics import histograms_of, tflite_tensors
from cct_export.quantize.ranges import Range
from cct_export.quantize.statistics import Histogram
from cct_export.specs import QuantScheme
from cct_export.specs.progress import CountProgress, no_progress
from cct_export.stock_tools import refusals

# By kind of operator in a scheme: builtins, and what ai-edge-quantizer calls them.
_OPERATORS = {
    "convolution": {
        "CONV_2D": "CONV_2D",
        "DEPTHWISE_CONV_2D": "DEPTHWISE_CONV_2D",
        "TRANSPOSE_CONV": "CONV_2D_TRANSPOSE",
    },
    "dense": {"FULLY_CONNECTED": "FULLY_CONNECTED"},
}


class TFLiteQuantizer:
    """A float32 flatbuffer of ``formats.traced`` on its way to a scheme.

    Args:
        content: the flatbuffer.
        scheme: how it is quantized.

    Raises:
        MissingDependency: ai-edge-quantizer is not installed.
        UnsupportedScheme: the model has loops, and the scheme integers only.
    """

    def __init__(self, content: bytes, scheme: QuantScheme) -> None:
        try:
            import ai_edge_quantizer.quantizer  # noqa: F401
        except ImportError:
            raise MissingDependency.of("ai-edge-quantizer", "tensorflow") from None
        self.content = content
        self.scheme = scheme
        if scheme.integers_only and len(_read(content).subgraphs) > 1:
            raise UnsupportedScheme(
                f"{scheme.name} has integers only, and TFLite computes the loops of the model, as "
                "of an LSTM, in float: use int8",
                needs="a model without loops",
            )

    @cached_property
    def operators(self) -> dict[str, str]:
        """What the scheme quantizes: output tensors of operators, with ``static`` or ``dynamic``.

        Of integers only it is everything, and nothing is listed here but what has weights.
        """
        model = _read(self.content)
        graph = model.subgraphs[0]
        modes = {}
        for operator in graph.operators:
            mode = getattr(self.scheme, _kind(model, operator), "float")
            if mode != "float" and _has_weights(model, operator):
                modes[_name(graph, int(operator.outputs[0]))] = mode.partition("-")[0]
        return modes

    def histograms(
        self, images: Images, progress: CountProgress = no_progress
    ) -> dict[str, Histogram]:
        """Returns the distribution of every float tensor over images, uint8 ``(N, H, W, C)``."""
        with refusals("LiteRT", "export it without quantization"):
            return histograms_of(tflite_tensors(self.content, images), len(images), progress)

    def quantize(self, operators: Iterable[str], ranges: Mapping[str, Range], io: str) -> bytes:
        """Returns the quantized flatbuffer.

        Args:
            operators: of ``self.operators``, the ones to quantize; not used for integers only.
            ranges: smallest and largest value by tensor; empty if the scheme is not calibrated.
            io: ``int8`` or ``uint8``, type of image and logits of 8-bit integers only; image and
                logits of all others stay float32.

        Raises:
            ConversionError: the quantizer refused the model.
            UnsupportedScheme: integers only, and TFLite has no integer kernel for an operator.
        """
        if self.scheme.integers_only and self.scheme.bits == 8:
            content = self._integers(ranges, io)
        else:
            content = self._by_recipe(set(operators), ranges)
        if self.scheme.integers_only:
            self._check_integers(content)
        return content

    def _by_recipe(self, operators: set[str], ranges: Mapping[str, Range]) -> bytes:
        from ai_edge_quantizer.quantizer import Quantizer

        with refusals("ai-edge-quantizer", "use another scheme"):
            quantizer = Quantizer(bytearray(self.content))
            self._add_recipe(quantizer, operators)
            if not quantizer.get_quantization_recipe():
                return self.content
            extremes = {name: _as_extremes(range) for name, range in ranges.items()}
            result = quantizer.quantize(
                extremes if quantizer.need_calibration else None,
                # The report traces every allocation, which takes longer than the work.
                enable_progress_report=False,
            )
            return bytes(result.quantized_model)

    def _add_recipe(self, quantizer: Any, operators: set[str]) -> None:
        from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName
        from ai_edge_quantizer.recipe import AlgorithmName

        if self.scheme.integers_only:
            everything = TFLOperationName.ALL_SUPPORTED
            quantizer.add_static_config(".*", everything, self.scheme.bits, 8)
            for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
                quantizer.update_quantization_recipe(
                    ".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE
                )
            return
        chosen = f"^(?:{'|'.join(map(re.escape, sorted(operators)))});$" if operators else ""
        for kind, names in _OPERATORS.items():
            mode = getattr(self.scheme, kind)
            for operator in map(TFLOperationName, names.values()):
                if self.scheme.weights == "float16":
                    quantizer.add_weight_only_config(
                        ".*", operator, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
                    )
                elif not chosen:
                    continue
                elif mode == "static":
                    quantizer.add_static_config(chosen, operator, 8, 8)
                elif mode == "dynamic":
                    int4 = self.scheme.weights == "int4" and kind == "dense"
                    quantizer.add_dynamic_config(
                        chosen, operator, 4 if int4 else 8, QuantGranularity.CHANNELWISE
                    )

    def _integers(self, ranges: Mapping[str, Range], io: str) -> bytes:
        """Quantizes everything with TensorFlow's quantizer, which reads ranges from the tensors."""
        import tensorflow as tf
        from ai_edge_litert import schema_py_generated as schema
        from tensorflow.lite.python.convert import mlir_quantize

        model = _read(self.content)
        graph = model.subgraphs[0]
        pixels = {_name(graph, int(graph.inputs[0])): (0.0, 255.0)}
        for tensor in graph.tensors:
            low, high = {**ranges, **pixels}.get(tensor.name.decode(), (None, None))
            if low is not None and high is not None:
                tensor.quantization = schema.QuantizationParametersT()
                tensor.quantization.min = np.asarray([min(low, 0.0)], np.float32)
                tensor.quantization.max = np.asarray([max(high, 0.0)], np.float32)
        with refusals("TensorFlow's quantizer", "use int8"):
            type = tf.dtypes.as_dtype(io)
            return bytes(
                mlir_quantize(_written(model), input_data_type=type, output_data_type=type)
            )

    def _check_integers(self, content: bytes) -> None:
        model = _read(content)
        from ai_edge_litert import schema_py_generated as schema

        graph = model.subgraphs[0]
        floats = set()
        for operator in graph.operators:
            types = {graph.tensors[int(i)].type for i in operator.outputs}
            if schema.TensorType.FLOAT32 in types and _builtin(model, operator) != "DEQUANTIZE":
                floats.add(_builtin(model, operator))
        if floats:
            raise UnsupportedScheme(
                f"{self.scheme.name} has integers only, and the quantizer leaves "
                f"{', '.join(sorted(floats))} of this model in float: use int8",
                needs="operators with integer kernels",
            )


def _as_extremes(range: Range) -> dict[str, np.ndarray]:
    return {
        name: np.asarray([[value]], np.float32)
        for name, value in zip(("min", "max"), range, strict=True)
    }


def _read(content: bytes) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def _written(model: Any) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _name(graph: Any, tensor: int) -> str:
    return str(graph.tensors[tensor].name.decode())


def _builtin(model: Any, operator: Any) -> str:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) or "a custom operator"


def _kind(model: Any, operator: Any) -> str:
    """Returns what a scheme calls an operator: ``convolution``, ``dense`` or nothing."""
    builtin = _builtin(model, operator)
    return next((kind for kind, names in _OPERATORS.items() if builtin in names), "")


def _has_weights(model: Any, operator: Any) -> bool:
    """Returns whether the second input is constant: a product of two activations stays float."""
    weights = model.subgraphs[0].tensors[int(operator.inputs[1])]
    data = model.buffers[weights.buffer].data
    return data is not None and len(data) > 0
