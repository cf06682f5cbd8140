"""Seeds: small files of every kind, made by the package itself where it writes such files."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
SMALL = {
    "name": "small", "filters": (4, 8), "layers": 1, "heads": 1, "head_dim": 8, "mlp_units": (8, 8),
}  # fmt: skip
_LONG = """\
recipe = "paper"
epochs = 2
batch = 8
learning_rate = 1e-3
schedule = "cosine"
warmup = 0.1
weight_decay = 0.05
label_smoothing = 0.1
dropout = 0.0
stochastic_depth = 0.1
mixup = 0.8
cutmix = 1.0
rand_augment = 2
magnitude = 9.0
erasing = 0.25
crop = 0.125
seed = 3
decay_all = false
"""


def make(folder: Path) -> Path:
    """Makes the seeds in ``folder`` if they are not there; returns it."""
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sys.path += [str(TESTS / "data"), str(TESTS / "importers")]
        before = Path.cwd()
        os.chdir(folder)
        try:
            for part in (_images, _data, _recipes, _run, _artifacts, _records, _foreign):
                part(folder)
        finally:
            os.chdir(before)
        (folder / "done").touch()
    return folder


def _call(*words: object) -> None:
    """Runs a command; raises ``RuntimeError`` if it fails."""
    from fuzz.worker import invoke

    code, _, err = invoke(tuple(map(str, words)))
    if code:
        raise RuntimeError(f"{words}: {err}")


def _pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def _images(folder: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(_pixels(0, 24, 24, 3))
    picture.save(folder / "0.png")
    picture.save(folder / "0.jpg", quality=60)
    picture.convert("L").save(folder / "grey.png")
    picture.quantize(16).save(folder / "palette.png", transparency=0)
    picture.convert("RGBA").save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", quality=30, exif=exif, progressive=True)


def _data(folder: Path) -> None:
    import shards

    labels = np.arange(24) % 3
    small = {"x_train": _pixels(1, 4, 8, 8, 3), "y_train": labels[:4],
             "x_test": _pixels(2, 2, 8, 8, 3), "y_test": labels[:2]}  # fmt: skip
    np.savez(folder / "small.npz", **small)
    np.savez_compressed(folder / "named.npz", **small, classes=np.array(["a", "b", "c"]))
    arrays = {"x_train": _pixels(1, 24, 32, 32, 3), "y_train": labels,
              "x_test": _pixels(2, 12, 32, 32, 3), "y_test": labels[:12]}  # fmt: skip
    np.savez(folder / "data.npz", **arrays)
    (folder / "broken.npz").write_bytes(b"no archive")
    for split in ("", "train/", "test/"):
        for name in ("cat", "dog"):
            root = folder / ("splits" if split else "classes") / split / name
            root.mkdir(parents=True)
            for number in range(4):
                (root / f"{number}.png").write_bytes(shards.png(40 * number + len(split), 8))
    pictures = [shards.png(9 * number, 8) for number in range(9)]
    named = [
        shards.imagenet(picture, 1 + number % 3, b"abc"[number % 3 :][:1])
        for number, picture in enumerate(pictures)
    ]
    shards.write(folder / "imagenet.tfrecord", named)
    plain = [
        shards.example(image=picture, label=number % 3) for number, picture in enumerate(pictures)
    ]
    shards.write(folder / "datasets.tfrecord", plain)


def _recipes(folder: Path) -> None:
    (folder / "short.toml").write_text('recipe = "short"\nepochs = 2\nbatch = 16\n')
    (folder / "long.toml").write_text(_LONG)


def _run(folder: Path) -> None:
    import cct_export
    from cct_export.specs import ModelSpec, TrainSpec

    recipe = TrainSpec(data="data.npz", epochs=2, batch=8, learning_rate=3e-3)
    cct_export.train(folder / "run", recipe=recipe, model=ModelSpec(**SMALL))
    shutil.copy(folder / "run/best.keras", folder / "m.keras")


def _artifacts(folder: Path) -> None:
    for format in ("tflite", "onnx"):
        _call("export", format, "run", "-o", f"m.{format}", "--samples", 12, "-q")
        _call(
            "export", format, "run", "-o", f"m-int8.{format}", "--quantize", "int8",
            "--samples", 12, "-q",
        )  # fmt: skip
    if importlib.util.find_spec("ncnn"):
        _call("export", "ncnn", "run", "-o", "m.ncnn.param", "-q")
        # Without its contract, and so without checksums: what ncnn itself makes of a change.
        layers = (folder / "m.ncnn.param").read_text().rpartition("# cct_export")[0]
        (folder / "bare.ncnn.param").write_text(layers)
        shutil.copy(folder / "m.ncnn.bin", folder / "bare.ncnn.bin")


def _records(folder: Path) -> None:
    quick = ("--min-runs", 20, "--min-seconds", 0, "--warmup-seconds", 0)
    _call("bench", "compare", "m.tflite", "m.onnx", *quick, "--json", "r.json")
    _call(
        "bench", "tflite", "m.tflite", *quick, "--repeats", 3, "--accuracy", "--data", "data.npz",
        "--profile-ops", "--json", "accuracy.json",
    )  # fmt: skip
    # Thousands of times add nothing: a mutation should meet the other fields.
    for name in ("r.json", "accuracy.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content))


def _foreign(folder: Path) -> None:
    import keras
    import tensorflow as tf
    from published import published_example, randomised
    from state_dicts import state_dict, write_safetensors

    arrays = state_dict()
    write_safetensors(folder / "m.safetensors", arrays)
    (folder / "names.txt").write_text("\n".join("abcdefghij") + "\n")
    randomised(published_example()).save_weights(folder / "example.weights.h5")
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.save(folder / "m.h5")
    with tf.device("cpu"):
        model.export(folder / "saved", verbose=False)
    try:
        import torch
    except ImportError:
        return
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, folder / "m.pth")
