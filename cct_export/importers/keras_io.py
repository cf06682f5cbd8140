"""The ``.weights.h5`` that the keras.io example's own ModelCheckpoint writes.

The names in the file carry counters of the process that saved it (a second model in one process
has ``conv2d_2`` where the first has ``conv2d``), so variables are matched by kind of layer, by
order of counter and by shape.
"""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from cct_export.errors import InvalidModel
from cct_export.model.cct import CCT
from cct_export.model.presets import preset

Arrays = dict[str, np.ndarray]


def load(path: Path) -> CCT:
    """Returns the example's model with the weights in ``path``.

    Args:
        path: a ``.weights.h5`` of the published model; the number of classes may differ.

    Raises:
        InvalidModel: missing, not HDF5, or variables of another architecture.
    """
    if not path.is_file():
        raise InvalidModel(f"no such model file: {path}")
    try:
        arrays = _read(path)
    except (OSError, RuntimeError, KeyError, MemoryError) as error:
        raise InvalidModel(f"{path} is not a readable HDF5 file: {error}") from error
    ordered = _in_model_order(arrays)
    spec = preset("cct_keras_io")
    if ordered and ordered[-1].ndim == 1:
        spec = replace(spec, name="cct_keras_io_import", classes=len(ordered[-1]))
    model = CCT(spec)
    wanted = [tuple(weight.shape) for weight in model.weights]
    found = [array.shape for array in ordered]
    if found != wanted:
        different = next(
            (i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]),
            min(len(found), len(wanted)),
        )
        raise InvalidModel(
            f"{path} does not hold the keras.io example's weights: {len(found)} variables, "
            f"{len(wanted)} expected, the first difference at number {different}"
        )
    model.set_weights(ordered)
    return model


def _read(path: Path) -> Arrays:
    """Returns every array below ``layers/`` by its path; the optimizer's are left out."""
    arrays: Arrays = {}

    def keep(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset) and name.startswith("layers/"):
            arrays[name.removeprefix("layers/")] = np.asarray(entry)

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return arrays


def _group(arrays: Arrays, layer: str) -> list[list[np.ndarray]]:
    """Returns the variables of each layer whose name is ``layer`` with or without a counter."""
    pattern = re.compile(rf"(?:.*/)?{layer}(?:_(\d+))?/vars/(\d+)")
    found: dict[int, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(int(match[1] or 0), {})[int(match[2])] = array
    return [[group[i] for i in sorted(group)] for _, group in sorted(found.items())]


def _attention(arrays: Arrays) -> list[list[np.ndarray]]:
    """Returns kernel and bias of query, key, value and output of each attention layer."""
    parts = ("query_dense", "key_dense", "value_dense", "output_dense")
    counters = sorted(
        {int(m[1] or 0) for n in arrays if (m := re.match(r"multi_head_attention(?:_(\d+))?/", n))}
    )
    names = [f"multi_head_attention_{c}" if c else "multi_head_attention" for c in counters]
    return [
        [arrays[key] for part in parts for i in (0, 1) if (key := f"{n}/{part}/vars/{i}") in arrays]
        for n in names
    ]


def _in_model_order(arrays: Arrays) -> list[np.ndarray]:
    """Returns the example's variables in the order of ``CCT.weights``, what is missing left out."""
    norms = _group(arrays, "layer_normalization")
    dense = _group({k: v for k, v in arrays.items() if k.startswith("dense")}, "dense")
    attentions = _attention(arrays)
    layers = _group(arrays, "conv2d") + _group(arrays, "position_embedding")
    for index, attention in enumerate(attentions):
        first = 2 * index
        layers += [*norms[first : first + 1], attention, *norms[first + 1 : first + 2]]
        layers += dense[first : first + 2]
    layers += norms[2 * len(attentions) :]
    layers += _group(arrays, r"sequence_pooling(?:_\d+)?/attention")
    layers += dense[2 * len(attentions) :]
    return [variable for layer in layers for variable in layer]
