"""Quantizing an ONNX graph with ONNX Runtime's tools, which fuse what they wrote."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.data.dataset import Images
from cct_export.errors import ConversionError, MissingDependency
from cct_export.specs import QuantScheme

CONVOLUTIONS = ("Conv",)
DENSE = ("MatMul", "Gemm")


def quantize(content: bytes, scheme: QuantScheme, calibration: Images | None) -> bytes:
    """Quantizes a float32 graph of ``formats.onnx``.

    Args:
        content: the serialized graph.
        scheme: what to quantize, and how.
        calibration: uint8 ``(N, H, W, C)``; needed when the scheme is calibrated.

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
        source, result = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        given = Path(folder, "float.onnx")
        given.write_bytes(content)
        try:
            with _quiet_tools():
                quant_pre_process(given, source, skip_symbolic_shape=True)
                graph = onnx.load(source)
                if scheme.weights == "float16":
                    return _half(graph)
                if scheme.calibrated:
                    assert calibration is not None, "a calibrated scheme was given no images"
                    _static(source, result, graph, calibration)
                else:
                    _dynamic(source, result, graph)
            return result.read_bytes()
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            raise ConversionError(f"onnxruntime's quantizer refused the model: {error}") from error


@contextlib.contextmanager
def _quiet_tools() -> Iterator[None]:
    """The tools log advice to the root logger and print; neither is for our users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _half(graph: Any) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(graph, keep_io_types=True))
    half.topological_sort()  # the conversion puts its casts at the end
    content: bytes = half.model.SerializeToString()
    return content


def _weighted(graph: Any) -> list[str]:
    """Returns the nodes with constant weights: a product of two activations stays float."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type in CONVOLUTIONS + DENSE and constants.intersection(node.input[1:2])
    ]


def _static(source: Path, result: Path, graph: Any, calibration: Images) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # A convolution's ReLU is quantized with it: otherwise its output is quantized before the
    # ReLU, and half of the integers stand for values that the ReLU makes zero.
    relus = [node.name for node in graph.graph.node if node.op_type == "Relu"]
    quantize_static(
        source,
        result,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=_weighted(graph) + relus,
        op_types_to_quantize=[*CONVOLUTIONS, *DENSE, "Relu"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    quantized = onnx.load(result)
    _keep_products_float(quantized, _weighted(graph))
    onnx.save(quantized, result)


def _keep_products_float(model: Any, weighted: list[str]) -> None:
    """Lets products of activations read a tensor as it was before a dense layer quantized it.

    The tool gives every reader of a tensor the quantized one. On the trained keras.io model this
    is 0.2 dB and 3 % of the latency.
    """
    maker = {name: node for node in model.graph.node for name in node.output}

    def before(name: str) -> str:
        read = maker.get(name)
        write = maker.get(read.input[0]) if read and read.op_type == "DequantizeLinear" else None
        return write.input[0] if write and write.op_type == "QuantizeLinear" else name

    products = [n for n in model.graph.node if n.op_type in DENSE and n.name not in weighted]
    keys = [maker[name] for product in products for name in product.input if name in maker]
    for node in products + [node for node in keys if node.op_type == "Transpose"]:
        node.input[:] = [before(name) for name in node.input]


def _dynamic(source: Path, result: Path, graph: Any) -> None:
    """Dense layers with ranges found at run time, convolutions in float on int8 weights.

    ONNX Runtime's integer convolution with ranges found at run time is slower than the float one,
    and takes one scale for all channels of unsigned weights only: on the trained keras.io model
    3 dB worse than rounding the weights alone.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = _weighted(graph)
    quantize_dynamic(
        source,
        result,
        # The tool turns a Gemm into a MatMul of this name before it looks which to quantize.
        nodes_to_quantize=names + [f"{name}_MatMul" for name in names],
        op_types_to_quantize=list(DENSE),
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    quantized = onnx.load(result)
    _round_convolution_weights(quantized)
    onnx.save(quantized, result)


def _round_convolution_weights(model: Any) -> None:
    """Stores weights of convolutions as int8 with a scale per output channel."""
    from onnx import helper, numpy_helper

    graph = model.graph
    read = {node.input[1] for node in graph.node if node.op_type in CONVOLUTIONS}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in read]:
        weights = numpy_helper.to_array(tensor)
        largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
        rounded = np.round(weights / scale).astype(np.int8)
        names = [f"{tensor.name}_int8", f"{tensor.name}_scale"]
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(rounded, names[0]))
        graph.initializer.append(numpy_helper.from_array(scale.reshape(-1), names[1]))
        # First in the graph, so before whatever reads it.
        graph.node.insert(0, helper.make_node("DequantizeLinear", names, [tensor.name], axis=0))


class _Reader:
    """Feeds calibration images one by one, as ``onnxruntime.quantization`` wants them."""

    def __init__(self, images: Images) -> None:
        self.left = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next input, None at the end."""
        image = next(self.left, None)
        return None if image is None else {"image": image[np.newaxis].astype(np.float32)}
