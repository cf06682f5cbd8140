"""Several devices or workers learn what one does, and lose no run when one of them is lost."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from cct_export.data.dataset import ArraySplit
from cct_export.errors import CCTExportError, InvalidModel, InvalidRequest
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training import distribution, distribution_jax, distribution_tensorflow
from cct_export.training.batches import Batches, SharedBatches

EPOCHS = 3
# The last batch of an epoch is odd, and so is the one of the validation.
IMAGES, BATCH = 106, 12
# Clipping and averaging are of the whole batch.
RECIPE = (
    "--batch", BATCH, "--seed", 4, "--clip-norm", 0.2, "--ema", 0.9, "--weight-decay", 0.05,
    "--learning-rate", 3e-3, "--schedule", "constant", "--warmup", 0,
)  # fmt: skip
CHANCE = ("--flip", "--crop", 0.2, "--mixup", 0.3, "--dropout", 0.1, "--stochastic-depth", 0.1)
NO_CHANCE = ("--no-flip", "--crop", 0, "--dropout", 0, "--stochastic-depth", 0)
# 96 images to learn from, in eight equal batches.
EVEN = ("--validation", 10 / IMAGES)
TWO_DEVICES_OF_JAX = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
RUN = "from cct_export.commands.program import export_main; export_main()"
TWO_DEVICES = """
import tensorflow
cpu, = tensorflow.config.list_physical_devices("CPU")
two = [tensorflow.config.LogicalDeviceConfiguration()] * 2
tensorflow.config.set_logical_device_configuration(cpu, two)
"""
# Parts are taken from two to three batches ahead: step 13 of 24 is in the second epoch.
KILLED_IN_STEP_13 = """
import os, signal
from cct_export.model.backend import start
start()
from cct_export.training.batches import SharedBatches
part, taken = SharedBatches.part, []
def counted(self, step, which):
    if self.seed is not None:
        taken.append(step)
        if len(taken) == 15:
            os.kill(os.getpid(), signal.SIGKILL)
    return part(self, step, which)
SharedBatches.part = counted
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small model and grey images whose class is their brightness."""
    path = tmp_path_factory.mktemp("distribution")
    labels = np.arange(IMAGES) % 3
    noise = np.random.default_rng(0).integers(0, 80, (IMAGES, 8, 8, 1))
    pixels = (noise + labels[:, None, None, None] * 80).astype(np.uint8)
    np.savez(
        path / "grey.npz", x_train=pixels, y_train=labels, x_test=pixels[:30], y_test=labels[:30]
    )
    keras.utils.set_random_seed(1)
    tiny = ModelSpec(
        name="tiny", image_size=8, channels=1, filters=(4, 8), layers=1, heads=1, head_dim=4,
        mlp_units=(8, 8), classes=3,
    )  # fmt: skip
    checkpoint.save(CCT(tiny), path / "tiny.keras")
    return path


def _start(folder, output, *more, backend="tensorflow", code="", **environment):
    arguments = ("train", "--from", "tiny.keras", "--data", "grey.npz", *RECIPE, "-o", output)
    more = ("--epochs", EPOCHS, *NO_CHANCE, *more)
    return subprocess.Popen(
        [sys.executable, "-c", code + RUN, *map(str, (*arguments, *more))],
        cwd=folder,
        env=os.environ | environment | {"KERAS_BACKEND": backend},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(process):
    """Returns exit code and standard error."""
    _, said = process.communicate(timeout=500)
    return process.returncode, said


def _course(run):
    """Returns epochs by metrics."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _assert_same_course(run, reference):
    mine, theirs = _course(run), _course(reference)
    assert len(mine) == len(theirs) == EPOCHS
    for one, other in zip(mine, theirs, strict=True):
        for key, value in other.items():
            assert one[key] == pytest.approx(value, abs=1e-4), (one["epoch"], key)


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def alone(request, folder):
    """A run of one process on one device; also the backend."""
    run = folder / f"alone-{request.param}"
    code, said = _end(_start(folder, run, backend=request.param))
    assert code == 0, said
    losses = [epoch["loss"] for epoch in _course(run)]
    assert losses[-1] < losses[0] - 0.01, "nothing was learned that could be compared"
    return request.param, run


