"""Named architectures, and the weights that ship with the package."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

from cct_export.errors import InvalidRequest
from cct_export.names import find, suggestion
from cct_export.specs import ModelSpec

# Means and standard deviations of the training images, with which the paper's code normalizes.
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# By number of transformer layers: width, heads, and ratio of the MLP's width to it.
_SIZES = {2: (128, 2, 1), 4: (128, 2, 1), 6: (256, 4, 2), 7: (256, 4, 2), 14: (384, 6, 3)}


def stride_and_padding(kernel: int) -> tuple[int, int]:
    """Returns stride and padding of the paper's convolutions with this kernel size."""
    return max(1, kernel // 2 - 1), max(1, kernel // 2)


def _paper(layers: int, kernel: int, convolutions: int, size: int, classes: int) -> ModelSpec:
    """Returns the paper's CCT-layers/kernel×convolutions, with learnable positions."""
    width, heads, ratio = _SIZES[layers]
    stride, padding = stride_and_padding(kernel)
    mean, std = IMAGENET if size > 32 else CIFAR
    return ModelSpec(
        name=f"cct_{layers}_{kernel}x{convolutions}_{size}",
        image_size=size,
        classes=classes,
        filters=(*(64,) * (convolutions - 1), width),
        kernel=kernel,
        stride=stride,
        padding=padding,
        block="paper",
        layers=layers,
        heads=heads,
        head_dim=width // heads,
        mlp_units=(ratio * width, width),
        mean=mean,
        std=std,
    )


def _variants(spec: ModelSpec) -> list[ModelSpec]:
    """Returns a model of the paper, the same with fixed positions, and both for CIFAR-100."""
    variants = [spec, replace(spec, name=f"{spec.name}_sine", positional="sine")]
    if spec.image_size == 32:
        mean, std = CIFAR100
        variants += [
            replace(variant, name=f"{variant.name}_c100", classes=100, mean=mean, std=std)
            for variant in variants
        ]
    return variants


_SMALL = ((2, 3, 2), (4, 3, 2), (6, 3, 1), (6, 3, 2), (7, 3, 1), (7, 3, 2))
# The authors' CCT-7/7×2 is for Oxford's 102 flowers, the larger ones for ImageNet.
_LARGE = ((7, 7, 2, 224, 102), (14, 7, 2, 224, 1000), (14, 7, 2, 384, 1000))

PRESETS = {
    spec.name: spec
    for spec in (
        # The keras.io example "Compact Convolutional Transformers": 416,331 parameters.
        ModelSpec(name="cct_keras_io"),
        *(spec for sizes in _SMALL for spec in _variants(_paper(*sizes, 32, 10))),
        *(spec for sizes in _LARGE for spec in _variants(_paper(*sizes))),
    )
}
# Weights with a name of their own: those of ``cct_keras_io`` by the example's own recipe.
EXAMPLE_WEIGHTS = "cct_keras_io_example"
# What may have weights in the package; each is a MODEL.
MODELS = (*PRESETS, EXAMPLE_WEIGHTS)


def preset(name: str) -> ModelSpec:
    """Returns the architecture called ``name``.

    Raises:
        InvalidRequest: no preset has that name; the message suggests one and lists them.
    """
    found = find(name, PRESETS)
    if found is None:
        listed = [known for known in PRESETS if not known.endswith(("_sine", "_c100"))]
        raise InvalidRequest(
            f"no preset is called {name!r}: {suggestion(name, PRESETS, listed)}; those of the "
            "paper also with the suffix _sine, _c100 (for 32 pixels) or both"
        )
    return PRESETS[found]


def shipped_checkpoint(name: str) -> Path:
    """Returns the ``.keras`` file with trained weights of one of ``MODELS``.

    Raises:
        InvalidRequest: the name is unknown, or a preset that ships without weights.
    """
    name = find(name, MODELS) or preset(name).name
    if not ships(name):
        raise InvalidRequest(
            f"preset {name} ships no weights: train it with `cct-export train --model {name}`"
        )
    return _weights(name)


def ships(name: str) -> bool:
    """Tells whether trained weights called ``name`` are in the package."""
    return _weights(name).is_file()


def _weights(name: str) -> Path:
    return Path(str(resources.files("cct_export") / "model" / "weights" / f"{name}.keras"))
