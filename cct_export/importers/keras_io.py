"""Files written by the keras.io example's own code: ``.weights.h5`` and ``.keras``.

A ``.weights.h5`` is what the example's ModelCheckpoint writes. The names in it carry counters of
the process that saved it (a second model in one process has ``conv2d_2`` where the first has
``conv2d``), so variables are matched by kind of layer, order of counter and shape.

A ``.keras`` file refers to the example's classes, without which Keras cannot load it. They are not
run: the configuration lists the layers and their connections, the weights give the sizes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from cct_export.errors import InvalidModel
from cct_export.files import check_file
from cct_export.importers.equivalence import spec_from_shapes
from cct_export.importers.imported_model import ImportedModel, check_finite, check_options
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import (
    check_archive_size,
    check_declared_size,
    find_datasets,
    read_config,
    read_weights,
)
from cct_export.model.presets import preset
from cct_export.model.sizes import parameter_count
from cct_export.specs import NORM_EPSILON, ImportSpec, JSONObject
from cct_export.untrusted import refusing

Arrays = dict[str, np.ndarray]

OWN_CLASSES = ("CCTTokenizer", "PositionEmbedding", "SequencePooling", "StochasticDepth")
# One letter for each kind of layer, so that a pattern describes the example; - has no effect.
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
_HEADS_REASON = "the heads follow from the shapes of its weights"


def load_weights(path: Path, options: ImportSpec) -> ImportedModel:
    """Returns the example's model with the weights in ``path``.

    Args:
        path: a ``.weights.h5`` of the published model; the number of classes may differ.
        options: ``gelu`` sets what the file does not contain.

    Raises:
        InvalidModel: not HDF5, variables of another architecture or not finite.
        InvalidRequest: there is no such file, or an option has no effect.
    """
    check_file(path, "model file")
    check_options(path, options, heads=_HEADS_REASON)
    arrays = read_arrays(path, path)
    weights = _in_model_order(arrays)
    gelu = options.gelu or "tanh"
    spec = replace(preset("cct_keras_io"), gelu=gelu)
    if weights and weights[-1].ndim == 1 and weights[-1].size:
        spec = replace(spec, name="cct_keras_io_import", classes=len(weights[-1]))
    check_declared_size(4 * parameter_count(spec), path)
    model = CCT(spec)
    _check_shapes(weights, model, path)
    _check_all_used(arrays, weights, path)
    check_finite(arrays, path)
    model.set_weights(weights)
    notes = (f"positions, norms and heads of the published example; {gelu} GELU",)
    return ImportedModel.from_arrays(model, "weights of the keras.io example", arrays, notes)


def _check_shapes(weights: list[np.ndarray], model: CCT, path: Path) -> None:
    """Raises ``InvalidModel`` with the first difference of ``weights`` from those of ``model``."""
    expected = [tuple(weight.shape) for weight in model.weights]
    shapes = [array.shape for array in weights]
    if shapes == expected:
        return
    first = next(
        (i for i, (a, b) in enumerate(zip(shapes, expected, strict=False)) if a != b),
        min(len(shapes), len(expected)),
    )
    where = f" ({model.weights[first].path})" if first < len(expected) else ""
    raise InvalidModel(
        f"{path} does not hold the keras.io example's weights: {len(shapes)} variables, "
        f"{len(expected)} expected, the first difference at number {first}{where}"
    )


def _check_all_used(arrays: Arrays, weights: list[np.ndarray], path: Path) -> None:
    """Raises ``InvalidModel`` if the file holds more than the architecture has."""
    used = {id(array) for array in weights}
    unused = [name for name, array in arrays.items() if id(array) not in used]
    if unused:
        raise InvalidModel(
            f"{path} does not hold the keras.io example's weights: {len(weights)} expected, "
            f"left over: {', '.join(unused[:3])}"
        )


def read_arrays(file: Path | IO[bytes], path: Path) -> Arrays:
    """Returns every array below ``layers/`` by its path, without optimizer and random states.

    Args:
        file: HDF5 with the weights of a Keras 3 model.
        path: of the file that contains it, for messages and for its size.

    Raises:
        InvalidModel: not HDF5, truncated, far larger than the file, or it refers to other files.
    """
    what = f"{path} is not a readable HDF5 file"
    with refusing(InvalidModel, what, otherwise="it is damaged"), h5py.File(file, "r") as content:
        return {
            name.removeprefix("layers/"): np.asarray(dataset, np.float32)
            for name, dataset in find_datasets(content, path).items()
            if name.startswith("layers/") and "seed_generator" not in name
        }


def _in_model_order(arrays: Arrays) -> list[np.ndarray]:
    """Returns the example's variables in the order of ``CCT.weights``, without missing ones."""
    norms = _variables_by_layer(arrays, "layer_normalization")
    dense_arrays = {name: array for name, array in arrays.items() if name.startswith("dense")}
    dense = _variables_by_layer(dense_arrays, "dense")
    attentions = _attention_variables(arrays)
    layers = _variables_by_layer(arrays, "conv2d")
    layers += _variables_by_layer(arrays, "position_embedding")
    for index, attention in enumerate(attentions):
        first = 2 * index
        layers += [*norms[first : first + 1], attention, *norms[first + 1 : first + 2]]
        layers += dense[first : first + 2]
    layers += norms[2 * len(attentions) :]
    layers += _variables_by_layer(arrays, r"sequence_pooling(?:_\d+)?/attention")
    layers += dense[2 * len(attentions) :]
    return [variable for layer in layers for variable in layer]


