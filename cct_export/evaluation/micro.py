"""A file in TFLite Micro against LiteRT's reference kernels, on the same images."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from cct_export.data import read, sampling
from cct_export.evaluation import golden
from cct_export.records import MicroReport, OperatorKind
from cct_export.runtimes import litert, tflm
from cct_export.runtimes.session import prepare
from cct_export.specs import DEFAULT_DELEGATION, Delegation
from cct_export.specs.progress import StatusProgress, counted, no_progress

_REFERENCE = Delegation("reference")


def report(
    path: Path,
    *,
    data: str | None,
    samples: int,
    operators: Sequence[OperatorKind] = (),
    progress: StatusProgress = no_progress,
) -> MicroReport:
    """Runs a file of unknown origin in both engines, each in a process of its own.

    Args:
        path: a ``.tflite`` file.
        data: images, as ``--data`` names them; None for photo crops.
        samples: number of images.
        operators: of the file, which the report repeats.
        progress: called with what runs now.

    Raises:
        InvalidArtifact: one of the engines cannot run it.
        InvalidData: the images cannot be used.
        MissingDependency: one of the engines is not installed.
    """
    with (
        closing(tflm.open_session(path)) as micro,
        closing(litert.open_session(path, delegation=_REFERENCE)) as reference,
    ):
        shape = micro.image_shape
        dataset = None if data is None else read(data, shape, resize=micro.contract.resize)
        chosen = sampling.parity(dataset, shape, samples)
        count = counted(progress, "comparing TFLite Micro with LiteRT, image")
        steps = []
        for done, image in enumerate(chosen.images, start=1):
            prepared = prepare(micro, image[None])
            pair = (session.invoke(prepared).astype(np.float64) for session in (micro, reference))
            steps.append(float(np.abs(np.subtract(*pair)).max()))
            count(done, len(chosen.images))
        check = golden.check(micro, path=path, delegation=DEFAULT_DELEGATION)
        unknown = check.unknown and f"parity with Keras is unknown: {check.unknown}"
        return MicroReport(
            path=path,
            engine=" ".join(micro.engine),
            reference=" ".join(reference.engine),
            arena_bytes=micro.arena_bytes,
            operators=tuple(operators),
            images=chosen.origin,
            samples=len(chosen.images),
            differing=int(np.count_nonzero(steps)),
            max_steps=max(steps),
            golden=check.parity,
            warnings=(unknown,) if unknown else (),
        )
