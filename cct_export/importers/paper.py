"""State dicts of the paper's authors' PyTorch code, and of vit-pytorch's ``cct.py``.

Both have the same names, shapes and formulas. What shapes do not tell follows from the paper's
rules: heads are 64 channels wide, a convolution's stride and padding follow from its size.
"""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from cct_export.errors import InvalidModel
from cct_export.importers import state_dict
from cct_export.importers.foreign import (
    Arrays,
    Foreign,
    check_finite,
    check_floats,
    check_options,
    check_same_names,
    of_arrays,
)
from cct_export.model.adapting import NORMALIZATIONS
from cct_export.model.cct import CCT
from cct_export.model.layers import sine_table
from cct_export.model.presets import PRESETS, stride_and_padding
from cct_export.specs import ImportSpec, ModelSpec

HEAD_DIM = 64
# The authors' table is computed in float32, angles too: sines of 576 are off by some 3e-5.
_SINE_TOLERANCE = 1e-3
_POSITIONS = "classifier.positional_emb"
# What the architecture is told from, and how many dimensions it has.
_CONVOLUTION = "tokenizer.conv_layers.{}.0.weight"
_FIRST = {_CONVOLUTION.format(0): 4, "classifier.fc.weight": 2}
_HIDDEN = "classifier.blocks.0.linear1.bias"
_BLOCK = re.compile(r"classifier\.blocks\.(\d+)\.")


def load(path: Path, options: ImportSpec) -> Foreign:
    """Returns the CCT whose state dict is in ``path``.

    Args:
        path: a ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.safetensors`` file.
        options: ``heads`` and ``normalize`` decide what the file does not say; ``image_size`` which
            of the sizes is meant that have as many tokens.

    Raises:
        InvalidModel: another architecture, a tensor missing or left over, a number not finite.
        InvalidRequest: an option that does nothing here.
        MissingDependency: PyTorch or safetensors is not installed.
    """
    check_options(path, options, gelu="the GELU of the paper's block is the exact one")
    arrays, said = state_dict.read(path)
    spec, notes = _spec(arrays, options, path)
    wanted = _shapes(spec)
    # Before there is a model: few numbers can have shapes of which a model would fill the memory.
    check_same_names(arrays, wanted, path)
    check_floats(arrays, path)
    check_finite(arrays, path)
    model = CCT(spec)
    model.set_weights([_keras_array(arrays[name]) for name in wanted])
    return of_arrays(model, "state dict of the paper's PyTorch code", arrays, (*said, *notes))


def _spec(arrays: Arrays, options: ImportSpec, path: Path) -> tuple[ModelSpec, tuple[str, ...]]:
    """Returns the architecture that has such tensors, and what was concluded in words."""
    kernels, hidden, layers = _told_from(arrays, path)
    width, kernel = kernels[-1].shape[0], kernels[0].shape[2]
    heads = options.heads or width // HEAD_DIM
    if not heads or width % heads or (not options.heads and width % HEAD_DIM):
        raise InvalidModel(
            f"{path}: heads are usually {HEAD_DIM} channels wide, and {width} channels are no "
            f"multiple of that; say --heads with a divisor of {width}"
            if not options.heads
            else f"{path}: {width} channels cannot be shared by {heads} heads"
        )
    stride, padding = stride_and_padding(kernel)
    spec = ModelSpec(
        channels=kernels[0].shape[1],
        classes=arrays["classifier.fc.weight"].shape[0],
        filters=tuple(one.shape[0] for one in kernels),
        kernel=kernel,
        stride=stride,
        padding=padding,
        block="paper",
        layers=layers,
        heads=heads,
        head_dim=width // heads,
        mlp_units=(hidden or width, width),
        positional=_positional(arrays.get(_POSITIONS)),
        labels=(),
    )
    spec = replace(spec, image_size=_image_size(arrays.get(_POSITIONS), spec, options, path))
    normalize = options.normalize or _normalization(spec)
    mean, std = NORMALIZATIONS[normalize]
    if mean and spec.channels != len(mean):
        mean = std = ()
        normalize = "none"
    spec = replace(_named(spec), mean=mean, std=std)
    heads_from = "as said" if options.heads else f"{spec.head_dim} channels each"
    kind = "no" if spec.positional == "none" else spec.positional
    return spec, (
        f"{spec.heads} heads ({heads_from}), {kind} positions, "
        f"images of {spec.image_size} pixels, normalization {normalize}"
        f"{' (as said)' if options.normalize else ''}",
    )


