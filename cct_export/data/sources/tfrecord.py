"""A folder of TFRecord shards with ``tf.train.Example`` records, as ImageNet is kept."""

import logging
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cct_export.data import examples, records
from cct_export.data.dataset import Dataset, ImageShape, Labels, checked_labels, existing
from cct_export.data.encoded import EncodedSplit, split_in_two
from cct_export.data.examples import Feature, Malformed, Source, Span
from cct_export.errors import InvalidData

# train-00000-of-00016, x.tfrecord, cifar10-train.tfrecord-00000-of-00001, x.tfrecords
SHARD = re.compile(r"\.tfrecords?(?:$|-)|-\d+-of-\d+$")
NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\.tfrecords?)?$")
SPLIT = re.compile(r"(?:^|[-_.])(train|training|validation|valid|val|test)(?=[-_.]|$)")
PARTS = {
    "train": "train", "training": "train", "test": "test",
    "validation": "val", "valid": "val", "val": "val",
}  # fmt: skip
NAMES = ("labels.txt", "classes.txt", "label.labels.txt")
IMAGE = ("image/encoded", "image")
LABEL = ("image/class/label", "label")
TEXT = "image/class/text"
WANTED = frozenset((*IMAGE, *LABEL, TEXT))
MOST_NAME_BYTES = 200
# So many shards take a while: some 50 s for the 1.3 million records of ImageNet.
MANY = 64

log = logging.getLogger(__name__)


class Shards:
    """The records of several files, known by where they are.

    Args:
        paths: the files.
        ends: int64, for each file how many records it and those before it have.
        places: int64 ``(N, 4)``, for each record where it begins in its file and its length, and
            where in the record the picture begins and its length, in bytes.
    """

    def __init__(
        self, paths: Sequence[Path], ends: NDArray[np.int64], places: NDArray[np.int64]
    ) -> None:
        self.paths = paths
        self.ends = ends
        self.places = places

    def _file(self, item: int) -> tuple[Path, int]:
        """Returns the file of a record, and its number there."""
        shard = int(np.searchsorted(self.ends, item, side="right"))
        return self.paths[shard], item - (int(self.ends[shard - 1]) if shard else 0)

    def where(self, item: int) -> str:
        """Returns file and number of the record."""
        path, number = self._file(item)
        return f"{path} record {number}"

    def size_bytes(self, item: int) -> int:
        """Returns how long the picture is."""
        return int(self.places[item, 3])

    def encoded(self, item: int) -> bytes:
        """Returns the picture in the record."""
        path, number = self._file(item)
        offset, length, begin, size = self.places[item].tolist()
        content = records.record(path, number, records.Place(offset, length))
        return content[begin : begin + size]


class Indexed(NamedTuple):
    """What an index of shards finds.

    Attributes:
        shards: where the records are.
        labels: int64 ``(N,)``, as they are written.
        texts: the class names that stand beside the labels.
    """

    shards: Shards
    labels: Labels
    texts: dict[int, str]


def shards_in(path: Path) -> dict[str, list[Path]]:
    """Returns the shards of a folder by split: ``train``, ``test``, ``val``, or "" if not said.

    They lie in the folder, or in folders in it that are called as the split is. A file is the only
    shard.
    """
    if path.is_file():
        return {"": [path]} if SHARD.search(path.name) else {}
    found: dict[str, list[Path]] = {}
    folders = [(path, "")]
    folders += [(path / name, part) for name, part in PARTS.items() if (path / name).is_dir()]
    for folder, part in folders:
        for file in _entries(folder):
            if SHARD.search(file.name) and file.is_file() and not file.name.startswith("."):
                said = SPLIT.search(file.name)
                found.setdefault(part or (PARTS[said[1]] if said else ""), []).append(file)
    return found


def read(name: str, shape: ImageShape) -> Dataset:
    """Returns the images in the shards ``name``.

    Args:
        name: a folder with shards for training and for testing or validation; or shards that do
            not say what they are for, then split 90/10 by a fixed seed.
        shape: height, width and channels to give.

    Raises:
        InvalidData: a shard is missing, truncated or damaged; a record lacks its label.
    """
    root = existing(name)
    found = shards_in(root)
    for files in found.values():
        _check_complete(files)
    if "train" not in found:
        if set(found) != {""}:
            raise InvalidData(f"{root}: there are no shards for training: train-00000-of-00001, …")
        whole = _index(found[""])
        (all_labels,), classes = _classes(root, [whole])
        return Dataset(name, classes, *split_in_two(whole.shards, all_labels, shape, name))
    part = next((part for part in ("test", "val") if part in found), None)
    if part is None:
        raise InvalidData(f"{root}: there are train shards but no test or validation shards")
    both = [_index(found["train"]), _index(found[part])]
    labels, classes = _classes(root, both)
    splits = [
        EncodedSplit(one.shards, np.arange(len(own)), own, shape)
        for one, own in zip(both, labels, strict=True)
    ]
    return Dataset(name, classes, *splits)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InvalidData(f"{folder} cannot be read: {error.strerror}") from error


