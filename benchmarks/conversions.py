"""Every conversion that is compared: those of the libraries' own converters, and cct-export's."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cct_export
from cct_export.data import read, sampling
from cct_export.formats.traced import convert_onnx
from cct_export.specs import CALIBRATION_SAMPLES, ExportSpec

OPSET = 18
# ONNX Runtime's quantizers start from this file.
STOCK_ONNX = "stock onnx float32"
# What cct-export calls a scheme and what the stock conversion beside it is called, by format.
SCHEMES = {
    "tflite": {
        "none": "float32",
        "fp16": "fp16",
        "int8-dynamic": "dynamic",
        "int8": "full",
        "int4-weight": "dynamic",
        "int8-full": "full",
        "int16x8": "full",
    },
    "onnx": {
        "none": "float32",
        "fp16": "fp16",
        "int8-dynamic": "dynamic",
        "int8": "static",
        "int4-weight": "dynamic",
    },
}
# Files of a scheme with one option, by format: name, scheme, arguments, and the stock conversion.
OPTIONS = {
    "tflite": (("none-speed", "none", {"optimize": "speed"}, "float32"),),
    "onnx": (
        ("none-one-image", "none", {"dynamic_batch": False}, "float32"),
        ("int8-one-image", "int8", {"dynamic_batch": False}, "static"),
    ),
}
FLOAT_SCHEMES = ("none", "none-speed", "none-one-image", "float32", "fp16", "export")


@dataclass(frozen=True)
class Conversion:
    """A way from the Keras model to a file.

    Attributes:
        name: ``cct-export`` or ``stock``, the format, and the scheme.
        format: ``tflite`` or ``onnx``.
        baseline: name of the stock conversion that it is compared with; its own if it is one.
        convert: writes the file.
    """

    name: str
    format: str
    baseline: str
    convert: Callable[[Path], None]

    @property
    def ours(self) -> bool:
        """Whether it is cct-export's."""
        return self.baseline != self.name

    @property
    def precision(self) -> str:
        """``float32`` or ``int8``: the matrix product that its roofline is of."""
        return "float32" if self.name.split()[-1] in FLOAT_SCHEMES else "int8"

    def path(self, folder: Path) -> Path:
        """Returns where the file goes."""
        return folder / f"{self.name.replace(' ', '-')}.{self.format}"


def conversions(
    model: str, data: str, folder: Path, schemes: Sequence[str] = ()
) -> list[Conversion]:
    """Returns the conversions in an order in which they can be made.

    Args:
        model: what the commands take as MODEL.
        data: what they take as ``--data``.
        folder: where the files go.
        schemes: those of cct-export, with the stock conversions beside them; all if empty.
    """
    stock, ours = list(_stock(model, data, folder)), list(_ours(model, data))
    if not schemes:
        return stock + ours
    ours = [conversion for conversion in ours if conversion.name.split()[-1] in schemes]
    needed = {conversion.baseline for conversion in ours} | {STOCK_ONNX}
    return [conversion for conversion in stock if conversion.name in needed] + ours


def cold_export_s(model: str, folder: Path) -> float:
    """Returns the seconds that ``cct-export tflite`` takes in a new process."""
    command = [sys.executable, "-m", "cct_export", "tflite", model]
    start = time.perf_counter()
    subprocess.run([*command, "-q", "-o", folder / "cold.tflite"], check=True)
    return time.perf_counter() - start


# cct-export


def _ours(model: str, data: str) -> Iterator[Conversion]:
    for format, schemes in SCHEMES.items():
        plain = ((scheme, scheme, {}, baseline) for scheme, baseline in schemes.items())
        for name, scheme, options, baseline in (*plain, *OPTIONS[format]):
            convert = partial(_export, model, format, scheme, data, options)
            ours, stock = f"cct-export {format} {name}", f"stock {format} {baseline}"
            yield Conversion(ours, format, stock, convert)


