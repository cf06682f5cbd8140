"""The kinds of files that commands read: seeds, mutators, and the commands that get them."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from fuzz import archives, flatbuffers_, folders, hdf5, images, plain, protobufs, trees
from fuzz.plain import Mutator


@dataclass(frozen=True)
class Form:
    """A file, and a command that gets it.

    Attributes:
        target: the file that is mutated, by its path among the seeds; a folder's name ends in
            ``/``: an entry of it is mutated.
        words: program and arguments.
        beside: other files and folders that the command finds, as they are.
    """

    target: str
    words: tuple[str, ...]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        forms: one is chosen for each input.
        mutators: one is chosen for each mutation.
        limit_s: processor time of a command.
        answers: whether the file is a model, which may give no other logits than its seed.
        available: whether this installation can read such files.
    """

    name: str
    forms: tuple[Form, ...]
    mutators: tuple[Mutator, ...]
    limit_s: float = 20
    answers: bool = False
    available: Callable[[], bool] = lambda: True


# All classes of an image, as JSON.
_TOP = "0.png --top 10 --json -"


def form(target: str, words: str, *beside: str) -> Form:
    """Returns a form; ``{}`` in ``words`` is the target."""
    return Form(target, tuple(words.replace("{}", target.rstrip("/")).split()), beside)


def _artifact(suffix: str) -> tuple[Form, ...]:
    float_, int8 = f"m.{suffix}", f"m-int8.{suffix}"
    return (
        form(float_, "export predict {} " + _TOP, f"{float_}.json", "0.png"),
        form(int8, "export predict {} " + _TOP, f"{int8}.json", "0.png"),
        form(int8, "export predict {} " + _TOP, "0.png"),
        form(float_, "export inspect {} --json -"),
        form(int8, "export inspect {} --tensors --csv t.csv", f"{int8}.json"),
        form(float_, f"export inspect {int8} --against {{}}", int8),
        form(int8, "export bundle {} --target raspberry-pi -o bundle", f"{int8}.json"),
    )


_TABLES = "--html r.html --csv r.csv --markdown r.md"
_RECORDS = (
    form("r.json", f"bench compare {{}} {_TABLES}"),
    form("accuracy.json", f"bench compare {{}} r.json {_TABLES} --json out.json", "r.json"),
    form("r.json", "bench check {} --baseline accuracy.json", "accuracy.json"),
    form("accuracy.json", "bench check r.json --baseline {} --json -", "r.json"),
    form("accuracy.json", "bench check {} --baseline {}"),
)
_SIDECARS = (
    form("m.tflite.json", "export bundle m.tflite --target raspberry-pi -o bundle", "m.tflite"),
    form(
        "m-int8.onnx.json",
        "export predict m-int8.onnx 0.png --top 10 --json -",
        "m-int8.onnx",
        "0.png",
    ),
    form(
        "m-int8.tflite.json",
        "export predict m-int8.tflite 0.png --top 10 --json -",
        "m-int8.tflite",
        "0.png",
    ),
    form("m.onnx.json", "export bundle m.onnx --target raspberry-pi -o bundle", "m.onnx"),
)
_RUNS = (
    form("run/run.json", "export inspect run", "run/best.keras"),
    form("run/run.json", "export train --resume -o run", "run/", "data.npz"),
    form("run/state.npz", "export train --resume -o run", "run/", "data.npz"),
    form("run/metrics.csv", "export train --resume -o run", "run/", "data.npz"),
    form("run/run.json", "export push owner/name --run run --dry-run", "run/"),
)
_IMAGES = ("0.png", "grey.png", "palette.png", "alpha.png", "0.jpg", "turned.jpg")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("record", _RECORDS, (trees.mutate_json,), limit_s=5),
        Kind(
            "recipe",
            tuple(
                form(f"{name}.toml", "export train --recipe {} --data broken.npz -o new",
                     "broken.npz")
                for name in ("short", "long")
            ),
            (trees.mutate_toml,),
            limit_s=5,
        ),
        Kind("run", _RUNS, (trees.mutate_json, archives.mutate, plain.mutate)),
        Kind("sidecar", _SIDECARS, (trees.mutate_json,), answers=True),
        Kind("tflite", _artifact("tflite"), (flatbuffers_.mutate,), answers=True),
        Kind("onnx", _artifact("onnx"), (protobufs.mutate_onnx,), answers=True),
        Kind(
            "ncnn",
            (
                form("m.ncnn.param", "export predict {} " + _TOP, "m.ncnn.bin", "0.png"),
                form("bare.ncnn.param", "export predict {} " + _TOP, "bare.ncnn.bin", "0.png"),
                form(
                    "bare.ncnn.bin", "export predict bare.ncnn.param " + _TOP,
                    "bare.ncnn.param", "0.png",
                ),
            ),
            (plain.mutate,),
            available=lambda: importlib.util.find_spec("ncnn") is not None,
        ),
        Kind(
            "keras",
            (
                form("m.keras", "export inspect {}"),
                form("m.keras", "export predict {} 0.png", "0.png"),
                form("m.keras", "export import {} -o new.keras"),
            ),
            (archives.mutate,),
        ),
        Kind(
            "weights",
            (form("example.weights.h5", "export import {} -o new.keras"),),
            (hdf5.mutate,),
        ),
        Kind(
            "hdf5",
            (form("m.h5", "export inspect {}"), form("m.h5", "export predict {} 0.png", "0.png")),
            (hdf5.mutate,),
        ),
        Kind(
            "safetensors",
            (
                form("m.safetensors", "export import {} -o new.keras"),
                form("names.txt", "export import m.safetensors --labels {} -o new.keras",
                     "m.safetensors"),
            ),
            (trees.mutate_safetensors,),
        ),
        Kind(
            "pickle",
            (form("m.pth", "export import {} -o new.keras"),),
            (archives.mutate, plain.mutate),
            available=lambda: importlib.util.find_spec("torch") is not None,
        ),
        Kind(
            "saved-model",
            (
                form("saved/saved_model.pb", "export import saved -o new.keras", "saved/"),
                form("saved/saved_model.pb", "export inspect saved", "saved/"),
            ),
            (protobufs.mutate_wire,),
        ),
        Kind(
            "npz",
            (form("small.npz", "read data {}"), form("named.npz", "read data {} --skip")),
            (archives.mutate,),
            limit_s=5,
        ),
        Kind(
            "calibration", (form("run/calibration.npz", "read statistics {}"),), (archives.mutate,),
            limit_s=5,
        ),
        Kind(
            "tfrecord",
            tuple(
                form(f"{name}.tfrecord", f"read data {{}}{option}")
                for name in ("imagenet", "datasets") for option in ("", " --skip")
            ),
            (protobufs.mutate_tfrecord,),
            limit_s=5,
        ),
        Kind(
            "image",
            tuple(
                form(name, f"read image {{}}{grey}")
                for name in _IMAGES for grey in ("", " --grey")
            ),
            (images.mutate_png, images.mutate_jpeg),
            limit_s=5,
        ),
        Kind(
            "photo",
            tuple(form(name, "export predict m.tflite {}", "m.tflite") for name in _IMAGES),
            (images.mutate_png, images.mutate_jpeg),
        ),
        Kind(
            "folder",
            tuple(
                form(f"{name}/", f"read data {{}}{option}")
                for name in ("classes", "splits") for option in ("", " --skip")
            ),
            (folders.mutate,),  # type: ignore[arg-type]
            limit_s=5,
        ),
    )
}  # fmt: skip
