"""Quantizes float32 ONNX graphs by ONNX Runtime's tools."""

import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import Images
from cct_export.errors import MissingDependency
from cct_export.quantize.file_statistics import histograms_of, onnx_tensors
from cct_export.quantize.ranges import Range
from cct_export.quantize.statistics import Histogram
from cct_export.specs import QuantScheme
from cct_export.specs.progress import CountProgress, no_progress
from cct_export.stock_tools import refusals

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_DENSE = ("MatMul", "Gemm")
# An activation that clips is quantized with the convolution before it: otherwise the output would
# be quantized before it is clipped, and half of the integers would be of values that vanish.
_CLIPPING = ("Relu", "Clip")
# Rows of a dense layer's int4 weights that share a scale.
_BLOCK = 32
_TOOL = "onnxruntime's quantizer"
_WAY_OUT = "use another scheme, or export to TFLite"


class OnnxQuantizer:
    """A float32 graph of ``formats.traced`` on its way to a scheme.

    Args:
        content: the serialized graph.
        scheme: how it is quantized.

    Raises:
        ConversionError: the tool refused the model.
        MissingDependency: onnxruntime or onnx is not installed.
    """

    def __init__(self, content: bytes, scheme: QuantScheme) -> None:
        try:
            import onnx
            from onnxruntime.quantization.shape_inference import quant_pre_process
        except ImportError as error:
            raise MissingDependency.of(error.name or "onnxruntime", "onnx") from None
        self.scheme = scheme
        with tempfile.TemporaryDirectory() as folder, refusals(_TOOL, _WAY_OUT):
            original, prepared = Path(folder, "float.onnx"), Path(folder, "prepared.onnx")
            original.write_bytes(content)
            quant_pre_process(original, prepared, skip_symbolic_shape=True)
            self._model = onnx.load(prepared)

    @cached_property
    def operators(self) -> dict[str, str]:
        """The nodes that the scheme quantizes, with ``static``, ``dynamic`` or ``weights``."""
        if self.scheme.integers_only:
            return {node.name: "static" for node in self._model.graph.node}
        constants = {tensor.name for tensor in self._model.graph.initializer}
        modes = {}
        for node in self._model.graph.node:
            kind = _kind(node)
            if kind and constants.intersection(node.input[1:2]):
                mode = getattr(self.scheme, kind).partition("-")[0]
                modes[node.name] = "weights" if mode == "float" else mode
        return modes if self.scheme.quantizes_weights else {}

    def histograms(
        self, images: Images, progress: CountProgress = no_progress
    ) -> dict[str, Histogram]:
        """Returns the distribution of the tensors that have a range, see ``TFLiteQuantizer``."""
        constants = {tensor.name for tensor in self._model.graph.initializer}
        names = [
            name
            for node in self._model.graph.node
            if node.name in self.operators or node.op_type in _CLIPPING
            for name in (*node.input[:1], *node.output)
            if name not in constants
        ]
        with refusals("ONNX Runtime", "export it without quantization"):
            tensors = onnx_tensors(self._model, list(dict.fromkeys(names)), images)
            return histograms_of(tensors, len(images), progress)

    def quantize(self, operators: Iterable[str], ranges: Mapping[str, Range], io: str) -> bytes:
        """Returns the quantized graph, serialized; input and output stay float32.

        Args:
            operators: of ``self.operators``, the ones to quantize.
            ranges: smallest and largest value by tensor; empty if the scheme is not calibrated.
            io: not used.

        Raises:
            ConversionError: the tool refused the model.
        """
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        chosen = [name for name in self.operators if name in set(operators)]
        with refusals(_TOOL, _WAY_OUT):
            if self.scheme.weights == "float16":
                model = _float16(model)
            elif self.scheme.integers_only:
                model = _everything(model, self.scheme.bits, ranges)
            elif self.scheme.calibrated:
                model = _static(model, chosen, ranges)
            else:
                model = self._weights(model, chosen)
        content: bytes = model.SerializeToString()
        return content

    def _weights(self, model: Any, chosen: list[str]) -> Any:
        """Quantizes dense layers dynamically or to int4, and only the weights of convolutions."""
        convolutions = {
            node.name for node in model.graph.node if node.op_type in _CONVOLUTIONS
        }.intersection(chosen)
        dense = [name for name in chosen if name not in convolutions]
        if self.scheme.dense == "dynamic" and dense:
            model = _dynamic(model, dense)
        elif self.scheme.weights == "int4":
            _store_weights(model, set(dense), bits=4)
        _store_weights(model, convolutions, bits=8)
        return model


def _kind(node: Any) -> str:
    """Returns what a scheme calls a node: ``convolution``, ``dense`` or nothing."""
    if node.op_type in _CONVOLUTIONS:
        return "convolution"
    return "dense" if node.op_type in _DENSE else ""


