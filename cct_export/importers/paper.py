"""State dicts of the paper's authors' PyTorch code, and of vit-pytorch's ``cct.py``.

Both have the same names, shapes and formulas. What shapes do not tell follows from the paper's
rules: heads are 64 channels wide, a convolution of kernel k has stride max(1, k/2 − 1) and
padding max(1, k/2), both rounded down.
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
    check_same_names,
    of_arrays,
)
from cct_export.model.adapting import NORMALIZATIONS
from cct_export.model.cct import CCT
from cct_export.model.layers import sine_table
from cct_export.model.presets import PRESETS
from cct_export.specs import ImportSpec, ModelSpec

HEAD_DIM = 64
# The authors' table is computed in float32, angles too: sines of 576 are off by some 3e-5.
_SINE_TOLERANCE = 1e-3
_POSITIONS = "classifier.positional_emb"
_FIRST = ("tokenizer.conv_layers.0.0.weight", "classifier.fc.weight")
_BLOCK = re.compile(r"classifier\.blocks\.(\d+)\.")


def load(path: Path, options: ImportSpec) -> Foreign:
    """Returns the CCT whose state dict is in ``path``.

    Args:
        path: a ``.pth``, ``.pt``, ``.bin``, ``.ckpt`` or ``.safetensors`` file.
        options: ``heads`` and ``normalize`` decide what the file does not say; ``image_size`` which
            of the sizes is meant that have as many tokens.

    Raises:
        InvalidModel: another architecture, a tensor missing or left over, a number not finite.
        MissingDependency: PyTorch or safetensors is not installed.
    """
    arrays = state_dict.read(path)
    spec, notes = _spec(arrays, options, path)
    model = CCT(spec)
    names = _names(spec)
    shapes = [_torch_shape(weight.shape) for weight in model.weights]
    wanted = dict(zip(names, shapes, strict=True))
    if _POSITIONS in wanted:
        wanted[_POSITIONS] = (1, *model.get_layer("position_embedding").embeddings.shape)
    check_same_names(arrays, wanted, path)
    check_finite(arrays, path)
    model.set_weights([_keras_array(arrays[name]) for name in names])
    return of_arrays(model, "state dict of the paper's PyTorch code", arrays, notes)


def _spec(arrays: Arrays, options: ImportSpec, path: Path) -> tuple[ModelSpec, tuple[str, ...]]:
    """Returns the architecture that has such tensors, and what was concluded in words."""
    absent = [name for name in _FIRST if name not in arrays or arrays[name].ndim not in (2, 4)]
    indices = [int(match[1]) for name in arrays if (match := _BLOCK.match(name))]
    if absent or not indices:
        found = ", ".join(list(arrays)[:3])
        raise InvalidModel(
            f"{path} is no state dict of a CCT: {absent[0] if absent else 'every block'} is "
            f"missing; it begins with {found}"
        )
    kernels = _kernels(arrays)
    width, kernel = kernels[-1].shape[0], kernels[0].shape[2]
    hidden = arrays.get("classifier.blocks.0.linear1.bias", np.empty(width))
    heads = options.heads or width // HEAD_DIM
    if not heads or width % heads or (not options.heads and width % HEAD_DIM):
        raise InvalidModel(
            f"{path}: heads are usually {HEAD_DIM} channels wide, and {width} channels are no "
            f"multiple of that; say --heads with a divisor of {width}"
            if not options.heads
            else f"{path}: {width} channels cannot be shared by {heads} heads"
        )
    spec = ModelSpec(
        channels=kernels[0].shape[1],
        classes=arrays["classifier.fc.weight"].shape[0],
        filters=tuple(one.shape[0] for one in kernels),
        kernel=kernel,
        stride=max(1, kernel // 2 - 1),
        padding=max(1, kernel // 2),
        block="paper",
        layers=1 + max(indices),
        heads=heads,
        head_dim=width // heads,
        mlp_units=(hidden.shape[0], width),
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
    return spec, (
        f"{spec.heads} heads ({heads_from}), {spec.positional} positions, "
        f"images of {spec.image_size} pixels, normalization {normalize}",
    )


def _kernels(arrays: Arrays) -> list[np.ndarray]:
    """Returns the weights of the tokenizer's convolutions."""
    found: list[np.ndarray] = []
    while (name := f"tokenizer.conv_layers.{len(found)}.0.weight") in arrays:
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
    likely = 32 if spec.kernel < 7 else 224
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


def _normalization(spec: ModelSpec) -> str:
    if spec.image_size > 32:
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


def _names(spec: ModelSpec) -> list[str]:
    """Returns the names of the authors' tensors in the order of ``CCT.weights``."""
    both = ("weight", "bias")
    names = [f"tokenizer.conv_layers.{i}.0.weight" for i in range(len(spec.filters))]
    names += [_POSITIONS] * (spec.positional != "none")
    for index in range(spec.layers):
        block = f"classifier.blocks.{index}"
        names += [f"{block}.pre_norm.{part}" for part in both]
        names += [f"{block}.self_attn.qkv.weight"]
        for layer in ("self_attn.proj", "norm1", "linear1", "linear2"):
            names += [f"{block}.{layer}.{part}" for part in both]
    for layer in ("norm", "attention_pool", "fc"):
        names += [f"classifier.{layer}.{part}" for part in both]
    return names


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns PyTorch's shape of a Keras weight: output channels first."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else tuple(shape[::-1])


def _keras_array(array: np.ndarray) -> np.ndarray:
    """Returns PyTorch's array as Keras has it: output channels last, no batch of positions."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array[0] if array.ndim == 3 else array.T
