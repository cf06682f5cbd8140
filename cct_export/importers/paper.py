"""State dicts of the paper's authors' PyTorch code, and of vit-pytorch's ``cct.py``.

Both have the same names, shapes and formulas. Where shapes leave something open, the paper's rules
apply: heads are 64 channels wide, a convolution's stride and padding follow from its size.
"""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from cct_export.errors import InvalidModel
from cct_export.importers import state_dict
from cct_export.importers.imported_model import (
    Arrays,
    ImportedModel,
    check_dtypes,
    check_finite,
    check_options,
    check_shapes,
)
from cct_export.model.adapting import NORMALIZATIONS
from cct_export.model.cct import CCT
from cct_export.model.layers import sine_table
from cct_export.model.presets import PRESETS, stride_and_padding
from cct_export.model.sizes import stage_sides, token_grid
from cct_export.specs import ImportSpec, ModelSpec

HEAD_DIM = 64
# The authors compute their table in float32, including the angles: the error is some 3e-5 at 576.
_SINE_TOLERANCE = 1e-3
_POSITIONS = "classifier.positional_emb"
# The tensors whose shapes give the architecture, and their number of dimensions.
_CONVOLUTION = "tokenizer.conv_layers.{}.0.weight"
_CLASSIFIER = "classifier.fc.weight"
_RANKS = {_CONVOLUTION.format(0): 4, _CLASSIFIER: 2}
_HIDDEN = "classifier.blocks.0.linear1.bias"
_BLOCK = re.compile(r"classifier\.blocks\.(\d+)\.")


def load(path: Path, options: ImportSpec) -> ImportedModel:
    """Returns the CCT whose state dict is in ``path``.

    Args:
        path: a ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.safetensors`` file.
        options: ``heads`` and ``normalize`` set what the file does not contain; ``image_size``
            selects among the sizes with the same number of tokens.

    Raises:
        InvalidModel: another architecture, a tensor missing or left over, a number not finite.
        InvalidRequest: an option without effect.
        MissingDependency: PyTorch or safetensors is not installed.
    """
    check_options(path, options, gelu="the GELU of the paper's block is the exact one")
    arrays, notes = state_dict.read(path)
    spec, note = _spec(arrays, options, path)
    shapes = _shapes(spec)
    # Before the model is built: shapes of few numbers could describe a model that fills the memory.
    check_shapes(arrays, shapes, path)
    check_dtypes(arrays, path)
    check_finite(arrays, path)
    model = CCT(spec)
    model.set_weights([_keras_array(arrays[name]) for name in shapes])
    kind = "state dict of the paper's PyTorch code"
    return ImportedModel.from_arrays(model, kind, arrays, (*notes, note))


def _spec(arrays: Arrays, options: ImportSpec, path: Path) -> tuple[ModelSpec, str]:
    """Returns the architecture with such tensors, and a line on what was inferred."""
    kernels, hidden, layers = _measure(arrays, path)
    width, kernel = kernels[-1].shape[0], kernels[0].shape[2]
    heads = _heads(width, options, path)
    stride, padding = stride_and_padding(kernel)
    spec = ModelSpec(
        channels=kernels[0].shape[1],
        classes=arrays[_CLASSIFIER].shape[0],
        filters=tuple(kernel.shape[0] for kernel in kernels),
        kernel=kernel,
        stride=stride,
        padding=padding,
        block="paper",
        layers=layers,
        heads=heads,
        head_dim=width // heads,
        mlp_units=(hidden or width, width),
        positional=_positional(arrays.get(_POSITIONS)),
    )
    spec = replace(spec, image_size=_image_size(arrays.get(_POSITIONS), spec, options, path))
    normalize = options.normalize or _normalization(spec)
    mean, std = NORMALIZATIONS[normalize]
    if mean and spec.channels != len(mean):
        mean = std = ()
        normalize = "none"
    spec = replace(_with_name(spec), mean=mean, std=std)
    heads_source = "as requested" if options.heads else f"{spec.head_dim} channels each"
    positions = "no" if spec.positional == "none" else spec.positional
    return spec, (
        f"{spec.heads} heads ({heads_source}), {positions} positions, "
        f"images of {spec.image_size} pixels, normalization {normalize}"
        f"{' (as requested)' if options.normalize else ''}"
    )


def _measure(arrays: Arrays, path: Path) -> tuple[list[np.ndarray], int, int]:
    """Returns the convolutions, the width of the MLP (or 0), and the number of blocks.

    Raises:
        InvalidModel: one of them is missing or has the wrong rank, or a tensor is empty.
    """
    # Counted: an index of a million is a name that is left over, not a million blocks.
    blocks = {match[1] for name in arrays if (match := _BLOCK.match(name))}
    kernels: list[np.ndarray] = []
    while (name := _CONVOLUTION.format(len(kernels))) in arrays:
        kernels.append(arrays[name])
    ranks = _RANKS | {_CONVOLUTION.format(index): 4 for index in range(len(kernels))}
    invalid = [name for name, rank in ranks.items() if np.ndim(arrays.get(name, 0)) != rank]
    if invalid or not blocks:
        first_names = ", ".join(list(arrays)[:3])
        what = f"{invalid[0]} of {ranks[invalid[0]]} dimensions" if invalid else "every block"
        raise InvalidModel(
            f"{path} is not a state dict of a CCT: {what} is missing; it begins with {first_names}"
        )
    empty = [name for name, array in arrays.items() if not array.size]
    if empty:
        raise InvalidModel(f"{path} is not a state dict of a CCT: {empty[0]} has no numbers")
    hidden = arrays[_HIDDEN].shape if _HIDDEN in arrays else ()
    return kernels, hidden[0] if hidden else 0, len(blocks)


