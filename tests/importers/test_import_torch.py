"""Imports compared with the paper's formulas in PyTorch, and pickles of every kind.

PyTorch runs in a separate process, in a virtual environment made where it is not installed.
"""

import json
import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from linked import python_with

import cct_export
from cct_export.evaluation.predict import opened
from cct_export.model.adapting import interpolate_positions
from cct_export.runtimes.session import run

pytestmark = [pytest.mark.torch, pytest.mark.slow]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# PyTorch and the packages that it imports.
PACKAGES = (
    "torch", "filelock", "typing-extensions", "sympy", "mpmath", "networkx", "jinja2",
    "markupsafe", "fsspec", "setuptools",
)  # fmt: skip
MODELS = {
    "cct_2_3x2_32": (32, 10),
    "cct_7_3x1_32_sine": (32, 10, "sine"),
    "cct_7_7x2_224": (224, 102),
}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with PyTorch and everything that is installed here."""
    return python_with(tmp_path_factory.mktemp("torch") / "venv", *PACKAGES, module="torch")


def _run(python, *arguments):
    """Runs a program with PyTorch; returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=MODELS)
def imported(request, python, tmp_path_factory):
    """An imported model: its record, its ``.keras`` file, and PyTorch's own results."""
    folder = tmp_path_factory.mktemp("paper")
    name = request.param
    _run(python, HERE / "paper_in_torch.py", folder, name, *MODELS[name])
    keras_file = folder / f"{name}.keras"
    code = "from cct_export.commands.program import export_main; export_main()"
    arguments = (folder / f"{name}.pth", "-o", keras_file, "--json", "-")
    record = json.loads(_run(python, "-c", code, "import", *arguments))["imported"]
    with np.load(folder / f"{name}.npz") as content:
        return record, keras_file, dict(content)


def test_the_imported_model_gives_pytorchs_logits(imported):
    record, path, theirs = imported
    images, expected = theirs["images"], theirs["logits"]
    model = cct_export.load(path).model
    assert record["name"] == model.name == path.stem
    assert record["parameters"] == model.count_params()
    assert record["tensors"] == len(model.weights)
    assert np.ptp(expected, axis=0).min() > 1e-2, "the logits of the images must differ"
    logits = keras.ops.convert_to_numpy(model(images.astype(np.float32), training=False))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_the_exported_file_gives_pytorchs_logits(imported, tmp_path, format):
    _, path, theirs = imported
    export = getattr(cct_export, f"export_{format}")
    exported = export(path, output=tmp_path / f"m.{format}", parity_samples=8)
    assert exported.parity.passed
    with opened(exported.artifact.path) as session:
        logits = run(session, theirs["images"])
    np.testing.assert_allclose(logits, theirs["logits"], rtol=0, atol=2e-4)


def test_positions_are_interpolated_as_pytorch_does_it(imported):
    _, _, theirs = imported
    sides = [round(len(theirs[name]) ** 0.5) for name in ("positions", "resized")]
    resized = interpolate_positions(theirs["positions"], *((side, side) for side in sides))
    np.testing.assert_allclose(resized, theirs["resized"], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def pickles(python, tmp_path_factory):
    """The outcome of reading every file that ``malformed_pickles.py`` writes."""
    return json.loads(_run(python, HERE / "malformed_pickles.py", tmp_path_factory.mktemp("pth")))


@pytest.mark.parametrize(
    ("kind", "notes"),
    [
        ("plain", []),
        ("before-1.6", []),
        ("wrapped", []),
        ("half", ["2 of 2 tensors converted from float16 to float32"]),
        ("bfloat16", ["2 of 2 tensors converted from bfloat16 to float32"]),
        (
            "averaged",
            ["weights of 'model' (2 tensors), not of 'model_ema' (2 tensors), 'ema' (1 tensors) "
             "beside it"],
        ),
        (
            "nested",
            ["weights of 'model.state_dict' (2 tensors), not of 'model_ema' (2 tensors), "
             "'state_dict_ema' (2 tensors) beside it"],
        ),
    ],
)  # fmt: skip
def test_state_dicts_are_read_without_wrappers_and_prefixes(pickles, kind, notes):
    expected = {"names": ["a.weight", "a.bias"], "same": True, "types": ["float32"]}
    assert pickles[kind] == expected | {"notes": notes}


def test_integers_stay_unchanged_until_they_are_refused(pickles):
    assert pickles["whole"]["types"] == ["float32", "int64"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("payload", "Python objects that are not tensors (posix.system), which are never run"),
        ("payload-zip", "Python objects that are not tensors (posix.system), which are never run"),
        ("module", "not tensors (torch.nn.modules.linear.Linear), which are never run"),
        ("truncated", "it is not a complete PyTorch file"),
        ("truncated-old", "it is not a complete PyTorch file"),
        ("empty", "it is not a complete PyTorch file"),
        ("text", "it is not a complete PyTorch file"),
        ("tar", "before 0.1.10 wrote it, as a tar archive"),
        ("script", "a TorchScript program, not a state dict"),
        ("expanded", "and claims to hold 4,000,000,000,000"),
        ("bomb", "and claims to hold 268,4"),
        ("terabytes", "it is not a complete PyTorch file"),
        ("list", "does not hold a state dict but a list"),
        ("number", "a is not a tensor"),
        ("sparse", "a is not a plain tensor of numbers"),
        ("complex", "a is not a plain tensor of numbers"),
    ],
)
def test_other_files_are_refused_in_one_line(pickles, kind, reason):
    line = pickles[kind]["refused"]
    assert reason in line
    assert "\n" not in line
    assert kind in line


def test_nothing_in_a_pickle_is_executed(pickles):
    assert pickles["executed"] is False
