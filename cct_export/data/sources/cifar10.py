"""``cifar10``: keras.datasets.cifar10, downloaded once when this machine can."""

from cct_export.data import downloaded
from cct_export.data.dataset import Dataset, ImageShape

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def at_hand() -> bool:
    """Tells whether the arrays have been downloaded before."""
    return downloaded.cache_file("cifar10").is_file()


def read(name: str, shape: ImageShape) -> Dataset:
    """Returns CIFAR-10: 50,000 training and 10,000 test images of 32×32×3.

    Raises:
        InvalidData: the images are not here and cannot be downloaded, or the model takes another
            size.
    """
    return downloaded.read(name, shape, CLASSES)
