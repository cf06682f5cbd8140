"""A folder of TFRecord shards with ``tf.train.Example`` records, as ImageNet is distributed."""

import logging
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cct_export.data import tfrecord_format
from cct_export.data.dataset import Dataset, ImageShape, Labels, checked_labels
from cct_export.data.encoded import EncodedSplit, train_test_split
from cct_export.data.tfrecord_format import ByteSource, Feature, MalformedExample, Span
from cct_export.errors import InvalidData
from cct_export.files import reason
from cct_export.specs import DEFAULT_RESIZE, Resize

# train-00000-of-00016, x.tfrecord, cifar10-train.tfrecord-00000-of-00001, x.tfrecords
SHARD = re.compile(r"\.tfrecords?(?:$|-)|-\d+-of-\d+$")
NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\.tfrecords?)?$")
SPLIT = re.compile(r"(?:^|[-_.])(train|training|validation|valid|val|test)(?=[-_.]|$)")
SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test",
    "validation": "val", "valid": "val", "val": "val",
}  # fmt: skip
CLASS_FILES = ("labels.txt", "classes.txt", "label.labels.txt")
IMAGE = ("image/encoded", "image")
LABEL = ("image/class/label", "label")
CLASS_NAME = "image/class/text"
FEATURES = frozenset((*IMAGE, *LABEL, CLASS_NAME))
MAX_CLASS_NAME_BYTES = 200
# Indexing this many shards takes a while: some 50 s for the 1.3 million records of ImageNet.
MANY_SHARDS = 64

log = logging.getLogger(__name__)


class ShardImages:
    """The images in the records of several shards, an ``encoded.Store``.

    Args:
        paths: the shards.
        ends: int64, for each shard the number of records in it and those before it.
        spans: int64 ``(N, 4)``, start and end of each record in its shard, and of the image in the
            record, in bytes.
    """

    def __init__(
        self, paths: Sequence[Path], ends: NDArray[np.int64], spans: NDArray[np.int64]
    ) -> None:
        self.paths = paths
        self.ends = ends
        self.spans = spans

    def _locate(self, item: int) -> tuple[Path, int]:
        """Returns the shard of a record, and the record's number in it."""
        shard = int(np.searchsorted(self.ends, item, side="right"))
        return self.paths[shard], item - (int(self.ends[shard - 1]) if shard else 0)

    def name(self, item: int) -> str:
        """Returns shard and number of the record."""
        path, number = self._locate(item)
        return f"{path} record {number}"

    def size_bytes(self, item: int) -> int:
        """Returns the size of the image."""
        return int(self.spans[item, 3] - self.spans[item, 2])

    def read(self, item: int) -> bytes:
        """Returns the image in the record."""
        path, number = self._locate(item)
        start, end, image_start, image_end = self.spans[item].tolist()
        content = tfrecord_format.read_record(path, number, Span(start, end))
        return content[image_start:image_end]


class Index(NamedTuple):
    """The records of some shards.

    Attributes:
        images: their images.
        labels: int64 ``(N,)``, as written in the records.
        class_names: the class names in the records, by label.
    """

    images: ShardImages
    labels: Labels
    class_names: dict[int, str]


def shards_by_split(path: Path) -> dict[str, list[Path]]:
    """Returns the shards of a folder by split: ``train``, ``test``, ``val``, or "" if unnamed.

    They lie in the folder, or in subfolders named after the split. A file is the only shard.
    """
    if path.is_file():
        return {"": [path]} if SHARD.search(path.name) else {}
    shards: dict[str, list[Path]] = {}
    folders = [(path, "")]
    folders += [(path / name, split) for name, split in SPLIT_NAMES.items()]
    for folder, split in folders:
        for file in _entries(folder) if folder.is_dir() else []:
            if SHARD.search(file.name) and file.is_file() and not file.name.startswith("."):
                match = SPLIT.search(file.name)
                in_name = SPLIT_NAMES[match[1]] if match else ""
                shards.setdefault(split or in_name, []).append(file)
    return shards


def read(root: Path, shape: ImageShape, resize: Resize = DEFAULT_RESIZE) -> Dataset:
    """Returns the images in the shards ``root``.

    Args:
        root: a folder with shards for training and for testing or validation; or shards without a
            split in their names, which are split 90/10 by a fixed seed.
        shape: height, width and channels of the decoded images.
        resize: how images of another size are resized.

    Raises:
        InvalidData: a shard is missing, truncated or damaged; a record lacks its label.
    """
    shards = shards_by_split(root)
    for files in shards.values():
        _check_complete(files)
    if "train" not in shards:
        if set(shards) != {""}:
            raise InvalidData(f"{root}: there are no shards for training: train-00000-of-00001, …")
        index = _index(shards[""])
        (labels,), classes = _labels_and_classes(root, [index])
        return Dataset(
            str(root), classes, *train_test_split(index.images, labels, shape, str(root), resize)
        )
    test = next((split for split in ("test", "val") if split in shards), None)
    if test is None:
        raise InvalidData(f"{root}: there are train shards but no test or validation shards")
    indexes = [_index(shards["train"]), _index(shards[test])]
    labels_of_splits, classes = _labels_and_classes(root, indexes)
    splits = [
        EncodedSplit(index.images, np.arange(len(labels)), labels, shape, resize)
        for index, labels in zip(indexes, labels_of_splits, strict=True)
    ]
    return Dataset(str(root), classes, *splits)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InvalidData(f"{folder} cannot be read: {error.strerror}") from error