def _told_from(arrays: Arrays, path: Path) -> tuple[list[np.ndarray], int, int]:
    """Returns what tells the architecture: convolutions, width of the MLP (or 0), blocks.

    Raises:
        InvalidModel: one of them is missing or of a rank that it cannot have, or a tensor is empty.
    """
    # Counted: an index of a million is a name that is left over, not a million blocks.
    blocks = {match[1] for name in arrays if (match := _BLOCK.match(name))}
    kernels = _kernels(arrays)
    ranks = _FIRST | {_CONVOLUTION.format(index): 4 for index in range(len(kernels))}
    wrong = [name for name, rank in ranks.items() if np.ndim(arrays.get(name, 0)) != rank]
    if wrong or not blocks:
        found = ", ".join(list(arrays)[:3])
        what = f"{wrong[0]} of {ranks[wrong[0]]} dimensions" if wrong else "every block"
        raise InvalidModel(
            f"{path} is no state dict of a CCT: {what} is missing; it begins with {found}"
        )
    empty = [name for name, array in arrays.items() if not array.size]
    if empty:
        raise InvalidModel(f"{path} is no state dict of a CCT: {empty[0]} has no numbers")
    hidden = arrays[_HIDDEN].shape if _HIDDEN in arrays else ()
    return kernels, hidden[0] if hidden else 0, len(blocks)


def _kernels(arrays: Arrays) -> list[np.ndarray]:
    """Returns the weights of the tokenizer's convolutions."""
    found: list[np.ndarray] = []
    while (name := _CONVOLUTION.format(len(found))) in arrays:
        found.append(arrays[name])
    return found


def _positional(table: np.ndarray | None) -> str:
    if table is None:
        return "none"
    fixed = sine_table(*table.shape[-2:]) if table.ndim == 3 else np.inf
    near = table.ndim == 3 and float(np.abs(table[0] - fixed).max()) < _SINE_TOLERANCE
    return "sine" if near else "learnable"


def _side(size: int, spec: ModelSpec) -> int:
    """Returns the tokens along one side of an image of ``size`` pixels."""
    for _ in spec.filters:
        size = (size + 2 * spec.padding - spec.kernel) // spec.stride + 1
        size = (size + 2 - 3) // 2 + 1
    return size


def _image_size(table: np.ndarray | None, spec: ModelSpec, options: ImportSpec, path: Path) -> int:
    """Returns the image size that the tokens are from: the likeliest where several have as many."""
    likely = 32 if _is_of_small_images(spec) else 224
    if table is None:
        return options.image_size or likely
    tokens = table.shape[1] if table.ndim == 3 else 0
    side = math.isqrt(tokens)
    sizes = [size for size in range(8, 32 * side + 64) if _side(size, spec) == side]
    if side * side != tokens or not sizes:
        raise InvalidModel(
            f"{path}: {tokens} positions are those of no square image with "
            f"{len(spec.filters)} convolutions of kernel {spec.kernel}"
        )
    if options.image_size in sizes:
        return options.image_size
    return max(sizes, key=lambda size: (size % 32 == 0, size % 2 == 0, size))


def _is_of_small_images(spec: ModelSpec) -> bool:
    """Tells by the tokenizer: the paper has kernels of 3 for 32 pixels, of 7 for large images."""
    return spec.kernel < 7


def _normalization(spec: ModelSpec) -> str:
    """Returns that of the presets with the nearest tokenizer, whatever size is asked for."""
    if not _is_of_small_images(spec):
        return "imagenet"
    return "cifar100" if spec.classes == 100 else "cifar10"


def _named(spec: ModelSpec) -> ModelSpec:
    """Returns ``spec`` under the name of the preset that it is, or one made like theirs."""
    for preset in PRESETS.values():
        same = replace(preset, name=spec.name, mean=(), std=(), classes=spec.classes)
        if same == spec and preset.classes == spec.classes:
            return replace(spec, name=preset.name)
    convolutions = f"{spec.kernel}x{len(spec.filters)}"
    name = f"cct_{spec.layers}_{convolutions}_{spec.image_size}"
    suffix = {"sine": "_sine", "none": "_nopos", "learnable": ""}[spec.positional]
    return replace(spec, name=name + suffix)


def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Returns the authors' tensors, names and shapes, in the order of ``CCT.weights``."""
    width, hidden, kernel = spec.width, spec.mlp_units[0], spec.kernel
    shapes: dict[str, tuple[int, ...]] = {}
    before = spec.channels
    for index, filters in enumerate(spec.filters):
        shapes[_CONVOLUTION.format(index)] = (filters, before, kernel, kernel)
        before = filters
    if spec.positional != "none":
        shapes[_POSITIONS] = (1, _side(spec.image_size, spec) ** 2, width)

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
    """Returns PyTorch's array as Keras has it: output channels last, no batch of positions."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array[0] if array.ndim == 3 else array.T
