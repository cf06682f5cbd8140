"""Standard TFLite metadata, by which MediaPipe and ML Kit know what a file takes and returns.

The tables are those of ``metadata_schema.fbs`` of TensorFlow Lite Support, in which fields have
names; in a flatbuffer they have numbers, in the same order. The label file follows the model in the
file, as a ZIP archive.
"""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from cct_export.records import Contract

METADATA_KEY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_IDENTIFIER = b"M001"
# The first version of a parser that knows all of these fields.
_MIN_PARSER_VERSION = "1.0.0"
# ColorSpaceType, ContentProperties, ProcessUnitOptions and AssociatedFileType.
_COLOUR_SPACES = {3: 1, 1: 2}
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2
# The same export gives the same bytes, and a ZIP archive has no earlier time.
_TIME = (1980, 1, 1, 0, 0, 0)


def metadata(contract: Contract) -> bytes:
    """Returns the content of the metadata entry ``METADATA_KEY``.

    The file takes pixels as they are, so its normalization changes nothing.

    Args:
        contract: of the file.
    """
    tables = _Tables()
    colours = tables.table(2, {0: _Byte(_COLOUR_SPACES[contract.image_shape[2]])})
    unchanged = tables.table(2, {0: tables.floats([0.0]), 1: tables.floats([1.0])})
    process_unit = tables.table(2, {0: _Byte(_NORMALIZATION_OPTIONS), 1: unchanged})
    image = {
        0: tables.text("image"),
        1: tables.text("Pixels of the image, 0 to 255; none but the size has to be changed."),
        3: tables.table(3, {0: _Byte(_IMAGE_PROPERTIES), 1: colours}),
        4: tables.vector([process_unit]),
        5: tables.table(2, {0: tables.floats([255.0]), 1: tables.floats([0.0])}),
    }
    features = tables.table(0, {})
    scores = {
        0: tables.text("scores"),
        1: tables.text("A score of each class, in the order of the labels."),
        3: tables.table(3, {0: _Byte(_FEATURE_PROPERTIES), 1: features}),
    }
    if contract.labels:
        label_file = {
            0: tables.text(LABELS_FILE),
            1: tables.text("Names of the classes, a line each."),
            2: _Byte(_TENSOR_AXIS_LABELS),
        }
        scores[6] = tables.vector([tables.table(5, label_file)])
    graph = {
        2: tables.vector([tables.table(7, image)]),
        3: tables.vector([tables.table(7, scores)]),
    }
    model = {
        0: tables.text(contract.source),
        1: tables.text("Image classifier, exported from Keras."),
        3: tables.vector([tables.table(10, graph)]),
        7: tables.text(_MIN_PARSER_VERSION),
    }
    return tables.finish(tables.table(8, model))


def with_labels(content: bytes, labels: Sequence[str]) -> bytes:
    """Returns a flatbuffer followed by a ZIP archive with the label file; unchanged without labels.

    Args:
        content: the flatbuffer.
        labels: names of the classes; a line break in one becomes a space.
    """
    if not labels:
        return content
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        lines = "".join(f"{' '.join(label.splitlines())}\n" for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, _TIME), lines)
    return file.getvalue()


class _Byte(int):
    """The value of an enumeration or the type of a union, a byte; others are offsets."""


class _Tables:
    """A flatbuffer whose tables are written from the inside out."""

    def __init__(self) -> None:
        import flatbuffers

        self._builder: Any = flatbuffers.Builder(1024)

    def text(self, text: str) -> int:
        """Writes a string; what is no UTF-8, as in a path, is replaced."""
        return int(self._builder.CreateString(text, errors="replace"))

    def floats(self, values: Sequence[float]) -> int:
        """Writes a vector of floats."""
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return int(self._builder.EndVector())

    def vector(self, tables: Sequence[int]) -> int:
        """Writes a vector of tables."""
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table)
        return int(self._builder.EndVector())

    def table(self, size: int, fields: dict[int, int]) -> int:
        """Writes a table whose schema has ``size`` fields; ``fields`` are those that it has."""
        self._builder.StartObject(size)
        for number, value in fields.items():
            if isinstance(value, _Byte):
                self._builder.PrependUint8Slot(number, value, 0)
            else:
                self._builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return int(self._builder.EndObject())

    def finish(self, root: int) -> bytes:
        """Returns the flatbuffer with this table as its root."""
        self._builder.Finish(root, file_identifier=_IDENTIFIER)
        return bytes(self._builder.Output())
