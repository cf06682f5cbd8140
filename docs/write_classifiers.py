"""Writes docs/classifiers.md: which schemes of which classifiers pass parity.

`python docs/write_classifiers.py` takes minutes for each model; with names of models it writes
their rows only. ViTImageClassifier needs `pip install keras-hub`, which the package does not.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

import cct_export
from cct_export.data.sampling import photo_crops
from cct_export.errors import CCTExportError
from cct_export.records import Exported

PAGE = Path(__file__).with_name("classifiers.md")
SHAPE = (96, 96, 3)
CLASSES = 10
SAMPLES = 100
FORMATS = {"tflite": "TFLite", "onnx": "ONNX"}
SCHEMES = ("none", "int8-dynamic", "int8")
INTRODUCTION = f"""# Classifiers

Which schemes of which classifiers pass parity: written by `python docs/write_classifiers.py`, with
keras {keras.__version__}. The models have random weights, seeded, {SHAPE[0]} × {SHAPE[1]} pixels
and {CLASSES} classes. Batch normalization got its statistics, and a layer scale that begins at
almost zero the value 0.1: otherwise activations vanish. A cell has the SQNR of the logits against
Keras on {SAMPLES} photo crops, the size, and how many operators stayed in float because the file
missed the policy of its scheme otherwise.

Random weights are harder to quantize than trained ones: the rounding of float32 that leaves the
vision transformer above 110 dB leaves MobileNetV2 at 94, and integers lose as much more.
"""


def application(name: str) -> Callable[[], keras.Model]:
    """Returns what builds a model of ``keras.applications``, preprocessing inside."""

    def build() -> keras.Model:
        image = keras.Input(SHAPE)
        # The others have their preprocessing inside.
        outside = name in ("MobileNetV2", "ResNet50")
        x = layers.Rescaling(1 / 127.5, -1)(image) if outside else image
        make = getattr(keras.applications, name)
        options = {"weights": None, "classes": CLASSES, "classifier_activation": None}
        return keras.Model(image, make(input_shape=SHAPE, **options)(x), name=name)

    return build


def vision_transformer() -> keras.Model:
    """Returns a small ViT of keras-hub, its preprocessing a layer in front."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=SHAPE, patch_size=(16, 16), num_layers=4, num_heads=4, hidden_dim=128,
        mlp_dim=256,
    )  # fmt: skip
    classifier = keras_hub.models.ViTImageClassifier(backbone, CLASSES, preprocessor=None)
    image = keras.Input(SHAPE)
    scaled = layers.Rescaling(1 / 127.5, -1)(image)
    return keras.Model(image, classifier(scaled), name="ViTImageClassifier")


MODELS = {
    name: application(name)
    for name in ("MobileNetV2", "MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny", "ResNet50")
} | {"ViTImageClassifier": vision_transformer}


def with_statistics(model: keras.Model) -> keras.Model:
    """Gives a model with random weights activations of the size that trained ones have."""
    norms = [
        layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(photo_crops(SHAPE, 64, 7).astype(np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    for weight in model.weights:
        if "layer_scale" in weight.path:
            weight.assign(np.full(weight.shape, 0.1, np.float32))
    return model


def cell(model: keras.Model, format: str, scheme: str, folder: Path) -> str:
    """Returns the outcome of an export in a few words."""
    export = getattr(cct_export, f"export_{format}")
    path = folder / f"{scheme}.{format}"
    try:
        exported: Exported = export(model, output=path, scheme=scheme, parity_samples=SAMPLES)
    except CCTExportError as error:
        return f"refused: {error}"
    if not exported.parity.passed:
        return f"failed: {'; '.join(exported.parity.failures)}"
    how = exported.artifact.contract.quantization
    kept = f", {len(how.kept_float)} in float" if how and how.kept_float else ""
    return f"{exported.parity.sqnr_db:.1f} dB, {exported.artifact.size_bytes / 1e6:.1f} MB{kept}"


def rows(name: str, folder: Path) -> list[str]:
    """Returns the rows of a model: one for each format."""
    keras.utils.set_random_seed(0)
    model = with_statistics(MODELS[name]())
    found = []
    for format, label in FORMATS.items():
        cells = [cell(model, format, scheme, folder) for scheme in SCHEMES]
        found.append(f"| {name} | {model.count_params():,} | {label} | {' | '.join(cells)} |")
        print(found[-1], flush=True)
    return found


def main() -> None:
    """Writes the page, after each model."""
    names = sys.argv[1:] or list(MODELS)
    lines = PAGE.read_text("utf-8").splitlines() if PAGE.exists() else []
    table = {
        name: [line for line in lines if line.startswith(f"| {name} |")]
        for name in MODELS
        if name not in names
    }
    head = [
        f"| model | parameters | format | {' | '.join(SCHEMES)} |",
        "|---|---:|---|---|---|---|",
    ]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            table[name] = rows(name, Path(folder))
        body = [line for name in MODELS for line in table.get(name, [])]
        PAGE.write_text("\n".join([INTRODUCTION, *head, *body]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