def _variables_by_layer(arrays: Arrays, layer: str) -> list[list[np.ndarray]]:
    """Returns the variables of each layer whose name is ``layer`` with or without a counter."""
    pattern = re.compile(rf"(?:.*/)?{layer}(?:_(\d+))?/vars/(\d+)")
    layers: dict[int, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        if match := pattern.fullmatch(name):
            layers.setdefault(int(match[1] or 0), {})[int(match[2])] = array
    return [[layer[i] for i in sorted(layer)] for _, layer in sorted(layers.items())]


def _attention_variables(arrays: Arrays) -> list[list[np.ndarray]]:
    """Returns kernel and bias of query, key, value and output of each attention layer."""
    parts = ("query_dense", "key_dense", "value_dense", "output_dense")
    pattern = re.compile(r"(multi_head_attention(?:_(\d+))?)/")
    matches = [match for name in arrays if (match := pattern.match(name))]
    counters = {match[1]: int(match[2] or 0) for match in matches}
    return [
        [
            arrays[key]
            for part in parts
            for index in (0, 1)
            if (key := f"{layer}/{part}/vars/{index}") in arrays
        ]
        for layer in sorted(counters, key=lambda layer: counters[layer])
    ]


def is_example(path: Path) -> bool:
    """Tells whether ``path`` is a ``.keras`` file with the example's own classes."""
    try:
        check_archive_size(path)
        with _configuration(path) as config:
            own = [layer["class_name"] for layer in config["layers"] if _is_own_class(layer)]
            return "CCTTokenizer" in own
    except InvalidModel:
        return False  # whoever loads it says why


@contextmanager
def _configuration(path: Path) -> Iterator[JSONObject]:
    """Yields the model's configuration; what it lacks is an ``InvalidModel``."""
    why = "its configuration is not what Keras writes"
    with refusing(InvalidModel, f"{path} is damaged", otherwise=why):
        yield read_config(path)["config"]


def _is_own_class(layer: JSONObject) -> bool:
    registered = str(layer.get("registered_name"))
    return layer["class_name"] in OWN_CLASSES and not registered.startswith("cct_export>")


def load_archive(path: Path, options: ImportSpec) -> ImportedModel:
    """Returns the CCT in a ``.keras`` file for which ``is_example`` is true.

    Raises:
        InvalidModel: damaged, or not a model that the example's code builds.
        InvalidRequest: an option without effect.
    """
    check_options(path, options, heads=_HEADS_REASON)
    check_archive_size(path)
    with _configuration(path) as config:
        layers = _flatten(config["layers"])
        _check_layers(layers, path)
        height, width, channels = layers[0]["config"]["batch_shape"][1:]
        name = str(config["name"])
    arrays = read_arrays(read_weights(path), path)
    weights = _in_model_order(arrays)
    gelu = options.gelu or "tanh"
    try:
        shapes = [array.shape for array in weights]
        spec = spec_from_shapes(shapes, (height, width, channels), name)
        check_declared_size(4 * parameter_count(spec), path)
        model = CCT(replace(spec, name="cct_keras_io_import", gelu=gelu))
        _check_all_used(arrays, weights, path)
        check_finite(arrays, path)
        model.set_weights(weights)
    except ValueError as error:
        raise InvalidModel(f"{path} does not hold the example's weights: {error}") from error
    blocks = sum(layer["class_name"] == "MultiHeadAttention" for layer in layers)
    if blocks != spec.layers:
        raise InvalidModel(f"{path} has {blocks} blocks and weights of {spec.layers}")
    notes = (
        f"its own classes ({', '.join(OWN_CLASSES)}) were not run: they are assumed to be the "
        "example's",
        f"{gelu} GELU ({'as requested' if options.gelu else 'as in the example'}): such files do "
        "not contain it",
    )
    return ImportedModel.from_arrays(model, ".keras file of the keras.io example", arrays, notes)


def _flatten(layers: list[JSONObject]) -> list[JSONObject]:
    """Returns the layers, each Sequential replaced by its own layers without their input."""
    flat: list[JSONObject] = []
    for layer in layers:
        inner = layer["config"].get("layers") if layer["class_name"] == "Sequential" else None
        flat += [layer] if inner is None else [x for x in inner if x["class_name"] != "InputLayer"]
    return flat


def _check_layers(layers: list[JSONObject], path: Path) -> None:
    """Raises ``InvalidModel`` for layers that the example's code does not build."""
    unknown = [layer["class_name"] for layer in layers if layer["class_name"] not in _LETTERS]
    if unknown:
        raise InvalidModel(f"{path} is not the keras.io example: it has a layer {unknown[0]}")
    word = "".join(_LETTERS[layer["class_name"]] for layer in layers).replace("-", "")
    if not _EXAMPLE.fullmatch(word):
        raise InvalidModel(f"{path} is not the keras.io example: its layers are in another order")
    last_dense = max(i for i, layer in enumerate(layers) if layer["class_name"] == "Dense")
    residual = previous = ""
    for index, layer in enumerate(layers):
        name, config = layer.get("name") or layer["config"]["name"], layer["config"]
        kind = layer["class_name"]
        if kind == "Add" and _inputs(layer) != {previous, residual}:
            raise InvalidModel(f"{path} is not the keras.io example: {name} adds other layers")
        activation = "linear" if index == last_dense else "gelu"
        differs = (
            (kind == "LayerNormalization" and config["epsilon"] != NORM_EPSILON)
            or (kind == "Dense" and config["activation"] != activation)
            or (kind == "Rescaling" and (config["scale"], config["offset"]) != (1 / 255, 0.0))
        )
        if differs:
            raise InvalidModel(f"{path} is not the keras.io example: {name} has other settings")
        previous = name
        if kind in ("Add", "CCTTokenizer"):
            residual = name


def _inputs(layer: JSONObject) -> set[str]:
    """Returns the names of the layers whose outputs ``layer`` reads."""
    text = json.dumps(layer["inbound_nodes"])
    return set(re.findall(r'"keras_history": \["([^"]+)"', text))