def _export(
    model: str, format: str, scheme: str, data: str, options: dict[str, Any], path: Path
) -> None:
    export = cct_export.export_tflite if format == "tflite" else cct_export.export_onnx
    exported = export(model, output=path, scheme=scheme, data=data, **options)
    if not exported.parity.passed:
        raise RuntimeError("; ".join(exported.parity.failures))


# The libraries' own converters


def _stock(model: str, data: str, folder: Path) -> Iterator[Conversion]:
    loaded = cct_export.load(model)
    dataset = read(data, loaded.image_shape)
    images = sampling.calibration(dataset, loaded.image_shape, CALIBRATION_SAMPLES).images

    def stock(name: str, format: str, convert: Callable[[Path], None]) -> Conversion:
        return Conversion(name, format, name, convert)

    for scheme in ("float32", "fp16", "dynamic", "full"):
        convert = partial(tflite, loaded.model, scheme, images)
        yield stock(f"stock tflite {scheme}", "tflite", convert)
    yield stock("stock onnx keras export", "onnx", partial(keras_onnx, loaded.model))
    whole = stock(STOCK_ONNX, "onnx", partial(onnx, loaded.model))
    yield whole
    for scheme in ("fp16", "dynamic", "static"):
        convert = partial(onnx_quantized, whole.path(folder), scheme, images)
        yield stock(f"stock onnx {scheme}", "onnx", convert)


def tflite(model: Any, scheme: str, images: np.ndarray, path: Path) -> None:
    """Converts with ``tf.lite.TFLiteConverter.from_keras_model``.

    Args:
        model: the Keras model, augmentation included.
        scheme: ``float32``, ``fp16``, ``dynamic`` (int8 weights) or ``full`` (int8 throughout).
        images: uint8 ``(N, H, W, C)``, the representative dataset of ``full``.
        path: file to write.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "full":
        pixels = images.astype(np.float32)
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in pixels)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


def keras_onnx(model: Any, path: Path) -> None:
    """Exports with Keras' own ``model.export(format="onnx")``, as the example is published."""
    model = with_augmentation(model)
    model.predict_on_batch(np.zeros((1, *model.input_shape[1:]), np.float32))
    model.export(path, format="onnx", verbose=False)


def with_augmentation(model: Any) -> Any:
    """Returns the model with the example's augmentation, which does nothing at inference."""
    import keras
    from keras import layers

    height, width, channels = model.input_shape[1:]
    image = keras.Input((height, width, channels))
    x = layers.RandomFlip("horizontal")(layers.RandomCrop(height, width)(image))
    return keras.Model(image, model(x))


def onnx(model: Any, path: Path) -> None:
    """Converts the model without augmentation with tf2onnx, for any batch.

    tf2onnx lacks the operator of Keras' exact GELU: it gets what cct-export gives it of models
    that it does not fold.
    """
    path.write_bytes(convert_onnx(model, ExportSpec("onnx", opset=OPSET, dynamic_batch=True)))


def onnx_quantized(source: Path, scheme: str, images: np.ndarray, path: Path) -> None:
    """Quantizes a float32 file with ONNX Runtime's tools and their defaults.

    Args:
        source: what ``onnx`` wrote.
        scheme: ``fp16``, ``dynamic`` or ``static`` (QDQ).
        images: uint8 ``(N, H, W, C)``, which calibrate ``static``.
        path: file to write.
    """
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    if scheme == "dynamic":
        quantize_dynamic(source, path)
    elif scheme == "static":
        quantize_static(source, path, _CalibrationReader(source, images))
    else:
        import onnx as library
        from onnxruntime.transformers.float16 import convert_float_to_float16

        half = convert_float_to_float16(library.load(source), keep_io_types=True)
        path.write_bytes(half.SerializeToString())


class _CalibrationReader:
    """Feeds the calibration images one by one."""

    def __init__(self, source: Path, images: np.ndarray) -> None:
        import onnx as library

        self.name = library.load(source).graph.input[0].name
        self.images = iter(images.astype(np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next input, None at the end."""
        image = next(self.images, None)
        return None if image is None else {self.name: image[np.newaxis]}
