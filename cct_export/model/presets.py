"""Named architectures, and the weights that ship with the package."""

from importlib import resources
from pathlib import Path

from cct_export.errors import InvalidModel
from cct_export.specs import ModelSpec

PRESETS = {
    spec.name: spec
    for spec in (
        # The keras.io example "Compact Convolutional Transformers": 416,331 parameters.
        ModelSpec(name="cct_keras_io"),
    )
}


def preset(name: str) -> ModelSpec:
    """Returns the architecture called ``name``.

    Raises:
        InvalidModel: no preset has that name; the message lists those there are.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise InvalidModel(
            f"no preset is called {name!r}: there is {', '.join(sorted(PRESETS))}"
        ) from None


def shipped_checkpoint(name: str) -> Path:
    """Returns the ``.keras`` file with trained weights of preset ``name``.

    Raises:
        InvalidModel: the preset is unknown or ships without weights.
    """
    preset(name)
    path = Path(str(resources.files("cct_export") / "model" / "weights" / f"{name}.keras"))
    if not path.is_file():
        raise InvalidModel(f"preset {name} ships no weights: train it with `cct-export train`")
    return path
