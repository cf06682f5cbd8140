"""Quantizes files of traced models by the runtimes' own tools."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from cct_export.data.dataset import Images
from cct_export.quantize.ranges import Range
from cct_export.quantize.statistics import Histogram
from cct_export.quantize.traced_onnx import OnnxQuantizer
from cct_export.quantize.traced_tflite import TFLiteQuantizer
from cct_export.specs import QuantScheme
from cct_export.specs.progress import CountProgress, no_progress


class FileQuantizer(Protocol):
    """A float32 file on its way to a scheme; see ``TFLiteQuantizer``."""

    @property
    def operators(self) -> dict[str, str]:
        """What the scheme quantizes: operators, and how."""
        ...

    def histograms(
        self, images: Images, progress: CountProgress = no_progress
    ) -> dict[str, Histogram]:
        """Returns the distribution of every tensor that has a range."""
        ...

    def quantize(self, operators: Iterable[str], ranges: Mapping[str, Range], io: str) -> bytes:
        """Returns the file with some operators quantized."""
        ...


QUANTIZERS: dict[str, Callable[[bytes, QuantScheme], FileQuantizer]] = {
    "tflite": TFLiteQuantizer,
    "onnx": OnnxQuantizer,
}
