"""A model that is not lowered to a plan on its way to a file, by the libraries' own tools."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cct_export.data.sampling import Samples
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.formats.traced import CONVERTERS, FINISHERS
from cct_export.importers.source import LoadedModel
from cct_export.quantize.file_statistics import ranges_of
from cct_export.quantize.statistics import Histogram
from cct_export.quantize.traced import QUANTIZERS, FileQuantizer
from cct_export.records import QuantizationSummary
from cct_export.runtimes.session import Logits
from cct_export.specs import CalibrationSpec, ExportSpec, QuantScheme
from cct_export.specs.progress import CountProgress, no_progress


@dataclass(frozen=True)
class TracedDraft:
    """A model that can be written in one format and scheme.

    Attributes:
        loaded: the model.
        spec: what file to make.
        scheme: how it is quantized.
        samples: images that calibrate it; None where the scheme needs none.
        progress: called with the number of calibration images that are done, and of all.
    """

    loaded: LoadedModel
    spec: ExportSpec
    scheme: QuantScheme
    samples: Samples | None
    progress: CountProgress = no_progress

    @cached_property
    def float_file(self) -> bytes:
        """The float32 file."""
        return CONVERTERS[self.spec.format](self.loaded.model, self.spec)

    @cached_property
    def _quantizer(self) -> FileQuantizer:
        return QUANTIZERS[self.spec.format](self.float_file, self.scheme)

    @cached_property
    def _histograms(self) -> dict[str, Histogram]:
        if self.samples is None:
            return {}
        images = self.samples.images
        if self.spec.layout == "nchw":
            images = images.transpose(0, 3, 1, 2)
        return self._quantizer.histograms(images, self.progress)

    def sqnr_db(self, reference: Logits, logits: Logits) -> float:
        """Returns the SQNR of logits in dB, see ``parity.logits_sqnr_db``."""
        return logits_sqnr_db(reference, logits, self.loaded.outputs)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators that the scheme quantizes."""
        return tuple(self._quantizer.operators)

    def written(self, method: str, operators: Iterable[str]) -> bytes:
        """Returns the file, without metadata and with the input of the tools.

        Args:
            method: how ranges follow from values, of ``ranges.METHODS``.
            operators: of ``self.operators``, the ones to quantize.
        """
        if self.scheme.name == "none":
            return self.float_file
        ranges = ranges_of(self._histograms, method, self.scheme.bits)
        return self._quantizer.quantize(operators, ranges, self.spec.io)

    def finished(self, content: bytes, metadata: Mapping[str, str | bytes]) -> bytes:
        """Returns a file that ``written`` made with its input and metadata: names and texts."""
        return FINISHERS[self.spec.format](content, self.spec.io, metadata)

    def summary(self, calibration: CalibrationSpec) -> QuantizationSummary | None:
        """Returns what the file says about its quantization; None where nothing is quantized."""
        if not self.scheme.quantizes_weights:
            return None
        modes = {
            name: mode
            for name, mode in self._quantizer.operators.items()
            if name not in calibration.floats
        }
        methods = calibration.methods if self.scheme.bits == 8 else "min-max"
        return QuantizationSummary(
            rounding="nearest",
            ranges=methods if isinstance(methods, str) else dict(methods),
            static=tuple(name for name, mode in modes.items() if mode == "static"),
            dynamic=tuple(name for name, mode in modes.items() if mode == "dynamic"),
            kept_float=calibration.floats,
        )
