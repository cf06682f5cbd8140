"""A file in the making: what it computes, and what is known of the values it computes with."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cct_export.data import sampling
from cct_export.data.dataset import Dataset
from cct_export.errors import InvalidData, InvalidRequest, UnsupportedScheme
from cct_export.export.conversion import plan_of, trace
from cct_export.formats import FORMATS
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.importers import LoadedModel
from cct_export.model.checkpoint import image_shape
from cct_export.quantize import ptq, statistics
from cct_export.quantize.statistics import Statistics
from cct_export.quantize.traced import QUANTIZERS
from cct_export.specs import CalibrationSpec, ExportSpec, QuantScheme

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draft:
    """A CCT on its way to a file.

    Attributes:
        plan: folded, in the steps that the format has.
        spec: what is asked.
        scheme: how it is quantized.
        statistics: of the calibration images; None where the scheme needs none.
    """

    plan: Plan
    spec: ExportSpec
    scheme: QuantScheme
    statistics: Statistics | None

    @property
    def origin(self) -> str:
        """Which images calibrated it; empty if none."""
        return "" if self.statistics is None else self.statistics.origin

    def quantized(self, calibration: CalibrationSpec) -> QuantizedPlan:
        """Returns the plan on integers.

        Raises:
            InvalidRequest: a step is to stay float that there is not, or in a scheme of integers
                only.
        """
        self._check(calibration.floats)
        return ptq.quantize(
            self.plan,
            self.scheme,
            self.statistics,
            calibration.methods,
            calibration.rounding == "gptq",
            calibration.floats,
        )

    def _check(self, floats: Iterable[str]) -> None:
        for name in floats:
            if self.scheme.integers_only:
                raise InvalidRequest(
                    f"{self.scheme.name} has integers only: {name} cannot stay float; take int8"
                )
            if self.plan.producer(name) is None:
                raise InvalidRequest(f"no step is called {name!r}: quantize-report lists them")

    def modes(self, floats: Iterable[str] = ()) -> dict[str, list[str]]:
        """Returns the steps that compute in integers: those of static and of dynamic ranges."""
        found = ptq.modes(self.plan, self.scheme, tuple(floats))
        return {
            mode: [name for name, chosen in found.items() if chosen.startswith(mode)]
            for mode in ("static", "dynamic")
        }

    def file(self, quantized: QuantizedPlan) -> bytes:
        """Returns the file, without metadata."""
        return FORMATS[self.spec.format].emit(quantized, self.spec)


def draft(
    loaded: LoadedModel,
    spec: ExportSpec,
    scheme: QuantScheme,
    dataset: Dataset | None,
    samples: int,
) -> Draft | None:
    """Begins a file.

    Args:
        loaded: the model.
        spec: what file.
        scheme: as the format does it.
        dataset: whose training images calibrate; None for the model's own record, or photo crops.
        samples: training images to calibrate on.

    Returns:
        The draft; None for a model that is no CCT.

    Raises:
        InvalidData: the images cannot calibrate.
        InvalidRequest: see ``plan_of``.
    """
    plan = plan_of(loaded.model, spec)
    if plan is None:
        return None
    started = Draft(plan, spec, scheme, None)
    if not (scheme.calibrated or scheme.rounds):
        return started
    recorded = None if dataset is not None else _recorded(loaded, plan, scheme)
    if recorded is not None:
        log.info("calibrated on the model's %s", recorded.origin)
        return replace(started, statistics=recorded)
    images = sampling.calibration(dataset, image_shape(loaded.model), samples)
    return replace(started, statistics=statistics.gather(plan, images.images, images.origin))


def _recorded(loaded: LoadedModel, plan: Plan, scheme: QuantScheme) -> Statistics | None:
    """Returns the record that lies with the model, None if there is none or it does not fit."""
    if loaded.calibration is None or not loaded.calibration.is_file():
        return None
    try:
        found = statistics.load(loaded.calibration)
    except InvalidData as error:
        log.warning("%s", error)
        return None
    if not found.fits(plan, ptq.needed(plan, scheme), ptq.rounded(plan, scheme)):
        log.info("the model's calibration record is of other tensors: it is left aside")
        return None
    return replace(found, origin=f"record of {found.origin}")


def record(loaded: LoadedModel, dataset: Dataset, samples: int, path: Path) -> None:
    """Writes the calibration record of a model, so that a later export needs no images.

    Args:
        loaded: the model.
        dataset: its training images calibrate.
        samples: how many of them.
        path: the file, suffix ``.npz``.
    """
    plan = plan_of(loaded.model, ExportSpec("tflite"))
    if plan is None:
        return
    shape = image_shape(loaded.model)
    images = sampling.calibration(dataset, shape, samples, "recorded for calibration:")
    # A record travels: where its images were on this machine is nobody's business.
    origin = f"{len(images.images)} training images of {Path(dataset.name).name}"
    statistics.save(statistics.gather(plan, images.images, origin), path)


def traced(
    loaded: LoadedModel,
    spec: ExportSpec,
    scheme: QuantScheme,
    calibration: sampling.Samples | None,
) -> bytes:
    """Returns a model that is no CCT as a file, quantized by the format's stock tool.

    Raises:
        UnsupportedScheme: the tool has no such scheme.
    """
    if scheme.integers_only or scheme.weights == "int4":
        raise UnsupportedScheme(
            f"{scheme.name} is for CCTs; {loaded.source} is none: take int8, int8-dynamic or fp16"
        )
    content = trace(loaded.model, spec)
    if scheme.name == "none":
        return content
    return QUANTIZERS[spec.format](
        content, scheme, None if calibration is None else calibration.images
    )
