"""A plan on its way to a file: folded, its scheme, and its calibration statistics."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cct_export.errors import InvalidRequest
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.formats import FORMATS
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.quantize import ptq
from cct_export.quantize.modes import quantization_modes
from cct_export.quantize.statistics import Statistics
from cct_export.records import OutputContract, QuantizationSummary
from cct_export.specs import CalibrationSpec, ExportSpec, QuantScheme
from cct_export.specs.progress import CountProgress, no_progress

log = logging.getLogger(__name__)


def prepared(plan: Plan, spec: ExportSpec) -> Plan:
    """Returns a plan folded and in the steps that the format has.

    Args:
        plan: as ``lower_model`` returns it.
        spec: ``format``, what the format reads of it, and ``no_fold``.

    Raises:
        InvalidRequest: ``no_fold`` names an unknown fold, or the opset is unknown.
    """
    format = FORMATS[spec.format]
    plan = fold(plan, {*spec.no_fold, *format.skipped_folds(spec)})
    log.debug(str(plan))  # not as an argument, which would be put on one line
    return format.legalize(plan, spec)


@dataclass(frozen=True)
class Draft:
    """A plan that can be written in one format and scheme.

    Attributes:
        plan: folded, in the steps that the format has.
        spec: what file to make.
        scheme: how it is quantized.
        outputs: what the logits are of.
        statistics: of the calibration images; None where the scheme needs none.
    """

    plan: Plan
    spec: ExportSpec
    scheme: QuantScheme
    outputs: tuple[OutputContract, ...]
    statistics: Statistics | None

    @property
    def origin(self) -> str:
        """Which images calibrated it; empty if none."""
        return "" if self.statistics is None else self.statistics.origin

    def sqnr_db(self, reference: np.ndarray, logits: np.ndarray) -> float:
        """Returns the SQNR of logits ``(N, classes)`` in dB, see ``parity.logits_sqnr_db``."""
        return logits_sqnr_db(reference, logits, self.outputs)

    def quantized(
        self, calibration: CalibrationSpec, progress: CountProgress = no_progress
    ) -> QuantizedPlan:
        """Returns the plan after post-training quantization.

        Args:
            calibration: how.
            progress: called with the number of steps that are done, and of all.

        Raises:
            InvalidRequest: a step to keep in float is unknown, or the scheme has integers only.
        """
        for name in calibration.floats:
            self._check_can_be_float(name)
        return ptq.quantize(
            self.plan,
            calibration.applied_to(self.scheme),
            self.statistics,
            calibration,
            progress,
        )

    def _check_can_be_float(self, name: str) -> None:
        if self.scheme.integers_only:
            raise InvalidRequest(
                f"{self.scheme.name} has integers only: {name} cannot stay in float; use int8"
            )
        if self.plan.producer(name) is None:
            raise InvalidRequest(f"no step is called {name!r}: quantize-report lists them")

    def integer_steps(self, calibration: CalibrationSpec) -> dict[str, tuple[str, ...]]:
        """Returns the steps that compute in integers, by ``static`` and ``dynamic`` ranges."""
        scheme = calibration.applied_to(self.scheme)
        modes = quantization_modes(self.plan, scheme, calibration.floats)
        return {
            kind: tuple(name for name, mode in modes.items() if mode.startswith(kind))
            for kind in ("static", "dynamic")
        }

    def summary(self, calibration: CalibrationSpec) -> QuantizationSummary | None:
        """Returns what the file says about its quantization; None where nothing is quantized."""
        if self.statistics is None:
            return None
        methods = calibration.methods
        steps = self.integer_steps(calibration)
        return QuantizationSummary(
            rounding=calibration.rounding,
            ranges=methods if isinstance(methods, str) else dict(methods),
            static=steps["static"],
            dynamic=steps["dynamic"],
            kept_float=calibration.floats,
            eight_bits=calibration.eight_bits,
        )

    def emit(self, quantized: QuantizedPlan, metadata: Mapping[str, str | bytes] = {}) -> bytes:
        """Returns the file, with metadata: names and texts."""
        return FORMATS[self.spec.format].emit(quantized, self.spec, metadata)
