"""Quantizes files of traced models: TFLite by ai-edge-quantizer, ONNX by ONNX Runtime's tools."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import ConversionError, MissingDependency
from cct_export.specs import QuantScheme

CalibrationImages = Iterable[np.ndarray]
_SIGNATURE = "serving_default"
_TFLITE_OPERATORS = {
    "convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "dense": ("FULLY_CONNECTED",),
}
_CONVOLUTIONS = ("Conv",)
_DENSE = ("MatMul", "Gemm")


@contextlib.contextmanager
def _quiet_tools() -> Iterator[None]:
    """Hides the progress bars, sizes and advice that the quantizers print and log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(before)


def quantize_tflite(
    content: bytes, scheme: QuantScheme, calibration: Iterable[np.ndarray]
) -> bytes:
    """Quantizes a float32 flatbuffer of ``formats.traced``.

    Args:
        content: the flatbuffer.
        scheme: the quantization scheme.
        calibration: images, uint8 ``(H, W, C)``; empty if the scheme is not calibrated.

    Returns:
        The quantized flatbuffer; input and output stay float32.

    Raises:
        ConversionError: the quantizer refused the model.
        MissingDependency: ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer.quantizer import Quantizer
    except ImportError:
        raise MissingDependency.of("ai-edge-quantizer", "tensorflow") from None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "float.tflite")
        source.write_bytes(content)
        quantizer = Quantizer(os.fspath(source))
        _add_recipe(quantizer, scheme)
        try:
            with _quiet_tools():
                ranges = _ranges(source, calibration) if quantizer.need_calibration else None
                return bytes(quantizer.quantize(ranges).quantized_model)
        except (RuntimeError, ValueError) as error:
            raise ConversionError(f"ai-edge-quantizer refused the model: {error}") from error


def _ranges(source: Path, calibration: CalibrationImages) -> dict[str, Any]:
    """Returns the smallest and largest value of every tensor over all images.

    Quantizer.calibrate would take a moving average over the images instead, which clips values
    that occur in fewer than one image in twenty: on the trained keras.io model 24.8 dB instead of
    33.9 with photo crops, 32.1 instead of 33.8 with training images.
    """
    from ai_edge_quantizer.calibrator import CalibrationInterpreter, CalibrationMode
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    interpreter = CalibrationInterpreter(
        os.fspath(source),
        mode=CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
        qsv_update_func=min_max_update,
    )
    runner = interpreter.get_signature_runner(_SIGNATURE)
    for image in calibration:
        runner(image=image[np.newaxis].astype(np.float32))
    ranges: dict[str, Any] = interpreter.get_calibration_results()
    return ranges


def _add_recipe(quantizer: Any, scheme: QuantScheme) -> None:
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe import AlgorithmName

    for kind, operators in _TFLITE_OPERATORS.items():
        mode = getattr(scheme, kind)
        for name in operators:
            operator = TFLOperationName[name]
            if scheme.weights == "float16":
                quantizer.add_weight_only_config(
                    ".*", operator, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
                )
            elif mode == "dynamic":
                quantizer.add_dynamic_config(".*", operator, num_bits=8)
            elif mode == "static":
                quantizer.add_static_config(
                    ".*", operator, activation_num_bits=8, weight_num_bits=8
                )


def quantize_onnx(content: bytes, scheme: QuantScheme, calibration: CalibrationImages) -> bytes:
    """Quantizes a float32 graph of ``formats.traced``.

    Args:
        content: the serialized graph.
        scheme: the quantization scheme.
        calibration: images, uint8 ``(H, W, C)``; empty if the scheme is not calibrated.

    Returns:
        The quantized graph, serialized; input and output stay float32.

    Raises:
        ConversionError: the quantizer refused the model.
        MissingDependency: onnxruntime or onnx is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingDependency.of(error.name or "onnxruntime", "onnx") from None
    with tempfile.TemporaryDirectory() as folder:
        original, source, result = (
            Path(folder, f"{name}.onnx") for name in ("float", "prepared", "quantized")
        )
        original.write_bytes(content)
        try:
            with _quiet_tools():
                quant_pre_process(original, source, skip_symbolic_shape=True)
                model = onnx.load(source)
                if scheme.weights == "float16":
                    return _float16(model)
                if scheme.calibrated:
                    _static(source, result, model, calibration)
                else:
                    _dynamic(source, result, model)
            return result.read_bytes()
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            raise ConversionError(f"onnxruntime's quantizer refused the model: {error}") from error


def _float16(model: Any) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()  # the conversion puts its casts at the end
    content: bytes = converted.model.SerializeToString()
    return content


def _weighted_nodes(model: Any) -> list[str]:
    """Returns the nodes with constant weights: a product of two activations stays float."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _CONVOLUTIONS + _DENSE and constants.intersection(node.input[1:2])
    ]


def _static(source: Path, result: Path, model: Any, calibration: CalibrationImages) -> None:
    """Quantizes convolutions and dense layers with calibrated ranges, as QDQ pairs."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # A convolution's ReLU is quantized with it: otherwise its output would be quantized before the
    # ReLU, and half of the integers would represent values that the ReLU clips.
    relus = [node.name for node in model.graph.node if node.op_type == "Relu"]
    quantize_static(
        source,
        result,
        _CalibrationReader(calibration),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=_weighted_nodes(model) + relus,
        op_types_to_quantize=[*_CONVOLUTIONS, *_DENSE, "Relu"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    quantized = onnx.load(result)
    _keep_products_float(quantized, _weighted_nodes(model))
    onnx.save(quantized, result)


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


def _dynamic(source: Path, result: Path, model: Any) -> None:
    """Quantizes dense layers dynamically, and only the weights of convolutions.

    ONNX Runtime's dynamically quantized convolution is slower than the float one, and takes one
    scale for all channels of unsigned weights only: on the trained keras.io model 3 dB worse than
    quantizing the weights alone.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = _weighted_nodes(model)
    quantize_dynamic(
        source,
        result,
        # The tool replaces a Gemm by a MatMul of this name before it selects nodes.
        nodes_to_quantize=names + [f"{name}_MatMul" for name in names],
        op_types_to_quantize=list(_DENSE),
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    quantized = onnx.load(result)
    _quantize_convolution_weights(quantized)
    onnx.save(quantized, result)


def _quantize_convolution_weights(model: Any) -> None:
    """Stores the weights of convolutions as int8 with a scale per output channel."""
    from onnx import helper, numpy_helper

    graph = model.graph
    kernels = {node.input[1] for node in graph.node if node.op_type in _CONVOLUTIONS}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in kernels]:
        weights = numpy_helper.to_array(tensor)
        largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
        integers = np.round(weights / scale).astype(np.int8)
        names = [f"{tensor.name}_int8", f"{tensor.name}_scale"]
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(integers, names[0]))
        graph.initializer.append(numpy_helper.from_array(scale.reshape(-1), names[1]))
        # At the start of the graph, before all consumers.
        graph.node.insert(0, helper.make_node("DequantizeLinear", names, [tensor.name], axis=0))


class _CalibrationReader:
    """Feeds calibration images one by one, as a ``CalibrationDataReader`` of ONNX Runtime."""

    def __init__(self, images: CalibrationImages) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next input, None at the end."""
        image = next(self._images, None)
        return None if image is None else {"image": image[np.newaxis].astype(np.float32)}


Quantizer = Callable[[bytes, QuantScheme, CalibrationImages], bytes]
QUANTIZERS: dict[str, Quantizer] = {"tflite": quantize_tflite, "onnx": quantize_onnx}
