"""Sampling of the images for calibration, parity and timing."""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import Dataset, Images, ImageShape, Split
from cct_export.errors import InvalidData, MissingDependency

CALIBRATION_SEED = 1
PARITY_SEED = 2
RANKING_SEED = 3
# Fewer calibration images are warned of.
FEW_IMAGES = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Sampled images.

    Attributes:
        images: uint8 ``(N, H, W, C)``, 0–255.
        origin: number and source in words, such as "200 training images of digits".
    """

    images: Images
    origin: str


def sample_indices(split: Split, count: int, seed: int) -> NDArray[np.int64]:
    """Returns up to ``count`` distinct indices of ``split``, sampled by ``seed``, in order."""
    permutation = np.random.default_rng(seed).permutation(len(split.labels))
    return np.sort(permutation[:count])


def calibration(
    dataset: Dataset | None, shape: ImageShape, count: int, purpose: str = "calibrated on"
) -> Samples:
    """Returns ``count`` training images, or photo crops without a dataset, and logs which.

    Args:
        dataset: the data; None for photo crops.
        shape: height, width, channels.
        count: number of images.
        purpose: first words of the logged line.

    Raises:
        InvalidData: ``count`` is below 1, or all images are of one colour.
    """
    if count < 1:
        raise InvalidData(f"{count} calibration images: at least 1 is needed, 200 are usual")
    samples = _training_images(dataset, shape, count, CALIBRATION_SEED)
    reason = ": no training images available, give them with --data" if dataset is None else ""
    log.info("%s %s%s", purpose, samples.origin, reason)
    if len(samples.images) < FEW_IMAGES:
        log.warning("only %d calibration images: ranges will be poor", len(samples.images))
    if np.ptp(samples.images) == 0:
        raise InvalidData(f"the calibration images ({samples.origin}) are all one colour")
    return samples


def ranking(dataset: Dataset | None, shape: ImageShape, count: int) -> Samples:
    """Returns training images, or photo crops, to compare quantization schemes on."""
    return _training_images(dataset, shape, count, RANKING_SEED)


def parity(dataset: Dataset | None, shape: ImageShape, count: int) -> Samples:
    """Returns ``count`` test images, or photo crops without a dataset.

    Raises:
        InvalidData: ``count`` is below 1.
    """
    if count < 1:
        raise InvalidData(f"{count} samples: at least 1 is needed")
    if dataset is None:
        return _photo_samples(shape, count, PARITY_SEED)
    indices = sample_indices(dataset.test, count, PARITY_SEED)
    return Samples(dataset.test.images(indices), f"{len(indices)} test images of {dataset.name}")


def _training_images(dataset: Dataset | None, shape: ImageShape, count: int, seed: int) -> Samples:
    if dataset is None:
        return _photo_samples(shape, count, seed)
    indices = sample_indices(dataset.train, count, seed)
    origin = f"{len(indices)} training images of {dataset.name}"
    return Samples(dataset.train.images(indices), origin)


def _photo_samples(shape: ImageShape, count: int, seed: int) -> Samples:
    return Samples(photo_crops(shape, count, seed), f"{count} photo crops")


def photo_crops(shape: ImageShape, count: int, seed: int) -> Images:
    """Returns random crops of the two photographs that ship with scikit-learn.

    Args:
        shape: height, width, channels.
        count: number of crops.
        seed: of position and size; crops are 1/8 to all of the photograph's height.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    from PIL import Image

    height, width, channels = shape
    photos = [Image.open(path).convert("RGB") for path in _photographs()]
    if channels == 1:
        photos = [photo.convert("L") for photo in photos]
    random = np.random.default_rng(seed)
    crops = np.empty((count, *shape), np.uint8)
    for index in range(count):
        photo = photos[index % len(photos)]
        crop_height = int(random.integers(photo.height // 8, photo.height + 1))
        crop_width = min(photo.width, round(crop_height * width / height))
        left = int(random.integers(0, photo.width - crop_width + 1))
        top = int(random.integers(0, photo.height - crop_height + 1))
        crop = photo.resize(
            (width, height),
            Image.Resampling.BILINEAR,
            (left, top, left + crop_width, top + crop_height),
        )
        crops[index] = np.asarray(crop).reshape(shape)
    return crops


def _photographs() -> list[Path]:
    """Returns the two photographs, without the import of scikit-learn, which takes 100 MB."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise MissingDependency.of("scikit-learn", "data")
    folder = Path(found.origin).parent / "datasets" / "images"
    paths = [folder / "china.jpg", folder / "flower.jpg"]
    if not all(path.is_file() for path in paths):
        raise MissingDependency.of("scikit-learn", "data")
    return paths


def timing_images(shape: ImageShape, count: int) -> Images:
    """Returns the same random pixels every time, for timing: only shape and dtype matter there."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
