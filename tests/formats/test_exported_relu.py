"""Files of models whose MLPs have ReLU: it is part of a dense layer, and there is no GELU."""

from collections import Counter
from dataclasses import replace

import pytest
from emitted import read_tflite

import cct_export
from cct_export.specs import ModelSpec, TrainSpec

# Dense layers with ReLU of the two blocks: all of the example's MLPs, the first of the paper's.
FUSED = {"keras": 4, "paper": 2}


@pytest.fixture(scope="module", params=FUSED)
def run(request, once, small_spec):
    """A run directory of a small model with ReLU, trained on digits."""
    spec: ModelSpec = replace(small_spec, block=request.param, head_dim=16, activation="relu")

    def train(folder):
        recipe = TrainSpec(data="digits", epochs=12, batch=64, learning_rate=3e-3)
        assert cct_export.train(folder / "run", recipe=recipe, model=spec).top1 > 0.7

    return request.param, once(f"relu-{request.param}", train) / "run"


@pytest.mark.parametrize("scheme", ["none", "int8", "int8-full"])
def test_a_tflite_file_has_relu_in_its_dense_layers_and_passes_parity(run, tmp_path, scheme):
    block, folder = run
    path = tmp_path / "m.tflite"
    exported = cct_export.export_tflite(folder, output=path, scheme=scheme, parity_samples=360)
    assert exported.parity.passed, exported.parity.failures
    operators = read_tflite(path).operators
    fused = [
        operator.options.fusedActivationFunction
        for operator in operators
        if operator.kind == "FULLY_CONNECTED"
    ]
    assert Counter(map(bool, fused))[True] == FUSED[block]
    assert not {"GELU", "RELU"} & {operator.kind for operator in operators}


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_an_onnx_file_has_relu_and_no_gelu_and_passes_parity(run, tmp_path, scheme):
    block, folder = run
    path = tmp_path / "m.onnx"
    exported = cct_export.export_onnx(folder, output=path, scheme=scheme, parity_samples=360)
    assert exported.parity.passed, exported.parity.failures
    kinds = [operator.kind for operator in cct_export.inspect(path).operators]
    convolutions = 2
    if scheme == "none":
        assert kinds.count("Relu") == FUSED[block] + convolutions
    assert not {"Gelu", "Erf", "Tanh"} & set(kinds)
