"""Reading and writing ``.keras`` files, which may come from anyone: nothing in them is executed."""

import io
import json
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

import h5py
import keras

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidModel
from cct_export.files import check_file, replacing
from cct_export.model.cct import CCT
from cct_export.model.sizes import parameter_count, token_grid
from cct_export.specs import JSONObject, ModelSpec
from cct_export.text import printable
from cct_export.untrusted import Malformed, check_size, refusing, size_on_disk

_WEIGHTS = "model.weights.h5"
# Numbers that a layer may compute of one image, half a GiB: VGG16's largest computes 3.2 million.
_MAX_ACTIVATIONS = 2**27
# And of all images of a fixed batch, 4 GiB.
_MAX_IN_BATCH = 2**30
# What Keras says of a name in a file that is not one of its own.
_UNKNOWN = re.compile(r"(?:Could not locate|Unknown) (class|function|layer):? '([^']+)'")

# The user's own layers and functions, by the names that a file may call them.
Objects = Mapping[str, Any]
T = TypeVar("T")
NO_OBJECTS: Objects = MappingProxyType({})


def save(model: keras.Model, path: Path) -> None:
    """Writes ``model`` to ``path`` (suffix ``.keras``) atomically; raises ``OutputError``."""
    with replacing(path) as temporary:
        model.save(temporary)


def without_optimizer(model: CCT) -> CCT:
    """Returns an uncompiled copy of ``model``: its file has a third of the size."""
    copy = CCT(model.spec)
    copy.set_weights(model.get_weights())
    return copy


def load(path: Path, objects: Objects = NO_OBJECTS) -> keras.Model:
    """Reads a ``.keras`` file in Keras' safe mode: Python code in it is never run.

    Args:
        path: the file.
        objects: the user's own layers and functions that it names.

    Raises:
        InvalidRequest: there is no such file.
        InvalidModel: truncated, not a Keras file, or unsafe.
    """
    check_archive(path)
    with loading(path):
        check_architecture_size(read_config(path), path, objects)
        _check_weights_size(path)
        with _for_keras(path) as file, keras.saving.custom_object_scope(dict(objects)):
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
    check_activations(model, path)
    return model


def check_archive(path: Path) -> None:
    """Refuses what is no ``.keras`` file, or would unpack to far more than its size.

    Raises:
        InvalidRequest: there is no such file.
        InvalidModel: it is no archive, damaged, or would.
    """
    check_file(path, "model file")
    if not zipfile.is_zipfile(path):
        raise InvalidModel(f"{path} is not a .keras file, or it is truncated: save the model again")
    check_archive_size(path)


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turns whatever Keras and its layers raise for a file into an ``InvalidModel``."""
    try:
        yield
    except InvalidModel:
        raise
    except Exception as error:
        raise InvalidModel(f"{path} cannot be loaded: {_reason(error)}") from error


@contextmanager
def _for_keras(path: Path) -> Iterator[Path]:
    """Yields ``path``, or a copy with the suffix in lower case, the only one that Keras reads.

    Meanwhile temporary files have a folder of their own: Keras leaves some for a damaged archive.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            is_lower = path.suffix == ".keras"
            yield path if is_lower else Path(shutil.copyfile(path, Path(folder) / "model.keras"))
        finally:
            tempfile.tempdir = before


def _reason(error: Exception) -> str:
    # Keras puts the cause between its own context and the configuration.
    text = str(error).rpartition("Exception encountered: ")[2].partition(" Full object config")[0]
    if "safe_mode" in text or "unsafe" in text.lower():
        return (
            "it holds Python code (a Lambda layer or another callable), which is never run: "
            "replace it by a layer, or pass the model itself to the Python API"
        )
    if unknown := _UNKNOWN.search(text):
        return (
            f"it has a {unknown[1]} {unknown[2]}, which is not of Keras: name the Python file that "
            "defines it with --import FILE.py, which runs that file, or pass the model itself to "
            "the Python API"
        )
    lines = [printable(line) for line in text.strip().splitlines() if line.strip()]
    # Of an error in a layer's call the first line says only where.
    return " ".join(lines[: 2 if "when calling" in text else 1]) or type(error).__name__


def image_shape(model: keras.Model) -> ImageShape:
    """Returns height, width and channels of the model's input."""
    _, height, width, channels = model.inputs[0].shape
    return height, width, channels


