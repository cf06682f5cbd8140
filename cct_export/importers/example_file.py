"""What an HDF5 file of Keras says of the layers of a model: their kinds, order and arrays.

Names in it carry counters, in files of Keras 3.0 those of the process that saved it: a second model
in one process has ``conv2d_2`` where the first has ``conv2d``. Only their order is used.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from cct_export.errors import InvalidModel
from cct_export.model.checkpoint import find_datasets
from cct_export.untrusted import Malformed, refusing

Arrays = Mapping[str, np.ndarray]
# Layers of each kind in their order, the arrays of each by their names below the layer.
Layers = Mapping[str, Sequence[Arrays]]
# The same, the arrays in their order.
Kinds = Mapping[str, Sequence[Sequence[np.ndarray]]]
# Layers within these are as good as layers of the model.
_CONTAINER = re.compile(r"(?:sequential|functional)(?:_\d+)?/layers/")
_TOKENIZER = re.compile(r"((?:.*/)?cct_tokenizer(?:_\d+)?/conv_model/layers/)([^/]+)/vars")
_SCORE_BIAS = re.compile(r"(?:.*/)?sequence_pooling(?:_\d+)?/attention/vars/1")
_VARIABLES = "/vars"


@dataclass(frozen=True)
class Content:
    """The layers and arrays of a file.

    Attributes:
        arrays: float32, by their paths below ``layers/``, without optimizer and random states.
        groups: paths of all layers below ``layers/``, each ending in ``/vars``; also of those
            without arrays.
    """

    arrays: Arrays
    groups: tuple[str, ...]

    @cached_property
    def tokenizer(self) -> Kinds:
        """The layers of the tokenizer; raises ``Malformed`` unless there is one."""
        found = [match for group in self.groups if (match := _TOKENIZER.fullmatch(group))]
        if len({match[1] for match in found}) != 1:
            raise Malformed("it has no layers of one tokenizer of the example's (conv_model)")
        return {
            kind: [[array for _, array in sorted(arrays.items())] for arrays in layers]
            for kind, layers in self._layers(found[0][1], (match[2] for match in found)).items()
        }

    @cached_property
    def layers(self) -> Layers:
        """The layers of the model, without those inside of other layers."""
        below: dict[str, dict[str, None]] = {}
        for group in self.groups:
            start = 0
            while match := _CONTAINER.match(group, start):
                start = match.end()
            name = group[start:].partition("/")[0]
            below.setdefault(group[:start], {})[name] = None
        merged: dict[str, list[Arrays]] = {}
        for prefix, names in sorted(below.items()):
            for kind, layers in self._layers(prefix, names).items():
                merged.setdefault(kind, []).extend(layers)
        return merged

    def _layers(self, prefix: str, names: Iterable[str]) -> Layers:
        numbered = sorted((*counter_of(name), name) for name in names)
        layers: dict[str, list[Arrays]] = {}
        for kind, _, name in numbered:
            below = f"{prefix}{name}/"
            layers.setdefault(kind, []).append(
                {
                    path.removeprefix(below): array
                    for path, array in self.arrays.items()
                    if path.startswith(below)
                }
            )
        return layers

    @property
    def has_score_bias(self) -> bool:
        """Whether the scores of the example's pooling have a bias."""
        return any(map(_SCORE_BIAS.fullmatch, self.arrays))


def counter_of(name: str) -> tuple[str, int]:
    """Returns kind and number of a layer by its name in a file, such as ``conv2d_1``."""
    kind, _, number = name.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (name, 0)


def read_content(file: Path | IO[bytes], path: Path) -> Content:
    """Returns the layers and arrays of a file.

    Args:
        file: HDF5 with the weights of a Keras 3 model.
        path: of the file that contains it, for messages and for its size.

    Raises:
        InvalidModel: not HDF5, truncated, far larger than the file, or it refers to other files.
    """
    groups: list[str] = []

    def collect(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Group) and name.endswith(_VARIABLES):
            groups.append(name)

    what = f"{path} is not a readable HDF5 file"
    with refusing(InvalidModel, what, otherwise="it is damaged"), h5py.File(file, "r") as content:
        arrays = {
            _in_layers(name): np.asarray(dataset, np.float32)
            for name, dataset in find_datasets(content, path).items()
            if name.startswith("layers/") and "seed_generator" not in name
        }
        content.visititems(collect)
    return Content(arrays, tuple(_in_layers(name) for name in groups if name.startswith("layers/")))


def _in_layers(name: str) -> str:
    return name.removeprefix("layers/")
