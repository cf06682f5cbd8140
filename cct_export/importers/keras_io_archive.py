"""The ``.keras`` file of a model built by the keras.io example's own code.

Its classes are registered nowhere, and Keras cannot load it without them. Nothing of theirs is
needed: the configuration says which layers there are and how they are connected, the weights tell
the sizes.
"""

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cct_export.errors import InvalidModel
from cct_export.importers.foreign import Foreign, check_finite, check_options, of_arrays
from cct_export.importers.keras_io import check_all_used, in_model_order, read_arrays
from cct_export.importers.lookalike import spec_of
from cct_export.model.cct import CCT
from cct_export.model.layers import NORM_EPSILON
from cct_export.model.sizes import parameters
from cct_export.model.untrusted import check_archive, check_declared
from cct_export.specs import ImportSpec

OWN_CLASSES = ("CCTTokenizer", "PositionEmbedding", "SequencePooling", "StochasticDepth")
# One letter for each kind of layer: the example is then one word.
_LETTERS = {
    "InputLayer": "I",
    "Rescaling": "R",
    "RandomCrop": "-",
    "RandomFlip": "-",
    "CCTTokenizer": "T",
    "PositionEmbedding": "P",
    "Add": "A",
    "LayerNormalization": "N",
    "MultiHeadAttention": "M",
    "StochasticDepth": "-",
    "Dense": "F",
    "Dropout": "-",
    "SequencePooling": "Q",
}
_EXAMPLE = re.compile(r"IRT(PA)?(NMANFFA)*NQF")
_UNREADABLE = (zipfile.BadZipFile, OSError, KeyError, ValueError, NotImplementedError, EOFError)


def is_example(path: Path) -> bool:
    """Tells whether ``path`` is a ``.keras`` file with classes of the example's author."""
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        foreign = [one["class_name"] for one in layers if _is_own(one)]
    except (*_UNREADABLE, TypeError, InvalidModel):
        return False
    return "CCTTokenizer" in foreign


def _is_own(layer: dict[str, Any]) -> bool:
    registered = str(layer.get("registered_name"))
    return layer["class_name"] in OWN_CLASSES and not registered.startswith("cct_export>")


def load(path: Path, options: ImportSpec) -> Foreign:
    """Returns the CCT in a file for which ``is_example`` holds.

    Raises:
        InvalidModel: damaged, or no model that the example's code builds.
        InvalidRequest: an option that does nothing here.
    """
    check_options(path, options, heads="the shapes of its weights tell the heads")
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
            weights = io.BytesIO(archive.read("model.weights.h5"))
        layers = _flat(config["layers"])
        _check_layers(layers, path)
        image = tuple(layers[0]["config"]["batch_shape"][1:])
    except (*_UNREADABLE, TypeError, IndexError, AttributeError) as error:
        raise InvalidModel(f"{path} is damaged ({type(error).__name__}: {error})") from error
    arrays = read_arrays(weights, path)
    ordered = in_model_order(arrays)
    gelu = options.gelu or "tanh"
    try:
        spec = spec_of([array.shape for array in ordered], image, config["name"])
        check_declared(4 * parameters(spec), path)
        model = CCT(replace(spec, name="cct_keras_io_import", gelu=gelu))
        check_all_used(arrays, ordered, path)
        check_finite(arrays, path)
        model.set_weights(ordered)
    except ValueError as error:
        raise InvalidModel(f"{path} does not hold the example's weights: {error}") from error
    blocks = [one for one in layers if one["class_name"] == "MultiHeadAttention"]
    if len(blocks) != spec.layers:
        raise InvalidModel(f"{path} has {len(blocks)} blocks and weights of {spec.layers}")
    notes = (
        f"its own classes ({', '.join(OWN_CLASSES)}) were not run: they are taken to be the "
        "example's",
        f"{gelu} GELU, {'as said' if options.gelu else 'as the example has it'}: such files do not "
        "tell which",
    )
    return of_arrays(model, ".keras file of the keras.io example", arrays, notes)


def _flat(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the layers with those of a Sequential in its place, without its own input."""
    found: list[dict[str, Any]] = []
    for layer in layers:
        inner = layer["config"].get("layers") if layer["class_name"] == "Sequential" else None
        found += [layer] if inner is None else [x for x in inner if x["class_name"] != "InputLayer"]
    return found


def _check_layers(layers: list[dict[str, Any]], path: Path) -> None:
    """Refuses what the example's code does not build; raises ``InvalidModel``."""
    unknown = [one["class_name"] for one in layers if one["class_name"] not in _LETTERS]
    if unknown:
        raise InvalidModel(f"{path} is not the keras.io example: it has a layer {unknown[0]}")
    word = "".join(_LETTERS[one["class_name"]] for one in layers).replace("-", "")
    if not _EXAMPLE.fullmatch(word):
        raise InvalidModel(f"{path} is not the keras.io example: its layers follow another order")
    last_dense = max(i for i, one in enumerate(layers) if one["class_name"] == "Dense")
    stream = previous = ""
    for index, layer in enumerate(layers):
        name, config = layer.get("name") or layer["config"]["name"], layer["config"]
        kind = layer["class_name"]
        if kind == "Add" and _sources(layer) != {previous, stream}:
            raise InvalidModel(f"{path} is not the keras.io example: {name} adds other layers")
        activation = "linear" if index == last_dense else "gelu"
        wrong = (
            (kind == "LayerNormalization" and config["epsilon"] != NORM_EPSILON)
            or (kind == "Dense" and config["activation"] != activation)
            or (kind == "Rescaling" and (config["scale"], config["offset"]) != (1 / 255, 0.0))
        )
        if wrong:
            raise InvalidModel(f"{path} is not the keras.io example: {name} computes otherwise")
        previous = name
        if kind in ("Add", "CCTTokenizer"):
            stream = name


def _sources(layer: dict[str, Any]) -> set[str]:
    """Returns the names of the layers that ``layer`` reads."""
    text = json.dumps(layer["inbound_nodes"])
    return set(re.findall(r'"keras_history": \["([^"]+)"', text))