def labels(model: keras.Model) -> tuple[str, ...]:
    """Returns the class names stored in the model, empty if it has none."""
    return model.spec.labels if isinstance(model, CCT) else ()


def check_classifier(model: Any, where: str) -> None:
    """Checks that ``model`` maps images (N, H, W, 1 or 3) to one or more outputs.

    Each is (N, classes), one class being a decision between two, or (N, slots, classes), such as
    the letters of a number plate.

    Args:
        model: of any kind.
        where: what the message calls it.

    Raises:
        InvalidModel: it does not; the message has its shapes.
    """
    inputs = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    outputs = [tuple(tensor.shape) for tensor in getattr(model, "outputs", None) or ()]
    is_classifier = (
        len(inputs) == 1
        and len(inputs[0]) == 4
        and None not in inputs[0][1:]
        and inputs[0][3] in (1, 3)
        and outputs
        and all(len(shape) in (2, 3) and None not in shape[1:] for shape in outputs)
    )
    if is_classifier:
        return
    if all(len(shape) in (2, 3) for shape in outputs):
        check_image(inputs, where)
    raise InvalidModel(
        f"{where} is not an image classifier: it maps {inputs} to {outputs}; needed is one "
        "image (None, height, width, 1 or 3) to logits (None, classes) or (None, slots, classes)"
    )


def check_image(inputs: Sequence[tuple[int | None, ...]], where: str) -> None:
    """Refuses images without a size or an axis of channels, with what to do about it.

    Args:
        inputs: shapes of all inputs, batch first.
        where: what the message calls the model.

    Raises:
        InvalidModel: the only input is of such images.
    """
    if len(inputs) != 1 or len(inputs[0]) not in (3, 4):
        return
    _, height, width, *channels = inputs[0]
    sizes = f"{height or 'height'}, {width or 'width'}"
    if not channels:
        raise InvalidModel(
            f"{where} takes images without a channel axis, {inputs[0]}: add one, "
            f"keras.Input(({sizes}, 1))"
        )
    if None in (height, width) and channels[0] in (1, 3):
        raise InvalidModel(
            f"{where} takes images of any size, {inputs[0]}: build it for one, "
            f"keras.Input(({sizes}, {channels[0]}))"
        )


def check_declared_size(declared_bytes: int, path: Path) -> None:
    """Refuses a file that would become far larger in memory than it is on disk.

    Args:
        declared_bytes: size of the contents according to the file.
        path: the file, or the folder that holds it.

    Raises:
        InvalidModel: it declares more than sixteen times its size plus 64 MiB.
    """
    with refusing(InvalidModel, f"{path} is refused"):
        check_size(declared_bytes, size_on_disk(path))


def check_archive_size(path: Path) -> None:
    """Refuses a zip archive that would unpack to far more than its size.

    Raises:
        InvalidModel: it would, or its directory cannot be read.
    """
    with _archive(path) as archive:
        declared_bytes = sum(entry.file_size for entry in archive.infolist())
    check_declared_size(declared_bytes, path)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    what = f"{path} is not a readable archive"
    with refusing(InvalidModel, what, otherwise="it is damaged"), zipfile.ZipFile(path) as archive:
        yield archive


def read_weights(path: Path) -> IO[bytes]:
    """Returns the HDF5 file in a ``.keras`` file; raises ``InvalidModel``."""
    with _archive(path) as archive:
        if _WEIGHTS not in archive.namelist():
            raise InvalidModel(f"{path} cannot be loaded: it has no {_WEIGHTS}")
        return io.BytesIO(archive.read(_WEIGHTS))