def _check_complete(files: Iterable[Path]) -> None:
    """Raises ``InvalidData`` if a shard between those that are there is missing."""
    seen: dict[tuple[Path, str, int, str], set[int]] = {}
    for file in files:
        if numbered := NUMBERED.match(file.name):
            series = (file.parent, numbered[1], int(numbered[3]), numbered[4] or "")
            seen.setdefault(series, set()).add(int(numbered[2]))
    for (folder, stem, total, suffix), numbers in seen.items():
        missing = next((number for number in range(total) if number not in numbers), None)
        if missing is not None:
            raise InvalidData(
                f"{folder}: {len(numbers)} of {total} shards {stem}-* are there, "
                f"{stem}-{missing:05}-of-{total:05}{suffix} is missing: fetch it"
            )


def _index(files: Sequence[Path]) -> Indexed:
    """Reads of every record its place, label and class name; not its picture."""
    if len(files) >= MANY:
        log.info("reading where the records of %d shards are", len(files))
    places, labels, ends = array("q"), array("q"), array("q")
    texts: dict[int, str] = {}
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                window = records.Window(file)
                for place in records.places(path, window, path.stat().st_size):
                    try:
                        label, picture = _looked_into(window, place, texts)
                    except ValueError as error:
                        number = len(labels) - (ends[-1] if ends else 0)
                        raise InvalidData(f"{path} record {number}: {error}") from error
                    begin, end = picture
                    places.extend((*place, begin - place.offset, end - begin))
                    labels.append(label)
        except OSError as error:
            raise InvalidData(f"{path} cannot be read: {error.strerror}") from error
        ends.append(len(labels))
    if not labels:
        raise InvalidData(f"{files[0].parent}: there is no image in {_listed(files)}")
    shards = Shards(files, np.array(ends), np.frombuffer(places, np.int64).reshape(-1, 4))
    return Indexed(shards, np.frombuffer(labels, np.int64), texts)


def _looked_into(source: Source, place: records.Place, texts: dict[int, str]) -> tuple[int, Span]:
    """Returns label and place of the picture of a record, and notes the class name if there is one.

    Raises:
        Malformed: it is no Example, or lacks one of them.
    """
    message = Span(place.offset, place.offset + place.length)
    found = examples.features(source, message, WANTED)
    labels = examples.integers(source, _first(found, LABEL))
    pictures = examples.texts(source, _first(found, IMAGE))
    if len(labels) != 1 or len(pictures) != 1:
        raise Malformed(f"{len(labels)} labels and {len(pictures)} images: one each is needed")
    label = labels[0]
    if TEXT in found and label not in texts:
        for span in examples.texts(source, found[TEXT])[:1]:
            content = source.at(span.start, min(span.end - span.start, MOST_NAME_BYTES))
            texts[label] = content.decode("utf-8", "replace")
    return label, pictures[0]


def _first(found: dict[str, Feature], keys: Sequence[str]) -> Feature:
    for key in keys:
        if key in found:
            return found[key]
    raise Malformed(f"no feature {' or '.join(keys)}")


def _classes(root: Path, found: Sequence[Indexed]) -> tuple[list[Labels], tuple[str, ...]]:
    """Returns labels from 0 for every split, and the names of the classes."""
    folder = root if root.is_dir() else root.parent
    file = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    names = _lines(file) if file else []
    lowest = min(int(one.labels.min()) for one in found)
    highest = max(int(one.labels.max()) for one in found)
    shift = int(lowest >= 1 and len(names) <= highest)
    if shift:
        log.info("%s: no image has label 0: labels count from 1 and become 0 to %d", root,
                 highest - 1)  # fmt: skip
    labels = [
        checked_labels(
            one.labels - shift, len(one.labels), len(names) or None,
            f"{_listed(one.shards.paths)}" + (f" ({file.name})" if file else ""),
        )
        for one in found
    ]  # fmt: skip
    if names:
        return labels, tuple(names)
    texts: dict[int, str] = {}
    for one in found:
        texts = one.texts | texts
    return labels, _named(texts, shift, highest + 1 - shift)


def _named(texts: dict[int, str], shift: int, count: int) -> tuple[str, ...]:
    """Returns a name for every class: what stands in the records, or else its number."""
    names = [texts.get(label + shift, "") or str(label) for label in range(count)]
    if len(set(names)) < count:
        # Two breeds of crane are one word in ImageNet: the bird, and what lifts.
        seen = Counter(names)
        names = [
            name if seen[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)
        ]
    return tuple(names)


def _lines(file: Path) -> list[str]:
    """Returns the class names in ``file``: one a line, or as ``0:name`` as TF-Slim writes them."""
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        if all(line.startswith(f"{label}:") for label, line in enumerate(lines)):
            lines = [line.partition(":")[2].strip() for line in lines]
        return lines
    except (OSError, ValueError) as error:
        raise InvalidData(f"{file} cannot be read: {error}: one class name per line") from error


def _listed(files: Sequence[Path]) -> str:
    """Returns files as one word for a message."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} … {files[-1].name}"