def _ports():
    """Returns two free ports."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in (one, other)]


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


def _two_workers(folder, backend, run, *more, codes=("", "")):
    """Returns two processes; the second is told of another folder, which it leaves alone."""
    ports = _ports()
    return [
        _start(
            folder, output, "--distribute", "workers", *more,
            backend=backend, code=codes[worker], **_environment(backend, ports, worker),
        )
        for worker, output in enumerate((run, folder / "elsewhere"))
    ]  # fmt: skip


@pytest.mark.slow
def test_two_devices_learn_what_one_does(folder, alone):
    backend, reference = alone
    run = folder / f"local-{backend}"
    flags = TWO_DEVICES_OF_JAX if backend == "jax" else {}
    two = TWO_DEVICES if backend == "tensorflow" else ""
    process = _start(folder, run, "--distribute", "local", code=two, backend=backend, **flags)
    code, said = _end(process)
    assert code == 0, said
    _assert_same_course(run, reference)


@pytest.mark.slow
def test_what_replicas_draw_apart_is_drawn_again_after_a_resume(folder):
    for run, *more in (
        ("whole", "--epochs", 2), ("parts", "--epochs", 1), ("parts", "--epochs", 2, "--resume")
    ):  # fmt: skip
        code, said = _end(
            _start(folder, folder / run, *CHANCE, *more, "--distribute", "local", code=TWO_DEVICES)
        )
        assert code == 0, said
    assert _course(folder / "parts") == _course(folder / "whole")


@pytest.mark.slow
def test_on_jax_two_devices_draw_what_one_does(folder):
    for run, *more, flags in (
        ("drawn", {}), ("drawn-by-two", "--distribute", "local", TWO_DEVICES_OF_JAX)
    ):  # fmt: skip
        code, said = _end(
            _start(folder, folder / run, *CHANCE, *EVEN, *more, backend="jax", **flags)
        )
        assert code == 0, said
    _assert_same_course(folder / "drawn-by-two", folder / "drawn")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0], ids=["second", "chief"])
def test_two_workers_learn_what_one_does_though_one_is_killed(folder, alone, lost):
    backend, reference = alone
    run = folder / f"workers-{backend}-{lost}"
    codes = ["", ""]
    codes[lost] = KILLED_IN_STEP_13
    both = _two_workers(folder, backend, run, codes=codes)
    ended = [_end(one) for one in both]
    assert ended[lost][0] == -signal.SIGKILL, ended[lost][1]
    code, said = ended[1 - lost]
    assert code == 1
    (told,) = [line for line in said.splitlines() if line.startswith("error")]
    assert told == (
        f"error: a worker was lost while worker {1 - lost} waited for it: "
        "start all 2 again with --resume"
    )
    assert "Traceback" not in said
    assert len(_course(run)) == 1

    for code, said in map(_end, _two_workers(folder, backend, run, "--resume")):
        assert code == 0, said
    _assert_same_course(run, reference)
    assert not (folder / "elsewhere").exists(), "only the chief writes"


@pytest.mark.parametrize(("images", "parts"), [(24, 2), (23, 2), (25, 4), (12, 3)])
def test_the_parts_of_a_batch_are_the_batch(images, parts):
    pixels = np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    arguments = (ArraySplit(pixels, np.arange(images) % 5), np.arange(images), 5, 12, 7)
    whole = Batches(*arguments)
    shared = [SharedBatches(parts, range(part, part + 1), *arguments) for part in range(parts)]
    for step in range(len(whole)):
        (batch,) = whole[step]
        taken = [one[step][0] for one in shared]
        assert len({len(part["image"]) for part in taken}) == 1
        joined = {key: np.concatenate([part[key] for part in taken]) for key in taken[0]}
        counts = joined["weight"] > 0
        assert np.array_equal(joined["image"][counts], batch["image"])
        assert np.array_equal(joined["target"][counts], batch["target"])
        assert joined["weight"].sum() == pytest.approx(len(counts))
        assert np.isin(joined["image"], batch["image"]).all()


def test_endless_parts_have_the_order_in_which_fit_takes_batches():
    pixels = np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1)
    arguments = (ArraySplit(pixels, np.arange(10) % 2), np.arange(10), 2, 4, 7)
    taken = SharedBatches(1, range(1), *arguments).endless()
    parts = [next(taken)["image"] for _ in range(6)]
    batches = Batches(*arguments)
    for epoch in range(2):
        batches.on_epoch_end()
        for step in range(3):
            (batch,) = batches[step]
            assert np.array_equal(parts[3 * epoch + step], batch["image"])


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    distribution.check_batch(12, 3)
    with pytest.raises(InvalidRequest, match=r"batch of 10 .* by 4 devices: take 8 or 12"):
        distribution.check_batch(10, 4)
    with pytest.raises(InvalidRequest, match=r"batch of 2 .* by 4 devices: take 4"):
        distribution.check_batch(2, 4)


def test_what_replicas_of_tensorflow_cannot_compile_is_refused():
    import tensorflow as tf

    one = distribution_tensorflow.Strategy(tf.distribute.get_strategy(), 0, 1)
    one.check(TrainSpec("digits"))
    with pytest.raises(InvalidRequest, match="not compiled with XLA"):
        one.check(TrainSpec("digits", jit="on"))


def test_an_unknown_word_and_a_single_device_are_refused(in_process, folder):
    for word, reason in (("all", "local or workers, not 'all'"), ("local", "one device only")):
        ended = in_process(
            "export", "train", "--data", folder / "grey.npz", "--from", folder / "tiny.keras",
            "-o", folder / "refused", "--distribute", word,
        )  # fmt: skip
        assert ended.code == 2
        assert reason in ended.err
        assert not (folder / "refused").exists()


CLUSTER = '"cluster": {"worker": ["a:1", "b:1"]}'


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "workers need TF_CONFIG"),
        ("{", "TF_CONFIG is no JSON"),
        ("[]", "is to name workers and a task"),
        ('{"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}', "is to name"),
        (f'{{{CLUSTER}, "task": {{"type": "worker", "index": 2}}}}', "task 'worker' 2: .* 0 to 1"),
        (f'{{{CLUSTER}, "task": {{"type": "ps", "index": 0}}}}', "task 'ps' 0"),
    ],
)
def test_a_wrong_tf_config_is_refused(monkeypatch, config, reason):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InvalidRequest, match=reason) as raised:
        distribution_tensorflow.together("workers")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "workers", "worker", "reason"),
    [
        (None, "2", "0", "workers need KERAS_DISTRIBUTION_JOB_ADDRESSES"),
        ("localhost", "2", "0", "is HOST:PORT of worker 0, not 'localhost'"),
        ("localhost:1", "2", "2", "not '2' of '2'"),
        ("localhost:1", "two", "0", "not '0' of 'two'"),
    ],
)
def test_a_wrong_environment_of_jax_is_refused(monkeypatch, address, workers, worker, reason):
    said = {"JOB_ADDRESSES": address, "NUM_PROCESSES": workers, "PROCESS_ID": worker}
    for name, value in said.items():
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
        if value is not None:
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(InvalidRequest, match=reason):
        distribution_jax.together("workers")


class Told(distribution.Alone):
    """A worker to whom the chief told something."""

    workers = 2

    def __init__(self, worker, told=b""):
        self.worker = worker
        self.told = told

    def share(self, content):
        self.told = content if self.chief else self.told
        return self.told


def test_what_the_chief_does_or_raises_reaches_the_other_workers():
    chief = Told(0)
    assert chief.once(lambda: b"state") == b"state"
    assert Told(1, chief.told).once(lambda: pytest.fail("only the chief acts")) == b"state"

    def refuse():
        raise InvalidModel("damaged")

    with pytest.raises(InvalidModel, match="damaged"):
        chief.once(refuse)
    with pytest.raises(InvalidModel, match="damaged"):
        Told(1, chief.told).once(lambda: b"")


def test_workers_that_were_asked_for_different_things_do_not_begin():
    Told(1, b"a").check_same(b"a")
    with pytest.raises(InvalidRequest, match="worker 1 has other options or data than worker 0"):
        Told(1, b"a").check_same(b"b")


def test_other_errors_than_a_lost_worker_stay_what_they_are():
    with pytest.raises(CCTExportError, match="disk full"), distribution.begun(None):
        raise CCTExportError("disk full")
