"""Several devices or workers train to the same result as one, and survive the loss of a worker."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import keras
import pytest
from tiny_run import TINY, gray_images

from cct_export.model import checkpoint
from cct_export.model.cct import CCT

pytestmark = pytest.mark.slow

EPOCHS = 3
# The last batch of an epoch is odd, and so is the one of the validation.
IMAGES, BATCH = 106, 12
# Gradient clipping and EMA are of the global batch.
RECIPE = (
    "--batch", BATCH, "--seed", 4, "--clip-norm", 0.2, "--ema", 0.9, "--weight-decay", 0.05,
    "--learning-rate", 3e-3, "--schedule", "constant", "--warmup", 0,
)  # fmt: skip
RANDOM = ("--flip", "--crop", 0.2, "--mixup", 0.3, "--dropout", 0.1, "--stochastic-depth", 0.1)
DETERMINISTIC = ("--no-flip", "--crop", 0, "--dropout", 0, "--stochastic-depth", 0)
# 96 images to train on, in eight equal batches.
EVEN = ("--validation", 10 / IMAGES)
TWO_DEVICES_OF_JAX = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
RUN = "from cct_export.commands.program import export_main; export_main()"
TWO_DEVICES = """
import tensorflow
cpu, = tensorflow.config.list_physical_devices("CPU")
two = [tensorflow.config.LogicalDeviceConfiguration()] * 2
tensorflow.config.set_logical_device_configuration(cpu, two)
"""
# Shards are prefetched two to three batches ahead: step 13 of 24 is in the second epoch.
KILLED_IN_STEP_13 = """
import os, signal
from cct_export.model import start
start()
from cct_export.training.batches import ShardedBatches
shard, steps = ShardedBatches.shard, []
def counting(self, step, index):
    if self.seed is not None:
        steps.append(step)
        if len(steps) == 15:
            os.kill(os.getpid(), signal.SIGKILL)
    return shard(self, step, index)
