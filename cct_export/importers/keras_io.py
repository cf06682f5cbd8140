"""Files written by the keras.io example's code, as it is or changed, without that code.

A ``.keras`` file refers to the example's classes, without which Keras cannot load it. They are not
run: layers of this package take their place. A ``.weights.h5``, what the example's ModelCheckpoint
writes, has no configuration: kinds and shapes of its layers give the architecture.

What neither tells is assumed to be as in the example, and said; what would be a guess is refused.
"""

import copy
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import keras

from cct_export.errors import InvalidModel
from cct_export.files import check_file
from cct_export.importers.equivalence import equivalent_cct
from cct_export.importers.example_config import objects, own_layers, translated
from cct_export.importers.example_file import Content, read_content
from cct_export.importers.example_layers import CLASSES
from cct_export.importers.example_weights import model_of
from cct_export.importers.imported_model import ImportedModel, check_finite, check_options
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import (
    check_activations,
    check_architecture_size,
    check_archive_size,
    loading,
    read_config,
    read_weights,
)
from cct_export.specs import ImportSpec, JSONObject
from cct_export.untrusted import refusing

_HEADS_REASON = "the heads follow from the shapes of its weights"
_NAME = "cct_keras_io_import"
# How notes begin that may not be true of a file.
ASSUMED = "assumed: "
# What follows them.
IF_WRONG = (
    "if an assumption is wrong, export the whole model, saved as .keras, with its code: "
    "--import FILE.py"
)


def is_example(path: Path) -> bool:
    """Tells whether ``path`` is a ``.keras`` file with the example's own classes."""
    try:
        check_archive_size(path)
        return bool(own_layers(read_config(path)))
    except InvalidModel:
        return False  # whoever loads it says why


def load_archive(path: Path, options: ImportSpec) -> ImportedModel:
    """Returns the model in a ``.keras`` file for which ``is_example`` is true.

    Args:
        path: the file.
        options: ``gelu`` sets what the file does not contain.

    Returns:
        A CCT of this package where one computes the same, else a model of Keras' layers and the
        example's.

    Raises:
        InvalidModel: damaged, or its classes cannot be those of the example.
        InvalidRequest: an option without effect.
    """
    check_options(path, options, heads=_HEADS_REASON)
    check_archive_size(path)
    content = read_content(read_weights(path), path)
    with refusing(
        InvalidModel,
        f"{path} cannot be read without its code",
        otherwise="its configuration is not what Keras writes",
    ):
        config = read_config(path)
        names = {layer["class_name"] for layer in own_layers(config)}
        has_gelu = any(each.get("activation") == "gelu" for each in objects(config))
        gelu = options.gelu or "tanh"
        config, assumed = translated(config, content, gelu)
    own = ", ".join(name for name in CLASSES if name in names)
    notes = [f"{ASSUMED}its own classes ({own}), which were not run, are the example's"]
    notes += assumed
    if has_gelu:
        notes.append(_gelu_note(options))
    else:
        check_options(path, options, gelu="its configuration has no GELU")
    model = _built(config, content, path)
    return _imported(model, ".keras file of the keras.io example", content, notes)


def load_weights(path: Path, options: ImportSpec, *, scaled: bool = False) -> ImportedModel:
    """Returns the example's model, or a changed one, with the weights in ``path``.

    Args:
        path: a ``.weights.h5``.
        options: ``gelu`` sets what the file does not contain, ``image_size`` what it may not.
        scaled: whether the model gets pixels that are scaled already, so that no scaling of the
            example's is assumed.

    Returns:
        See ``load_archive``.

    Raises:
        InvalidModel: not HDF5, variables of another architecture or not finite.
        InvalidRequest: there is no such file, or an option has no effect.
    """
    check_file(path, "model file")
    check_options(path, options, heads=_HEADS_REASON)
    content = read_content(path, path)
    check_finite(content.arrays, path)
    with refusing(
        InvalidModel,
        f"{path} does not hold the keras.io example's weights, the only ones that are read "
        "without their model; save the whole model as .keras",
        otherwise="their shapes do not belong together",
    ):
        model, assumed = model_of(content, options, scaled=scaled)
    check_activations(model, path)
    notes = (*assumed, _gelu_note(options))
    return _imported(model, "weights of the keras.io example", content, notes)


def _gelu_note(options: ImportSpec) -> str:
    if options.gelu:
        return f"{options.gelu} GELU, as requested: such files do not contain it"
    return "assumed: tanh GELU, as in the example; cct-export import --gelu exact sets the other"


def _built(config: JSONObject, content: Content, path: Path) -> keras.Model:
    """Returns the model of a configuration, with its weights."""
    with loading(path):
        check_architecture_size(copy.deepcopy(config), path)  # Keras takes it apart
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    check_activations(model, path)
    with tempfile.TemporaryDirectory() as folder, loading(path):
        file = Path(folder) / "model.weights.h5"
        model.save_weights(file)
        _check_same(content, read_content(file, file), path)
        check_finite(content.arrays, path)
        file.write_bytes(read_weights(path).read())
        model.load_weights(file)
    return model


def _check_same(content: Content, expected: Content, path: Path) -> None:
    """Raises ``InvalidModel`` unless a file holds the arrays of a model, and no others."""
    given = content.arrays
    differences = {
        "missing": [name for name in expected.arrays if name not in given],
        "left over": [name for name in given if name not in expected.arrays],
        "of another shape": [
            f"{name} {given[name].shape} instead of {array.shape}"
            for name, array in expected.arrays.items()
            if name in given and given[name].shape != array.shape
        ],
    }
    parts = [f"{kind}: {', '.join(names[:3])}" for kind, names in differences.items() if names]
    if parts:
        raise InvalidModel(f"{path} does not hold the example's weights: {'; '.join(parts)}")


def _imported(
    model: keras.Model, kind: str, content: Content, notes: Iterable[str]
) -> ImportedModel:
    """Returns the record of a model, a CCT of this package in its place if there is one."""
    notes = tuple(notes)
    if any(note.startswith(ASSUMED) for note in notes):
        notes += (IF_WRONG,)
    cct = equivalent_cct(model)
    if cct is None:
        what = "not an architecture of this package's CCT: it stays a model of Keras' layers"
        notes = (*notes, what)
    else:
        model = CCT(replace(cct.spec, name=_NAME))
        model.set_weights(cct.get_weights())
    return ImportedModel.from_arrays(model, kind, content.arrays, notes)
