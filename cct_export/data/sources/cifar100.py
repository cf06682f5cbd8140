"""``cifar100``: keras.datasets.cifar100 with its fine labels, downloaded once when possible."""

from cct_export.data import downloaded
from cct_export.data.dataset import Dataset, ImageShape

# The order of its labels is that of the alphabet.
CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


def at_hand() -> bool:
    """Tells whether the arrays have been downloaded before."""
    return downloaded.cache_file("cifar100").is_file()


def read(name: str, shape: ImageShape) -> Dataset:
    """Returns CIFAR-100: 50,000 training and 10,000 test images of 32×32×3 in 100 classes.

    Raises:
        InvalidData: the images are not here and cannot be downloaded, or the model takes another
            size.
    """
    return downloaded.read(name, shape, CLASSES)
