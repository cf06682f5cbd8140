"""Which images calibrate a quantization and which prove parity."""

import logging
from dataclasses import dataclass

import numpy as np

from cct_export.data.dataset import Dataset, Images, ImageShape, pick
from cct_export.errors import InvalidData, MissingDependency

CALIBRATION_SEED = 1
PARITY_SEED = 2
RANKING_SEED = 3
FEW = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Some images and where they are from.

    Attributes:
        images: uint8 ``(N, H, W, C)``.
        origin: for people.
    """

    images: Images
    origin: str


def calibration(
    dataset: Dataset | None, shape: ImageShape, count: int, purpose: str = "calibrated on"
) -> Samples:
    """Returns ``count`` training images, or photo crops where there is no dataset.

    Args:
        dataset: whose training images; None for photo crops.
        shape: height, width, channels.
        count: how many.
        purpose: how the line begins that says which images were taken.

    Raises:
        InvalidData: ``count`` is below 1, or every image is one colour.
    """
    if count < 1:
        raise InvalidData(f"{count} calibration images: at least 1 is needed, 200 are usual")
    if dataset is None:
        chosen = Samples(photo_crops(shape, count, CALIBRATION_SEED), f"{count} photo crops")
        log.info("%s %s: no training images at hand, give them with --data", purpose, chosen.origin)
    else:
        indices = pick(dataset.train, count, CALIBRATION_SEED)
        images = dataset.train.images(indices)
        chosen = Samples(images, f"{len(images)} training images of {dataset.name}")
        log.info("%s %s", purpose, chosen.origin)
    if len(chosen.images) < FEW:
        log.warning("only %d calibration images: ranges will be poor", len(chosen.images))
    if np.ptp(chosen.images) == 0:
        raise InvalidData(f"the calibration images ({chosen.origin}) are all one colour")
    return chosen


def ranking(dataset: Dataset | None, shape: ImageShape, count: int) -> Samples:
    """Returns training images that choose between ways to quantize, or photo crops."""
    if dataset is None:
        return Samples(photo_crops(shape, count, RANKING_SEED), f"{count} photo crops")
    indices = pick(dataset.train, count, RANKING_SEED)
    return Samples(
        dataset.train.images(indices), f"{len(indices)} training images of {dataset.name}"
    )


def parity(dataset: Dataset | None, shape: ImageShape, count: int) -> Samples:
    """Returns ``count`` test images, or photo crops where there is no dataset."""
    if count < 1:
        raise InvalidData(f"{count} samples: at least 1 is needed")
    if dataset is None:
        return Samples(photo_crops(shape, count, PARITY_SEED), f"{count} photo crops")
    indices = pick(dataset.test, count, PARITY_SEED)
    return Samples(dataset.test.images(indices), f"{len(indices)} test images of {dataset.name}")


def photo_crops(shape: ImageShape, count: int, seed: int) -> Images:
    """Returns random crops of the two photographs that ship with scikit-learn.

    Args:
        shape: height, width, channels to give.
        count: number of crops.
        seed: of place and size; crops are from 1/8 of the photograph's height to all of it.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise MissingDependency.of("scikit-learn", "data") from None
    from PIL import Image

    height, width, channels = shape
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    if channels == 1:
        photos = [photo.convert("L") for photo in photos]
    random = np.random.default_rng(seed)
    crops = np.empty((count, *shape), np.uint8)
    for index in range(count):
        photo = photos[index % len(photos)]
        tall = int(random.integers(photo.height // 8, photo.height + 1))
        wide = min(photo.width, round(tall * width / height))
        left = int(random.integers(0, photo.width - wide + 1))
        top = int(random.integers(0, photo.height - tall + 1))
        crop = photo.resize(
            (width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + tall)
        )
        crops[index] = np.asarray(crop).reshape(shape)
    return crops


def timing_images(shape: ImageShape, count: int) -> Images:
    """Returns random pixels for timing, where only shape and type matter; the same every time."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
