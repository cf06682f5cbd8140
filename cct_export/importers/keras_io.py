"""The ``.weights.h5`` that the keras.io example's own ModelCheckpoint writes.

The names in the file carry counters of the process that saved it (a second model in one process
has ``conv2d_2`` where the first has ``conv2d``), so variables are matched by kind of layer, by
order of counter and by shape.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from cct_export.errors import InvalidModel
from cct_export.importers.foreign import Foreign, check_finite, check_options, of_arrays
from cct_export.model.cct import CCT
from cct_export.model.presets import preset
from cct_export.model.sizes import parameters
from cct_export.model.untrusted import check_declared
from cct_export.specs import ImportSpec

Arrays = dict[str, np.ndarray]


def load(path: Path, options: ImportSpec | None = None) -> Foreign:
    """Returns the example's model with the weights in ``path``.

    Args:
        path: a ``.weights.h5`` of the published model; the number of classes may differ.
        options: ``gelu`` decides what the file does not say.

    Raises:
        InvalidModel: missing, not HDF5, variables of another architecture or not finite.
        InvalidRequest: an option that does nothing here.
    """
    if not path.is_file():
        raise InvalidModel(f"no such model file: {path}")
    options = options or ImportSpec()
    check_options(path, options, heads="the shapes of its weights tell the heads")
    arrays = read_arrays(path, path)
    ordered = in_model_order(arrays)
    gelu = options.gelu or "tanh"
    spec = replace(preset("cct_keras_io"), gelu=gelu)
    if ordered and ordered[-1].ndim == 1 and ordered[-1].size:
        spec = replace(spec, name="cct_keras_io_import", classes=len(ordered[-1]))
    check_declared(4 * parameters(spec), path)
    model = CCT(spec)
    wanted = [tuple(weight.shape) for weight in model.weights]
    found = [array.shape for array in ordered]
    if found != wanted:
        different = next(
            (i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]),
            min(len(found), len(wanted)),
        )
        where = f" ({model.weights[different].path})" if different < len(wanted) else ""
        raise InvalidModel(
            f"{path} does not hold the keras.io example's weights: {len(found)} variables, "
            f"{len(wanted)} expected, the first difference at number {different}{where}"
        )
    check_all_used(arrays, ordered, path)
    check_finite(arrays, path)
    model.set_weights(ordered)
    notes = (f"positions, norms and heads of the published example; {gelu} GELU",)
    return of_arrays(model, "weights of the keras.io example", arrays, notes)


def check_all_used(arrays: Arrays, ordered: list[np.ndarray], path: Path) -> None:
    """Refuses a file that holds more than the architecture has; raises ``InvalidModel``."""
    used = {id(array) for array in ordered}
    left = [name for name, array in arrays.items() if id(array) not in used]
    if left:
        raise InvalidModel(
            f"{path} does not hold the keras.io example's weights: {len(ordered)} expected, "
            f"left over: {', '.join(left[:3])}"
        )


def read_arrays(file: Path | IO[bytes], path: Path) -> Arrays:
    """Returns every array below ``layers/`` by its path, without the optimizer's and random states.

    Args:
        file: HDF5 with the weights of a Keras 3 model.
        path: where that is, for messages and for its size.

    Raises:
        InvalidModel: not HDF5, truncated, far larger than the file, or it refers to other files.
    """
    arrays: Arrays = {}
    found: dict[str, h5py.Dataset] = {}

    def note(name: str, entry: object) -> None:
        wanted = name.startswith("layers/") and "seed_generator" not in name
        if isinstance(entry, h5py.Dataset) and wanted:
            found[name.removeprefix("layers/")] = entry

    try:
        with h5py.File(file, "r") as content:
            content.visititems(note)
            if any(entry.external or entry.is_virtual for entry in found.values()):
                raise InvalidModel(f"{path} is refused: its weights are in other files")
            check_declared(sum(entry.size * 4 for entry in found.values()), path)
            for name, entry in found.items():
                arrays[name] = np.asarray(entry, np.float32)
    except (OSError, RuntimeError, KeyError, MemoryError, TypeError, ValueError) as error:
        raise InvalidModel(f"{path} is not a readable HDF5 file: {error}") from error
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


def in_model_order(arrays: Arrays) -> list[np.ndarray]:
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