ShardedBatches.shard = counting
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny checkpoint and gray images."""
    path = tmp_path_factory.mktemp("distribution")
    gray_images(path / "gray.npz", IMAGES)
    for seed, name in ((1, "tiny.keras"), (2, "teacher.keras")):
        keras.utils.set_random_seed(seed)
        checkpoint.save(CCT(replace(TINY, classes=3)), path / name)
    return path


def _start(folder, output, *options, backend="tensorflow", code="", **environment):
    arguments = ("train", "--from", "tiny.keras", "--data", "gray.npz", *RECIPE, "-o", output)
    options = ("--epochs", EPOCHS, *DETERMINISTIC, *options)
    return subprocess.Popen(
        [sys.executable, "-c", code + RUN, *map(str, (*arguments, *options))],
        cwd=folder,
        env=os.environ | environment | {"KERAS_BACKEND": backend},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait(process):
    """Returns exit code and standard error."""
    _, errors = process.communicate(timeout=500)
    return process.returncode, errors


def _succeed(process):
    code, errors = _wait(process)
    assert code == 0, errors


def _metrics(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _assert_same_metrics(run, reference):
    metrics, expected = _metrics(run), _metrics(reference)
    assert len(metrics) == len(expected) == EPOCHS
    for epoch, reference_epoch in zip(metrics, expected, strict=True):
        assert epoch == pytest.approx(reference_epoch, abs=1e-4)


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def single(request, folder):
    """A run of one process on one device; also the backend."""
    run = folder / f"single-{request.param}"
    _succeed(_start(folder, run, backend=request.param))
    losses = [epoch["loss"] for epoch in _metrics(run)]
    assert losses[-1] < losses[0] - 0.01, "the loss must fall for a comparison"
    return request.param, run


def _free_ports():
    """Returns two free ports."""
    with socket.socket() as first, socket.socket() as second:
        for port in (first, second):
            port.bind(("localhost", 0))
        return [port.getsockname()[1] for port in (first, second)]


def _environment(backend, ports, worker):
    if backend == "jax":
        return {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"localhost:{ports[0]}",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": str(worker),
        }
    workers = [f"localhost:{port}" for port in ports]
    task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": worker}}
    return {"TF_CONFIG": json.dumps(task)}


def _two_workers(folder, backend, run, *options, codes=("", "")):
    """Returns two processes; the second gets another run directory, which it must not write."""
    ports = _free_ports()
    return [
        _start(
            folder, output, "--distribute", "workers", *options,
            backend=backend, code=codes[worker], **_environment(backend, ports, worker),
        )
        for worker, output in enumerate((run, folder / "elsewhere"))
    ]  # fmt: skip


def test_two_devices_train_to_the_same_result_as_one(folder, single):
    backend, reference = single
    run = folder / f"local-{backend}"
    flags = TWO_DEVICES_OF_JAX if backend == "jax" else {}
    code = TWO_DEVICES if backend == "tensorflow" else ""
    _succeed(_start(folder, run, "--distribute", "local", code=code, backend=backend, **flags))
    _assert_same_metrics(run, reference)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_learn_from_a_teacher_as_one_does(folder, backend):
    flags = TWO_DEVICES_OF_JAX if backend == "jax" else {}
    code = TWO_DEVICES if backend == "tensorflow" else ""
    # Neither clipping nor AdamW hides a gradient of another size.
    sgd = ("--optimizer", "sgd", "--clip-norm", 0, "--learning-rate", 0.05)
    teacher = ("--teacher", "teacher.keras", "--embedding-weight", 0.5, *sgd)
    one, two = (folder / f"{name}-taught-{backend}" for name in ("one", "two"))
    _succeed(_start(folder, one, *teacher, backend=backend))
    options = (*teacher, "--distribute", "local")
    _succeed(_start(folder, two, *options, code=code, backend=backend, **flags))
    _assert_same_metrics(two, one)


def test_random_numbers_of_replicas_are_the_same_after_a_resume(folder):
    for run, *more in (
        ("whole", "--epochs", 2), ("parts", "--epochs", 1), ("parts", "--epochs", 2, "--resume")
    ):  # fmt: skip
        options = (*RANDOM, *more, "--distribute", "local")
        _succeed(_start(folder, folder / run, *options, code=TWO_DEVICES))
    assert _metrics(folder / "parts") == _metrics(folder / "whole")


def test_on_jax_two_devices_draw_the_same_random_numbers_as_one(folder):
    for run, *more, flags in (
        ("drawn", {}), ("drawn-by-two", "--distribute", "local", TWO_DEVICES_OF_JAX)
    ):  # fmt: skip
        options = (*RANDOM, *EVEN, *more)
        _succeed(_start(folder, folder / run, *options, backend="jax", **flags))
    _assert_same_metrics(folder / "drawn-by-two", folder / "drawn")


@pytest.mark.parametrize("lost", [1, 0], ids=["second", "chief"])
def test_two_workers_train_to_the_same_result_after_one_is_killed(folder, single, lost):
    backend, reference = single
    run = folder / f"workers-{backend}-{lost}"
    codes = ["", ""]
    codes[lost] = KILLED_IN_STEP_13
    results = [_wait(process) for process in _two_workers(folder, backend, run, codes=codes)]
    assert results[lost][0] == -signal.SIGKILL, results[lost][1]
    code, errors = results[1 - lost]
    assert code == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("error")]
    assert line == (
        f"error: a worker was lost while worker {1 - lost} waited for it: "
        "start all 2 again with --resume"
    )
    assert "Traceback" not in errors
    assert len(_metrics(run)) == 1

    for process in _two_workers(folder, backend, run, "--resume"):
        _succeed(process)
    _assert_same_metrics(run, reference)
    assert not (folder / "elsewhere").exists(), "only the chief writes"
