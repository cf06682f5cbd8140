"""Calibration of float32 files: how the values of their tensors are distributed over images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cct_export.data.dataset import Images
from cct_export.errors import InvalidData
from cct_export.quantize.ranges import METHODS, Range
from cct_export.quantize.statistics import BINS, Histogram
from cct_export.specs.progress import CountProgress, no_progress

# Values of a tensor that are kept of all images: with ten times as many, ranges differ by less
# than a bin. The smallest and the largest value are exact.
MAX_VALUES = 2**17
# 16 bits have room for values beyond the calibration range, see ``params.activation_params``.
_HEADROOM = 2.0

Tensors = Mapping[str, np.ndarray]


def ranges_of(histograms: Mapping[str, Histogram], method: str, bits: int) -> dict[str, Range]:
    """Returns the range of every tensor.

    Args:
        histograms: by tensor.
        method: of ``ranges.METHODS``; 16 bits take the smallest and largest value, with headroom.
        bits: 8 or 16.
    """
    if bits == 16:
        return {name: (h.low * _HEADROOM, h.high * _HEADROOM) for name, h in histograms.items()}
    return {name: METHODS[method](histogram, bits) for name, histogram in histograms.items()}


def histograms_of(
    runs: Iterator[Tensors], count: int, progress: CountProgress = no_progress
) -> dict[str, Histogram]:
    """Returns the histogram of every tensor over all images.

    Args:
        runs: the tensors of each image, by name.
        count: number of images.
        progress: called with the number of images that are done, and of all.

    Raises:
        InvalidData: a tensor is not finite.
    """
    random = np.random.default_rng(0)
    limit = max(1, MAX_VALUES // count)
    ranges: dict[str, Range] = {}
    kept: dict[str, list[np.ndarray]] = {}
    for done, tensors in enumerate(runs, start=1):
        for name, tensor in tensors.items():
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = (min(low, float(tensor.min())), max(high, float(tensor.max())))
            values = tensor.reshape(-1)
            if len(values) > limit:
                values = values[random.integers(0, len(values), limit)]
            kept.setdefault(name, []).append(values.astype(np.float32))
        progress(done, count)
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InvalidData(f"{name} is not finite for the calibration images")
    return {name: _histogram(*ranges[name], np.concatenate(kept[name])) for name in ranges}


def _histogram(low: float, high: float, values: np.ndarray) -> Histogram:
    # A histogram needs some width, even that of a constant tensor.
    high = max(high, low + 1e-6, low + 1e-4 * abs(low))
    return Histogram(low, high, np.histogram(values.astype(np.float64), BINS, (low, high))[0])


def tflite_tensors(content: bytes, images: Images) -> Iterator[Tensors]:
    """Yields the float tensors of the main graph of a flatbuffer for each image.

    Args:
        content: float32, for one image.
        images: uint8 ``(N, H, W, C)``.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (image_input,) = interpreter.get_input_details()
    computed = {image_input["index"]} | {
        int(index) for op in interpreter._get_ops_details() for index in op["outputs"]
    }
    names = {
        tensor["index"]: tensor["name"]
        for tensor in interpreter.get_tensor_details()
        if tensor["index"] in computed and tensor["dtype"] is np.float32
    }
    for image in images:
        interpreter.set_tensor(image_input["index"], image[np.newaxis].astype(np.float32))
        interpreter.invoke()
        yield {name: interpreter.get_tensor(index) for index, name in names.items()}


def onnx_tensors(model: Any, names: Sequence[str], images: Images) -> Iterator[Tensors]:
    """Yields tensors of an ONNX graph for each image.

    Args:
        model: a float32 ``ModelProto``.
        names: of the tensors, inputs or outputs of nodes.
        images: uint8, in the layout of the graph's input.
    """
    import onnx
    import onnxruntime

    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    image_input = observed.graph.input[0].name
    inner = [name for name in names if name != image_input]
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for image in images:
        pixels = image[np.newaxis].astype(np.float32)
        values = session.run(inner, {image_input: pixels})
        yield dict(zip(inner, values, strict=True)) | {image_input: pixels}
