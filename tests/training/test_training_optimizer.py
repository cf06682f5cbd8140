"""Muon on batches of matrices takes the steps of Keras' Muon, on both backends."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from tiny_run import TINY

from cct_export.errors import InvalidModel
from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training import learner
from cct_export.training.optimizer import Muon, matrix_shape, optimizer
from cct_export.training.run import RunDirectory
from cct_export.training.saving import on_host

STEPS = 4
SETTINGS = {
    "learning_rate": 0.02, "weight_decay": 0.1, "adam_weight_decay": 0.1, "global_clipnorm": 1.0,
    "use_ema": True, "ema_momentum": 0.8, "exclude_layers": ["last"],
}  # fmt: skip
# Two matrices and their transposes, a square, a matrix of its own, and one that AdamW updates.
DENSE = {"a": 12, "b": 6, "c": 12, "d": 6, "square": 6, "lone": 3, "last": 2}


def _dense():
    """A stack of dense layers with seeded weights."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,)),
            *(keras.layers.Dense(units, name=name) for name, units in DENSE.items()),
        ]
    )


def _steps(optimizer, variables, gradients, shapes=None):
    """Returns weights and averages after some steps; gradients are given the shapes."""
    shapes = shapes or [variable.shape for variable in variables]
    for step in gradients:
        arrays = [g.reshape(shape) for g, shape in zip(step, shapes, strict=True)]
        optimizer.apply([keras.ops.convert_to_tensor(array) for array in arrays], variables)
    averages = optimizer._model_variables_moving_average
    return [np.array(v) for v in (*variables, *averages)]


def _gradients(variables):
    random = np.random.default_rng(0)
    return [
        [random.normal(size=v.shape).astype(np.float32) for v in variables] for _ in range(STEPS)
    ]


def compare_with_keras():
    """Asserts that both take the same steps; ours iterates once for each shape of matrices."""
    ours, theirs = _dense(), _dense()
    gradients = _gradients(ours.trainable_variables)
    batches = []

    class Counting(Muon):
        def zeropower_via_newtonschulz5(self, x, steps):
            batches.append(tuple(x.shape))
            return super().zeropower_via_newtonschulz5(x, steps)

    mine = _steps(Counting(**SETTINGS), ours.trainable_variables, gradients)
    stock = _steps(keras.optimizers.Muon(**SETTINGS), theirs.trainable_variables, gradients)
    assert sorted(batches[: len(batches) // STEPS]) == [(1, 3, 6), (1, 6, 6), (4, 6, 12)]
    for one, other in zip(mine, stock, strict=True):
        assert np.abs(one - other).max() < 1e-6
    before = [np.asarray(v) for v in _dense().trainable_variables]
    assert all(np.abs(one - old).max() > 0.01 for one, old in zip(mine, before, strict=False))


def test_batches_take_the_steps_of_keras():
    compare_with_keras()


@pytest.mark.slow
def test_batches_take_the_steps_of_keras_on_jax():
    code = "from test_training_optimizer import *; assert keras.backend.backend() == 'jax'; "
    done = subprocess.run(
        [sys.executable, "-c", code + "compare_with_keras()"],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


def test_filters_are_updated_as_the_matrices_that_multiply_a_patch():
    convolution = keras.layers.Conv2D(5, 3)
    convolution.build((None, 8, 8, 2))
    (filters, _) = convolution.trainable_variables
    gradients = _gradients([filters])
    flat = keras.Variable(np.asarray(filters).reshape(18, 5), name="kernel")
    mine = _steps(Muon(**SETTINGS), [filters], gradients)
    stock = _steps(keras.optimizers.Muon(**SETTINGS), [flat], gradients, [(18, 5)])
    for one, other in zip(mine, stock, strict=True):
        assert np.abs(one.ravel() - other.ravel()).max() < 1e-6


def test_the_kernels_of_attention_are_updated_as_matrices():
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    attention.build((None, 5, 6), (None, 5, 6))
    kernels = [v for v in attention.trainable_variables if v.name == "kernel"]
    matrices = [(6, 8)] * 3 + [(8, 6)]
    assert [matrix_shape(v.path, tuple(v.shape)) for v in kernels] == matrices
    gradients = _gradients(kernels)
    flat = []
    for index, (kernel, shape) in enumerate(zip(kernels, matrices, strict=True)):
        flat.append(keras.Variable(np.asarray(kernel).reshape(shape), name=f"{index}_kernel"))
    mine = _steps(Muon(**SETTINGS), kernels, gradients)
    stock = _steps(keras.optimizers.Muon(**SETTINGS), flat, gradients, matrices)
    for one, other in zip(mine, stock, strict=True):
        assert np.abs(one.ravel() - other.ravel()).max() < 1e-6


def test_all_but_filters_and_the_matrices_of_the_blocks_is_left_to_adamw():
    muon = optimizer(TrainSpec("x", optimizer="muon"), 1)
    variables = CCT(TINY).trainable_variables
    muon.build(variables)
    pairs = zip(variables, muon.adam_velocities, strict=True)
    matrices = [variable.path for variable, velocity in pairs if velocity is None]
    assert [path.partition("/")[2] for path in matrices] == [
        "conv_0/kernel", "conv_1/kernel", "attention/query/kernel", "attention/key/kernel",
        "attention/value/kernel", "attention/attention_output/kernel", "mlp_0/kernel",
        "mlp_1/kernel",
    ]  # fmt: skip


def test_a_state_of_before_attention_had_matrices_is_refused(tmp_path):
    recipe = TrainSpec("x", optimizer="muon")
    older = learner.compiled(CCT(TINY), recipe, 1)
    older.optimizer = keras.optimizers.Muon(exclude_layers=["logits", "pooling"])
    older.optimizer.build(older.trainable_variables)
    run = RunDirectory(tmp_path)
    run.save_state((on_host(older.variables), on_host(older.optimizer.variables)), [])
    with pytest.raises(InvalidModel, match=r"another version's \(optimizer: \d+ variables, not"):
        run.load_state(learner.compiled(CCT(TINY), recipe, 1), run.read_state())