def _heads(width: int, options: ImportSpec, path: Path) -> int:
    """Returns the requested heads, or one for each 64 channels; raises ``InvalidModel``."""
    if options.heads:
        if width % options.heads:
            raise InvalidModel(
                f"{path}: {width} channels cannot be shared by {options.heads} heads"
            )
        return options.heads
    if width % HEAD_DIM:
        raise InvalidModel(
            f"{path}: heads are usually {HEAD_DIM} channels wide, and {width} channels are not a "
            f"multiple of that; give --heads a divisor of {width}"
        )
    return width // HEAD_DIM


def _positional(table: np.ndarray | None) -> str:
    if table is None:
        return "none"
    if table.ndim == 3:
        difference = float(np.abs(table[0] - sine_table(*table.shape[-2:])).max())
        return "sine" if difference < _SINE_TOLERANCE else "learnable"
    return "learnable"


def _image_size(table: np.ndarray | None, spec: ModelSpec, options: ImportSpec, path: Path) -> int:
    """Returns the image size with as many tokens: the requested or else the most usual one."""
    if table is None:
        return options.image_size or (32 if _is_for_small_images(spec) else 224)
    tokens = table.shape[1] if table.ndim == 3 else 0
    side = math.isqrt(tokens)
    sizes = [size for size in range(8, 32 * side + 64) if _tokens_per_side(spec, size) == side]
    if side * side != tokens or not sizes:
        raise InvalidModel(
            f"{path}: {tokens} positions do not come from a square image with "
            f"{len(spec.filters)} convolutions of kernel {spec.kernel}"
        )
    if options.image_size in sizes:
        return options.image_size
    return max(sizes, key=lambda size: (size % 32 == 0, size % 2 == 0, size))


def _tokens_per_side(spec: ModelSpec, image_size: int) -> int:
    """Returns the tokens along one side of an image, -1 if it is too small."""
    try:
        return stage_sides(spec, image_size)[-1]
    except InvalidModel:
        return -1


def _is_for_small_images(spec: ModelSpec) -> bool:
    """Tells by the tokenizer: the paper has kernels of 3 for 32 pixels, of 7 for large images."""
    return spec.kernel < 7


def _normalization(spec: ModelSpec) -> str:
    """Returns that of the presets with the most similar tokenizer, regardless of image size."""
    if not _is_for_small_images(spec):
        return "imagenet"
    return "cifar100" if spec.classes == 100 else "cifar10"


def _with_name(spec: ModelSpec) -> ModelSpec:
    """Returns ``spec`` with the name of its preset, or one built like those of presets."""
    for preset in PRESETS.values():
        if replace(preset, name=spec.name, mean=(), std=()) == spec:
            return replace(spec, name=preset.name)
    convolutions = f"{spec.kernel}x{len(spec.filters)}"
    name = f"cct_{spec.layers}_{convolutions}_{spec.image_size}"
    suffix = {"sine": "_sine", "none": "_nopos", "learnable": ""}[spec.positional]
    return replace(spec, name=name + suffix)


def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the authors' tensors in the order of ``CCT.weights``."""
    width, hidden, kernel = spec.width, spec.mlp_units[0], spec.kernel
    shapes: dict[str, tuple[int, ...]] = {}
    channels = itertools.pairwise((spec.channels, *spec.filters))
    for index, (inputs, outputs) in enumerate(channels):
        shapes[_CONVOLUTION.format(index)] = (outputs, inputs, kernel, kernel)
    if spec.positional != "none":
        shapes[_POSITIONS] = (1, math.prod(token_grid(spec)), width)

    def add(name: str, *shape: int) -> None:
        shapes[f"classifier.{name}.weight"] = shape
        shapes[f"classifier.{name}.bias"] = shape[:1]

    for index in range(spec.layers):
        block = f"blocks.{index}"
        add(f"{block}.pre_norm", width)
        shapes[f"classifier.{block}.self_attn.qkv.weight"] = (3 * width, width)
        add(f"{block}.self_attn.proj", width, width)
        add(f"{block}.norm1", width)
        add(f"{block}.linear1", hidden, width)
        add(f"{block}.linear2", width, hidden)
    add("norm", width)
    add("attention_pool", 1, width)
    add("fc", spec.classes, width)
    return shapes


def _keras_array(array: np.ndarray) -> np.ndarray:
    """Returns PyTorch's array in Keras' layout: output channels last, no batch of positions."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array[0] if array.ndim == 3 else array.T
