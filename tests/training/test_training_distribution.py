"""Distributed training: what is refused, and what the chief shares with the other workers."""

import pytest

from cct_export.errors import CCTExportError, InvalidModel, InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.training import distribution_jax, distribution_tensorflow
from cct_export.training.distribution import distributed
from cct_export.training.distribution_base import Distribution, check_batch


def test_a_batch_that_does_not_divide_evenly_is_refused():
    check_batch(12, 3)
    with pytest.raises(InvalidRequest, match=r"batch of 10 .* by 4 devices: take 8 or 12"):
        check_batch(10, 4)
    with pytest.raises(InvalidRequest, match=r"batch of 2 .* by 4 devices: take 4"):
        check_batch(2, 4)


def test_compiled_steps_on_replicas_of_tensorflow_are_refused():
    import tensorflow as tf

    distribution = distribution_tensorflow.TensorFlowDistribution(
        tf.distribute.get_strategy(), 0, 1
    )
    distribution.check(TrainSpec("digits"))
    with pytest.raises(InvalidRequest, match="not compiled with XLA"):
        distribution.check(TrainSpec("digits", jit="on"))


def test_an_unknown_mode_and_a_single_device_are_refused(in_process, tmp_path):
    for mode, reason in (
        ("all", "is called 'all': choose from local, workers"),
        ("local", "one device only"),
    ):
        folder = tmp_path / "run"
        ended = in_process("export", "train", "--distribute", mode, "-o", folder)
        assert ended.code == 2
        assert reason in ended.err
        assert not folder.exists()


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
def test_an_invalid_tf_config_is_refused(monkeypatch, config, reason):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InvalidRequest, match=reason) as raised:
        distribution_tensorflow.connect("workers")
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
def test_an_invalid_environment_of_jax_is_refused(monkeypatch, address, workers, worker, reason):
    environment = {"JOB_ADDRESSES": address, "NUM_PROCESSES": workers, "PROCESS_ID": worker}
    for name, value in environment.items():
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
        if value is not None:
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(InvalidRequest, match=reason):
        distribution_jax.connect("workers")


class Worker(Distribution):
    """One of two workers; ``message`` is what the chief broadcasts."""

    workers = 2

    def __init__(self, worker, message=b""):
        self.worker = worker
        self.message = message

    def broadcast(self, content):
        self.message = content if self.is_chief else self.message
        return self.message


def test_the_result_or_error_of_the_chief_reaches_the_other_workers():
    chief = Worker(0)
    assert chief.on_chief(lambda: b"state") == b"state"
    other = Worker(1, chief.message)
    assert other.on_chief(lambda: pytest.fail("only the chief acts")) == b"state"

    def refuse():
        raise InvalidModel("damaged")

    with pytest.raises(InvalidModel, match="damaged"):
        chief.on_chief(refuse)
    with pytest.raises(InvalidModel, match="damaged"):
        Worker(1, chief.message).on_chief(lambda: b"")


def test_workers_with_different_options_are_refused():
    Worker(1, b"a").check_same(b"a")
    with pytest.raises(InvalidRequest, match="worker 1 has other options or data than worker 0"):
        Worker(1, b"a").check_same(b"b")


def test_errors_other_than_a_lost_worker_are_not_changed():
    with pytest.raises(CCTExportError, match="disk full"), distributed(None):
        raise CCTExportError("disk full")
