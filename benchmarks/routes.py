"""Every way from the model to a file that is compared, ours each beside a stock one."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import stock

import cct_export

# ONNX Runtime's quantizers begin with this one's file.
WHOLE = "stock onnx float32"


@dataclass(frozen=True)
class Route:
    """A way to a file.

    Attributes:
        name: for the table and the file.
        format: ``tflite`` or ``onnx``.
        precision: ``float32`` or ``int8``, which roofline counts.
        twin: the stock route that it is compared with; its own name if it is one.
        make: writes the file.
    """

    name: str
    format: str
    precision: str
    twin: str
    make: Callable[[Path], Any]

    @property
    def ours(self) -> bool:
        """Whether this project made it."""
        return self.twin != self.name


def routes(model: str, data: str, folder: Path) -> Iterator[Route]:
    """Gives the routes in an order in which they can be made.

    Args:
        model: what the commands take as MODEL.
        data: what they take as ``--data``.
        folder: where the files go.
    """
    keras_model = cct_export.load(model).model
    images = _calibration(keras_model, data)
    for scheme in ("float32", "fp16", "dynamic", "full"):
        name = f"stock tflite {scheme}"
        precision = "int8" if scheme in ("dynamic", "full") else "float32"

        def convert(path: Path, scheme: str = scheme) -> None:
            stock.tflite(keras_model, path, scheme, images)

        yield Route(name, "tflite", precision, name, convert)
    exported = "stock keras export onnx"
    yield Route(
        exported, "onnx", "float32", exported, lambda path: stock.keras_onnx(keras_model, path)
    )
    yield Route(WHOLE, "onnx", "float32", WHOLE, lambda path: stock.onnx(keras_model, path))
    source = file_of(folder, WHOLE, "onnx")
    for scheme in ("fp16", "dynamic", "static"):
        name = f"stock onnx {scheme}"
        precision = "float32" if scheme == "fp16" else "int8"

        def quantize(path: Path, scheme: str = scheme) -> None:
            stock.onnx_quantized(source, path, scheme, images)

        yield Route(name, "onnx", precision, name, quantize)
    yield from _ours(model, data)


def chosen(every: Iterable[Route], schemes: Sequence[str]) -> list[Route]:
    """Returns our routes of ``schemes``, and the stock ones beside them or that those begin with.

    Args:
        every: the routes.
        schemes: quantization schemes; all if empty.
    """
    found = list(every)
    if not schemes:
        return found
    ours = [route for route in found if route.ours and route.name.split()[-1] in schemes]
    wanted = {route.twin for route in ours} | {WHOLE}
    return [route for route in found if route in ours or route.name in wanted]


def _ours(model: str, data: str) -> Iterator[Route]:
    static = {"tflite": "full", "onnx": "static"}
    for format, export in (
        ("tflite", cct_export.export_tflite),
        ("onnx", cct_export.export_onnx),
    ):
        twins = {
            "none": "float32",
            "fp16": "fp16",
            "int8-dynamic": "dynamic",
            "int8": static[format],
            "int4-weight": "dynamic",
        }
        if format == "tflite":
            twins |= {"int8-full": "full", "int16x8": "full"}
        for scheme, twin in twins.items():
            precision = "float32" if scheme in ("none", "fp16") else "int8"

            def make(path: Path, export: Any = export, scheme: str = scheme) -> None:
                outcome = export(model, path, scheme, data=data)
                if not outcome.parity.passed:
                    raise RuntimeError("; ".join(outcome.parity.failures))

            yield Route(
                f"cct-export {format} {scheme}", format, precision, f"stock {format} {twin}", make
            )


def _calibration(model: Any, data: str) -> np.ndarray:
    """Returns the 200 training images that our own calibrated schemes take."""
    from cct_export.data import read, sampling

    shape = tuple(model.input_shape[1:])
    images: np.ndarray = sampling.calibration(read(data, shape), shape, 200).images
    return images


def file_of(folder: Path, name: str, format: str) -> Path:
    """Returns where the file of a route goes."""
    return folder / f"{name.replace(' ', '-')}.{format}"


def cold_export_s(model: str, folder: Path) -> float:
    """Returns the seconds that ``cct-export tflite`` takes in a fresh process, parity included."""
    command = [sys.executable, "-m", "cct_export", "tflite", model]
    started = time.perf_counter()
    subprocess.run([*command, "-q", "-o", folder / "cold.tflite"], check=True)
    return time.perf_counter() - started