def _check_complete(files: Iterable[Path]) -> None:
    """Raises ``InvalidData`` if a shard of a numbered series is missing."""
    numbers_by_series: dict[tuple[Path, str, int, str], set[int]] = {}
    for file in files:
        if match := NUMBERED.match(file.name):
            series = (file.parent, match[1], int(match[3]), match[4] or "")
            numbers_by_series.setdefault(series, set()).add(int(match[2]))
    for (folder, stem, total, suffix), numbers in numbers_by_series.items():
        missing = next((number for number in range(total) if number not in numbers), None)
        if missing is not None:
            raise InvalidData(
                f"{folder}: {len(numbers)} of {total} shards {stem}-* are there, "
                f"{stem}-{missing:05}-of-{total:05}{suffix} is missing: fetch it"
            )


def _index(files: Sequence[Path]) -> Index:
    """Reads the span, label and class name of every record, but not its image."""
    if len(files) >= MANY_SHARDS:
        log.info("indexing the records of %d shards", len(files))
    spans, labels, ends = array("q"), array("q"), array("q")
    class_names: dict[int, str] = {}
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                source = tfrecord_format.BlockReader(file)
                for record in tfrecord_format.record_spans(path, source, path.stat().st_size):
                    try:
                        label, image = _label_and_image(source, record, class_names)
                    except MalformedExample as error:
                        number = len(labels) - (ends[-1] if ends else 0)
                        raise InvalidData(f"{path} record {number}: {error}") from error
                    spans.extend((*record, image.start - record.start, image.end - record.start))
                    labels.append(label)
        except OSError as error:
            raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
        ends.append(len(labels))
    if not labels:
        raise InvalidData(f"{files[0].parent}: there are no images in {_range_of(files)}")
    images = ShardImages(files, np.array(ends), np.frombuffer(spans, np.int64).reshape(-1, 4))
    return Index(images, np.frombuffer(labels, np.int64), class_names)


def _label_and_image(
    source: ByteSource, record: Span, class_names: dict[int, str]
) -> tuple[int, Span]:
    """Returns a record's label and the span of its image; adds its class name to ``class_names``.

    Raises:
        MalformedExample: it is not an Example, or has not one label and one image.
    """
    features = tfrecord_format.find_features(source, record, FEATURES)
    labels = tfrecord_format.int64_values(source, _first_of(features, LABEL))
    images = tfrecord_format.bytes_spans(source, _first_of(features, IMAGE))
    if len(labels) != 1 or len(images) != 1:
        raise MalformedExample(f"{len(labels)} labels and {len(images)} images: one each is needed")
    label = labels[0]
    if CLASS_NAME in features and label not in class_names:
        for span in tfrecord_format.bytes_spans(source, features[CLASS_NAME])[:1]:
            size = min(span.end - span.start, MAX_CLASS_NAME_BYTES)
            class_names[label] = source.read_at(span.start, size).decode("utf-8", "replace")
    return label, images[0]


def _first_of(features: dict[str, Feature], names: Sequence[str]) -> Feature:
    for name in names:
        if name in features:
            return features[name]
    raise MalformedExample(f"no feature {' or '.join(names)}")


def _labels_and_classes(
    root: Path, indexes: Sequence[Index]
) -> tuple[list[Labels], tuple[str, ...]]:
    """Returns labels counted from 0 for every split, and the names of the classes."""
    folder = root if root.is_dir() else root.parent
    file = next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
    names = _read_class_names(file) if file else []
    lowest = min(int(index.labels.min()) for index in indexes)
    highest = max(int(index.labels.max()) for index in indexes)
    first_label = int(lowest >= 1 and len(names) <= highest)
    if first_label:
        log.info("%s: no image has label 0: labels count from 1 and become 0 to %d", root,
                 highest - 1)  # fmt: skip
    labels = [
        checked_labels(
            index.labels - first_label, len(index.labels), len(names) or None,
            _range_of(index.images.paths) + (f" ({file.name})" if file else ""),
        )
        for index in indexes
    ]  # fmt: skip
    if names:
        return labels, tuple(names)
    names_by_label: dict[int, str] = {}
    for index in indexes:
        names_by_label = index.class_names | names_by_label
    count = highest + 1 - first_label
    return labels, _unique_names(
        [names_by_label.get(label + first_label) or str(label) for label in range(count)]
    )


def _unique_names(names: list[str]) -> tuple[str, ...]:
    """Returns class names, those that several classes have with the label behind them.

    In ImageNet "crane" is both a bird and a machine.
    """
    counts = Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)
    )


def _read_class_names(file: Path) -> list[str]:
    """Returns the class names in ``file``: one a line, or ``0:name`` as TF-Slim writes them."""
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        if all(line.startswith(f"{label}:") for label, line in enumerate(lines)):
            lines = [line.partition(":")[2].strip() for line in lines]
        return lines
    except (OSError, ValueError) as error:
        why = reason(error, "it is no text")
        raise InvalidData(f"{file} cannot be read: {why}: write one class name per line") from error


def _range_of(files: Sequence[Path]) -> str:
    """Returns the first and the last of ``files`` as one phrase for a message."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} … {files[-1].name}"