def _float16(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()  # the conversion puts its casts at the end
    return converted.model


def _everything(model: Any, bits: int, ranges: Mapping[str, Range]) -> Any:
    """Puts every operator between QDQ pairs, as the QNN provider wants them."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    activations = QuantType.QUInt8 if bits == 8 else QuantType.QUInt16
    config = get_qnn_qdq_config(
        model, None, activation_type=activations, weight_type=QuantType.QInt8, per_channel=True
    )
    extremes = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=config.per_channel,
        reduce_range=False,
        weight_qType=config.weight_type,
        activation_qType=config.activation_type,
        tensors_range=TensorsData(CalibrationMethod.MinMax, extremes),
        nodes_to_quantize=[],
        nodes_to_exclude=config.nodes_to_exclude,
        op_types_to_quantize=config.op_types_to_quantize,
        extra_options=config.extra_options,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _static(model: Any, chosen: list[str], ranges: Mapping[str, Range]) -> Any:
    """Quantizes convolutions and dense layers with calibrated ranges, as QDQ pairs.

    Outputs of dense layers stay float, as in the plan of a CCT: logits on a grid of 256 values are
    what costs most.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    if not chosen:
        return model
    # With a grid in front of a loop, ONNX Runtime ends the process when it opens the file.
    loops = any(
        attribute.HasField("g") for node in model.graph.node for attribute in node.attribute
    )
    convolved = {
        name
        for node in model.graph.node
        if node.name in chosen and node.op_type in _CONVOLUTIONS
        for name in node.output
    }
    clipping = [
        node.name
        for node in model.graph.node
        if node.op_type in _CLIPPING and node.input[0] in convolved and not loops
    ]
    extremes = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, extremes),
        nodes_to_quantize=chosen + clipping,
        nodes_to_exclude=[],
        op_types_to_quantize=[*_CONVOLUTIONS, *_DENSE, *_CLIPPING],
        extra_options={
            "OpTypesToExcludeOutputQuantization": [*_DENSE, *(_CONVOLUTIONS if loops else ())]
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # the tool puts its pairs at the end
    quantized = quantizer.model.model
    _keep_products_float(quantized, chosen)
    return quantized


def _keep_products_float(model: Any, weighted: list[str]) -> None:
    """Lets products of two activations consume the tensors as they were before quantization.

    The tool gives every consumer of a tensor the quantized one. On the trained keras.io model this
    costs 0.2 dB and 3 % of the latency.
    """
    producers = {name: node for node in model.graph.node for name in node.output}

    def unquantized(name: str) -> str:
        dequantize = producers.get(name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return name
        quantize = producers.get(dequantize.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return name
        return str(quantize.input[0])

    products = [n for n in model.graph.node if n.op_type in _DENSE and n.name not in weighted]
    sources = [producers[name] for node in products for name in node.input if name in producers]
    for node in products + [node for node in sources if node.op_type == "Transpose"]:
        node.input[:] = [unquantized(name) for name in node.input]


def _dynamic(model: Any, chosen: list[str]) -> Any:
    """Quantizes dense layers dynamically.

    Not convolutions: ONNX Runtime's dynamically quantized one is slower than the float one, and
    takes one scale for all channels of unsigned weights only: on the trained keras.io model 3 dB
    worse than quantizing the weights alone.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "quantized.onnx")
        quantize_dynamic(
            model,
            result,
            # The tool replaces a Gemm by a MatMul of this name before it selects nodes.
            nodes_to_quantize=chosen + [f"{name}_MatMul" for name in chosen],
            op_types_to_quantize=list(_DENSE),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(result)


def _store_weights(model: Any, chosen: set[str], *, bits: int) -> None:
    """Stores the weights of nodes as integers; the arithmetic stays float.

    Eight bits have a scale for each output channel, four also for every ``_BLOCK`` inputs.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    axes = {node.input[1]: _channel_axis(node) for node in graph.node if node.name in chosen}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in axes]:
        weights, axis = numpy_helper.to_array(tensor), axes[tensor.name]
        if bits == 4:
            integers, scale = _in_blocks(weights, 1 - axis)
            attributes = {"axis": 1 - axis, "block_size": _BLOCK}
            stored = helper.make_tensor(
                f"{tensor.name}_int4", TensorProto.INT4, weights.shape, integers.reshape(-1)
            )
        else:
            others = tuple(index for index in range(weights.ndim) if index != axis)
            largest = np.abs(weights).max(axis=others, keepdims=True)
            scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
            integers = np.round(weights / scale).astype(np.int8)
            scale, attributes = scale.reshape(-1), {"axis": axis}
            stored = numpy_helper.from_array(integers, f"{tensor.name}_int8")
        scales = numpy_helper.from_array(scale, f"{tensor.name}_scale")
        graph.initializer.remove(tensor)
        graph.initializer.extend([stored, scales])
        # At the start of the graph, before all consumers.
        names = [stored.name, scales.name]
        graph.node.insert(
            0, helper.make_node("DequantizeLinear", names, [tensor.name], **attributes)
        )


def _in_blocks(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a matrix as integers from -7 to 7, and the scale of each block along ``axis``."""
    count = -(-weights.shape[axis] // _BLOCK)
    blocks = np.array_split(weights, range(_BLOCK, count * _BLOCK, _BLOCK), axis)
    largest = np.concatenate([np.abs(block).max(axis, keepdims=True) for block in blocks], axis)
    scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(7)
    rows = np.repeat(scale, _BLOCK, axis).take(range(weights.shape[axis]), axis)
    return np.round(weights / rows).astype(np.int8), scale


def _channel_axis(node: Any) -> int:
    """Returns the axis of a node's weights that are its output channels."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv" or (node.op_type == "Gemm" and flags.get("transB")):
        return 0
    return 1
