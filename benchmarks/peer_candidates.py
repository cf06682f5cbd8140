"""Which files peers.py compares: those of the stock converters, of other engines, and ours."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peer_environments

import cct_export
from cct_export.errors import NotAvailable

if TYPE_CHECKING:
    from conversions import Conversion

# onnx2torch knows no later operator set.
OPSET_FOR_TORCH = 18
STOCK, OURS = "stock", "ours"
# Name, and the conversion in conversions.py whose file it is.
STOCK_FILES = {
    "stock tflite float32": "stock tflite float32",
    "stock tflite int8": "stock tflite full",
    "stock onnx float32": "stock onnx float32",
    "stock onnx int8": "stock onnx static",
}
OUR_FILES = {
    "cct-export tflite float32": "cct-export tflite none",
    "cct-export tflite float32 speed": "cct-export tflite none-speed",
    "cct-export tflite int8": "cct-export tflite int8",
    "cct-export onnx float32": "cct-export onnx none",
    "cct-export onnx int8": "cct-export onnx int8",
}
ENGINES = {"tflite": "litert", "onnx": "onnxruntime"}
# Name, what --engines calls it, precision, and the file of ours that it is made of.
PEER_FILES = (
    ("openvino float32", "openvino", "float32", "one-image.onnx"),
    ("openvino bf16", "openvino", "bf16", "one-image.onnx"),
    ("openvino nncf int8", "openvino", "int8", "one-image.onnx"),
    ("mnn float32", "mnn", "float32", "one-image.onnx"),
    ("mnn int8", "mnn", "int8", "one-image.onnx"),
    ("ncnn pnnx float32", "ncnn", "float32", "one-image.onnx"),
    ("cct-export ncnn float32", "ncnn", "float32", "float32.ncnn.param"),
    ("cct-export ncnn fp16", "ncnn", "fp16", "fp16.ncnn.param"),
    ("cct-export ncnn int8", "ncnn", "int8", "int8.ncnn.param"),
    ("executorch float32", "executorch", "float32", "for-torch.onnx"),
    ("executorch int8", "executorch", "int8", "for-torch.onnx"),
)
GROUPS = (STOCK, *peer_environments.PEERS, OURS)


@dataclass(frozen=True)
class Candidate:
    """One file in one engine.

    Attributes:
        name: of its row.
        engine: module of ``peer_engines``.
        precision: what the engine computes in.
        source: file that ``make`` writes.
        make: writes ``source`` where it is not there yet.
        python: returns the interpreter that the engine is installed for.
    """

    name: str
    engine: str
    precision: str
    source: Path
    make: Callable[[Path], None]
    python: Callable[[], Path]


def candidates(model: str, data: str, folder: Path, groups: Sequence[str]) -> list[Candidate]:
    """Returns the candidates in the order of the table.

    Args:
        model: what the commands take as MODEL.
        data: what they take as ``--data``.
        folder: where sources go.
        groups: of ``GROUPS``.
    """
    import conversions

    made = {each.name: each for each in conversions.conversions(model, data, folder)}
    found = []
    if STOCK in groups:
        found += [_file(name, made[file], folder) for name, file in STOCK_FILES.items()]
    found += list(_peers(model, data, folder, groups))
    if OURS in groups:
        found += [_file(name, made[file], folder) for name, file in OUR_FILES.items()]
    return found


def _file(name: str, conversion: "Conversion", folder: Path) -> Candidate:
    """A file that an engine of this environment runs as it is."""
    precision = name.split()[2]
    path, engine = conversion.path(folder), ENGINES[conversion.format]
    return Candidate(
        name, engine, precision, path, conversion.convert, lambda: Path(sys.executable)
    )


def _peers(model: str, data: str, folder: Path, groups: Sequence[str]) -> Iterator[Candidate]:
    makers = sources(model, data)
    pythons = {
        name: once(partial(peer_environments.python_of, peer))
        for name, peer in peer_environments.PEERS.items()
    }
    for name, engine, precision, file in PEER_FILES:
        if engine in groups:
            path, python = folder / file, pythons[engine]
            yield Candidate(name, engine, precision, path, makers[file], python)


def once(make: Callable[[], Path]) -> Callable[[], Path]:
    """Returns a function that calls ``make`` once; if that fails, it fails again at once."""
    failures: list[NotAvailable] = []

    def call() -> Path:
        if failures:
            raise failures[0]
        try:
            return make()
        except NotAvailable as error:
            failures.append(error)
            raise

    return call


def sources(model: str, data: str) -> dict[str, Callable[[Path], None]]:
    """Returns what writes each file of ours that peers convert, by its name."""
    onnx = partial(cct_export.export_onnx, model, data=data, dynamic_batch=False)
    ncnn = partial(cct_export.export_ncnn, model, data=data)

    def exported(export: Callable[..., Any], **options: Any) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            done = export(output=path, **options)
            if not done.parity.passed:
                raise RuntimeError("; ".join(done.parity.failures))

        return make

    return {
        "one-image.onnx": exported(onnx),
        "for-torch.onnx": exported(onnx, opset=OPSET_FOR_TORCH),
        "float32.ncnn.param": exported(ncnn, scheme="none"),
        "fp16.ncnn.param": exported(ncnn, scheme="fp16"),
        "int8.ncnn.param": exported(ncnn, scheme="int8"),
    }