def find_datasets(content: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Returns the arrays in an HDF5 file by their paths in it, without reading them.

    Args:
        content: the open file.
        path: of the file that contains it, for messages and for its size.

    Raises:
        InvalidModel: an array is in another file, is not of numbers, or all of them would be far
            larger than the file.
    """
    datasets: dict[str, h5py.Dataset] = {}

    def collect(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset):
            datasets[name] = entry

    content.visititems(collect)
    for name, dataset in datasets.items():
        if dataset.external or dataset.is_virtual:
            raise InvalidModel(f"{path} is refused: its weights are in other files ({name})")
        # V: a type that numpy lacks, such as bfloat16.
        if dataset.shape is None or dataset.dtype.kind not in "biufV":
            raise InvalidModel(f"{path} is refused: its {name} holds no numbers")
    check_declared_size(sum(dataset.nbytes for dataset in datasets.values()), path)
    return datasets


def _check_weights_size(path: Path) -> None:
    """Refuses weights that would be far larger in memory than the archive that holds them."""
    with h5py.File(read_weights(path), "r") as weights:
        find_datasets(weights, path)


def check_architecture_size(config: JSONObject, path: Path, objects: Objects = NO_OBJECTS) -> None:
    """Refuses an architecture with far more weights than the file holds.

    Keras allocates the weights before it reads them.

    Args:
        config: of the model.
        path: the file.
        objects: see ``load``.

    Raises:
        InvalidModel: the message has both sizes.
        Exception: whatever Keras and its layers raise for a broken or unsafe file.
    """
    # The key that Keras goes by. A million layers of a CCT are counted faster than built.
    if config.get("registered_name") == keras.saving.get_registered_name(CCT):
        check_declared_size(4 * parameter_count(ModelSpec(**config["config"]["spec"])), path)
        return
    # A few layers allocate arrays even while variables are only counted: check their numbers first.
    check_declared_size(max(_sizes(config), default=0), path)
    check_declared_size(without_memory(lambda: _weight_bytes(config, objects)), path)


def without_memory(build: Callable[[], T]) -> T:
    """Returns what ``build`` does, where variables of Keras have a shape and no memory."""

    def run() -> T:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    # Keras keeps pending initializations and name counters per thread; they end with this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def read_config(path: Path) -> JSONObject:
    """Returns the configuration in a ``.keras`` file; raises ``InvalidModel``."""
    why = "it has no readable config.json"
    with refusing(InvalidModel, f"{path} cannot be loaded", otherwise=why):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        if not isinstance(config, dict):
            raise Malformed(why)
        return config


def _sizes(config: Any) -> Iterator[int]:
    """Yields the integers in a configuration and the products of shapes, but not seeds and ids."""
    if isinstance(config, int):
        yield config
    elif isinstance(config, list):
        for item in config:
            yield from _sizes(item)
    elif isinstance(config, dict):
        for name, value in config.items():
            if "shape" in name and isinstance(value, list):
                yield math.prod(size for size in value if isinstance(size, int))
            if "seed" not in name and name != "shared_object_id":
                yield from _sizes(value)


def check_activations(model: keras.Model, path: Path) -> None:
    """Refuses a model of few weights that computes giant tensors, which TensorFlow would hold.

    Raises:
        InvalidModel: see ``check_largest``; or those of its fixed batch are too many.
    """
    largest = max(_activations(model), default=0)
    check_largest(largest, path)
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or ()]
    batch = max((shape[0] or 1 for shape in shapes if shape), default=1)
    if largest * batch > _MAX_IN_BATCH:
        raise InvalidModel(
            f"{path} is refused: a layer computes {largest:,} numbers of each of the {batch:,} "
            f"images that the model takes at a time, {_MAX_IN_BATCH:,} in all are possible: save "
            "it with keras.Input(shape), without batch_size"
        )


def check_largest(largest: int, path: Path) -> None:
    """Refuses a model whose largest layer computes that many numbers of one image.

    Raises:
        InvalidModel: they are more than ``_MAX_ACTIVATIONS``.
    """
    if largest > _MAX_ACTIVATIONS:
        raise InvalidModel(
            f"{path} is refused: a layer computes {largest:,} numbers of one image, more than the "
            f"{_MAX_ACTIVATIONS:,} that are possible"
        )


def _activations(model: Any) -> Iterator[int]:
    """Yields how many numbers each layer of a model, and of the models in it, has per image."""
    if isinstance(model, CCT):  # the scores of attention are no layer's output
        yield model.spec.heads * math.prod(token_grid(model.spec)) ** 2
    # A sequential model has no operations, and what is no model has neither.
    operations: Any = getattr(model, "operations", None) or getattr(model, "layers", ())
    for operation in operations:
        for node in operation._inbound_nodes:
            for tensor in node.output_tensors:
                yield math.prod(size for size in tensor.shape[1:] if size is not None)
        yield from _activations(operation)


def _weight_bytes(config: JSONObject, objects: Objects) -> int:
    """Returns the bytes of a model's weights as float32."""
    with keras.saving.custom_object_scope(dict(objects)):
        model = keras.saving.deserialize_keras_object(
            config | {"compile_config": None}, safe_mode=True
        )
        parameters: int = sum(math.prod(variable.shape) for variable in model.variables)
    return 4 * parameters
