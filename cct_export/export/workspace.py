"""What all exports of one model share: each part is made when first needed, and once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from cct_export import memory
from cct_export.data import sampling
from cct_export.data.dataset import Dataset
from cct_export.data.sampling import Samples
from cct_export.errors import InvalidData
from cct_export.export.draft import Draft, prepared
from cct_export.graph.lowering import Lowering, lower_model
from cct_export.graph.plan import Plan
from cct_export.importers.source import LoadedModel, open_dataset
from cct_export.quantize import ptq, statistics
from cct_export.quantize.statistics import Statistics
from cct_export.runtimes import session
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import Logits
from cct_export.specs import ExportSpec, QuantScheme
from cct_export.specs.progress import CountProgress, StatusProgress, counted, no_progress
from cct_export.text import plural

log = logging.getLogger(__name__)

# Training images that rank ways to quantize.
RANKING_SAMPLES = 50


class Workspace:
    """A model with its images, its calibration statistics and its reference logits.

    Args:
        loaded: the model.
        data: images, as ``--data`` names them; None for those that the model was trained on.
        calibration_samples: training images to calibrate on.
        parity_samples: test images to verify parity on.
        progress: called with what runs now.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        data: str | None,
        calibration_samples: int,
        parity_samples: int,
        progress: StatusProgress = no_progress,
    ) -> None:
        self.loaded = loaded
        self.progress = progress
        self._data = data
        self._calibration_samples = calibration_samples
        self._parity_samples = parity_samples
        self._statistics: list[Statistics] = []
        self._noted: set[str] = set()

    def note(self, message: str) -> None:
        """Logs a message about the model, once for all exports of it."""
        if message not in self._noted:
            log.info("%s", message)
            self._noted.add(message)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Puts ``name``, if there is one, before whatever is reported until the block ends."""
        outer = self.progress
        if name:
            self.progress = lambda message: outer(f"{name}: {message}")
        try:
            yield
        finally:
            self.progress = outer

    def counted(self, what: str) -> CountProgress:
        """Returns a callback that reports how much of ``what`` is done."""
        return counted(self.progress, what)

    @cached_property
    def dataset(self) -> Dataset | None:
        """The labelled images; None where there are none: photo crops serve."""
        return open_dataset(self.loaded, self._data)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs: the model's, else those of the images."""
        loaded = self.loaded
        if loaded.labels or self._data is None or self.dataset is None:
            return loaded.labels
        names = self.dataset.classes
        if len(names) != loaded.outputs[0].class_count:
            self.note(
                f"no labels: {self._data} has {plural(len(names), 'class', 'classes')}, and "
                f"{loaded.source} {plural(loaded.classes, 'output')}; name them with --labels"
            )
            return ()
        return names

    @cached_property
    def calibration_images(self) -> Samples:
        """Training images to calibrate on."""
        return sampling.calibration(
            self.dataset, self.loaded.image_shape, self._calibration_samples
        )

    @cached_property
    def parity_images(self) -> Samples:
        """Test images to verify parity on."""
        return sampling.parity(self.dataset, self.loaded.image_shape, self._parity_samples)

    @cached_property
    def ranking_images(self) -> Samples:
        """Training images that rank ways to quantize."""
        return sampling.ranking(self.dataset, self.loaded.image_shape, RANKING_SAMPLES)

    @cached_property
    def reference(self) -> Logits:
        """Logits of the Keras model for ``parity_images``."""
        return session.run(
            KerasSession(self.loaded),
            self.parity_images.images,
            progress=self.counted("running the Keras model"),
        )

    @cached_property
    def lowering(self) -> Lowering:
        """The model as a narrow plan, or why it is none."""
        return lower_model(self.loaded.model, narrow=True)

    def draft(self, spec: ExportSpec, scheme: QuantScheme) -> Draft:
        """Returns the model, which ``lowering`` says to be a plan, on its way to a file.

        Raises:
            InvalidData: the images cannot calibrate.
            InvalidRequest: see ``draft.prepared``.
        """
        assert self.lowering.plan is not None
        plan = prepared(self.lowering.plan, spec)
        memory.give_back()
        needs_statistics = scheme.calibrated or scheme.quantizes_weights
        statistics = self._statistics_of(plan, scheme) if needs_statistics else None
        return Draft(plan, spec, scheme, self.loaded.outputs, statistics)

    def _statistics_of(self, plan: Plan, scheme: QuantScheme) -> Statistics:
        names = ptq.calibrated_tensors(plan, scheme)
        weighted = ptq.integer_weight_steps(plan, scheme)
        known = self._fitting(self._statistics, plan, names, weighted)
        if known is not None:
            return known
        recorded = self._recorded() if self.dataset is None else []
        known = self._fitting(recorded, plan, names, weighted)
        if known is not None:
            self.note(f"calibrated on the model's {known.origin}")
        else:
            if recorded:
                self.note("the model's calibration record is of other tensors: it is not used")
            images = self.calibration_images
            known = statistics.collect(
                plan, images.images, images.origin, self.counted("calibrating")
            )
            memory.give_back()
        self._statistics.append(known)
        return known

    @staticmethod
    def _fitting(
        records: list[Statistics], plan: Plan, names: set[str], weighted: set[str]
    ) -> Statistics | None:
        return next((each for each in records if each.fits(plan, names, weighted)), None)

    def _recorded(self) -> list[Statistics]:
        """Returns the calibration record beside the model; nothing if there is none."""
        path = self.loaded.calibration_file
        if path is None or not path.is_file():
            return []
        try:
            recorded = statistics.load(path)
        except InvalidData as error:
            log.warning("%s", error)
            return []
        return [replace(each, origin=f"record of {each.origin}") for each in recorded]


def write_calibration_record(
    loaded: LoadedModel, dataset: Dataset, *, samples: int, path: Path
) -> None:
    """Writes the calibration record of a model, so that a later export needs no images.

    Args:
        loaded: the model; nothing is written of one that is no plan.
        dataset: its training images calibrate.
        samples: how many of them.
        path: the file, suffix ``.npz``.
    """
    lowered = lower_model(loaded.model).plan
    if lowered is None:
        return
    images = sampling.calibration(dataset, loaded.image_shape, samples, "recorded for calibration:")
    # A record travels with the weights: it does not tell the path of the images.
    origin = f"{len(images.images)} training images of {Path(dataset.name).name}"
    plans = [prepared(lowered, ExportSpec("tflite", scheme)) for scheme in ("int8", "int8-full")]
    statistics.save([statistics.collect(plan, images.images, origin) for plan in plans], path)
