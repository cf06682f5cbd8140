"""The worker on a real file, and its timing with a clock that the test moves."""

import subprocess
import sys

import numpy as np
import pytest

from cct_export.bench.doctor import PROBES
from cct_export.bench.hosts.ssh_setup import REQUIREMENTS
from cct_export.bench.protocol import (
    Burst,
    Opened,
    PeakMemory,
    Processing,
    Scored,
    start_worker,
)
from cct_export.bench.worker import Worker, time_burst, warm_up, yardstick_ms
from cct_export.errors import InvalidRequest
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import OperatorProfile
from cct_export.specs import BenchSpec

MS = 1_000_000
PROBE = str(PROBES["litert"])


@pytest.fixture(scope="module")
def opened():
    """A worker that has opened a small file, and its answer to that."""
    with start_worker(PROBE) as channel:
        yield channel, channel.ask("open", Opened, path=PROBE, spec=BenchSpec("litert"))


def test_opening_tells_which_engine_and_delegate_run_the_file(opened):
    _, answer = opened
    runtime = answer.runtime
    assert (runtime.name, runtime.delegate, runtime.accelerator) == ("litert", "xnnpack", "cpu")
    assert 0 < runtime.delegated_nodes <= runtime.total_nodes
    assert answer.load_ms > 0
    assert answer.contract.scheme == "none"
    assert answer.image_shape == (8, 8, 3)


def test_golden_images_are_compared_on_the_same_engine(opened):
    channel, _ = opened
    answer = channel.ask("golden", GoldenCheck)
    assert answer.parity.passed
    assert answer.changed is False


def test_pre_and_postprocessing_are_timed_separately(opened):
    channel, _ = opened
    answer = channel.ask("processing", Processing)
    assert answer.preprocess_ms > 0
    assert answer.postprocess_ms > 0


def test_a_burst_has_the_requested_number_of_runs(opened):
    channel, _ = opened
    times_ns = channel.ask("burst", Burst, runs=7, seconds=0.0).times_ns
    assert len(times_ns) == 7
    assert all(isinstance(time, int) and time > 0 for time in times_ns)


def test_every_operator_of_the_file_is_timed(opened):
    channel, answer = opened
    profile = channel.ask("operators", OperatorProfile, runs=2)
    # XNNPACK fuses and adds operators; prefixes have those of the file.
    assert not profile.derived or len(profile.operators) == answer.runtime.total_nodes
    assert {operator.where for operator in profile.operators} == {"xnnpack"}
    assert len({operator.name for operator in profile.operators}) == len(profile.operators) > 20


def test_peak_memory_is_that_of_the_worker(opened):
    channel, _ = opened
    assert 10_000_000 < channel.ask("memory", PeakMemory).peak_rss_bytes < 1_000_000_000


def test_a_batch_that_the_file_does_not_take_is_refused(opened):
    channel, _ = opened
    with pytest.raises(InvalidRequest, match="takes 1 image at a time, not 2"):
        channel.ask("open", Opened, path=PROBE, spec=BenchSpec("litert", batch=2))


def test_keras_tells_no_times_of_operators():
    worker = Worker(print)
    worker._spec = BenchSpec("keras")
    with pytest.raises(InvalidRequest, match="tells no times of its operators"):
        worker.operators(5)


# Imports only the standard library, this package, and what is installed on a device behind ssh.
ON_A_DEVICE = """
import sys
sys.path.append(sys.argv[1])
allowed = {*sys.argv[2].split(","), "cct_export"}
class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from cct_export import workers
workers.main('cct_export.bench.worker:Worker')
"""


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_on_a_device_the_worker_needs_its_requirements_and_an_engine_only(tmp_path, engine):
    from cct_export.workers import Channel, package_root

    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    labels = np.arange(20) % 2
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = dict(zip(names, (images, labels, images, labels), strict=True))
    np.savez(tmp_path / "test.npz", classes=np.array(["no", "yes"]), **arrays)
    # The engine's own requirements come with it.
    engines = {"litert": ("ai_edge_litert", "flatbuffers"), "onnxruntime": ("onnxruntime",)}
    allowed = ",".join((*REQUIREMENTS, *engines[engine]))
    command = [sys.executable, "-P", "-c", ON_A_DEVICE, str(package_root()), allowed]
    path = str(PROBES[engine])
    with Channel(command, path) as channel:
        channel.ask("open", Opened, path=path, spec=BenchSpec(engine))
        assert channel.ask("golden", GoldenCheck).parity.passed
        assert channel.ask("burst", Burst, runs=1, seconds=0.0).times_ns
        assert channel.ask("operators", OperatorProfile, runs=1).operators
        scored = channel.ask("accuracy", Scored, data=str(tmp_path / "test.npz"))
        assert scored.accuracy.samples == 20


class Clock:
    """Nanoseconds that pass only when a session runs."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class FakeSession:
    """A session whose runs take ``durations``, the last one for ever after."""

    def __init__(self, clock, *durations):
        self.clock, self.durations, self.count = clock, durations, 0

    def invoke(self, prepared):
        assert prepared == "pixels"
        self.clock.now += self.durations[min(self.count, len(self.durations) - 1)]
        self.count += 1


def timed(durations, runs, seconds):
    clock = Clock()
    return time_burst(FakeSession(clock, *durations), "pixels", runs, seconds, clock)


def test_every_run_is_kept_in_order():
    durations = [3 * MS, 9 * MS, 1 * MS, 500 * MS, 2 * MS]
    assert list(timed(durations, runs=5, seconds=0)) == durations


@pytest.mark.parametrize(("seconds", "runs"), [(0.5, 5), (0, 0)])
def test_warm_up_takes_the_requested_time(seconds, runs):
    clock = Clock()
    session = FakeSession(clock, 100 * MS)
    warm_up(session, "pixels", seconds, clock)
    assert session.count == runs


@pytest.mark.parametrize(
    ("duration", "runs", "seconds", "count"),
    [
        (2000 * MS, 50, 1.0, 50),
        (MS, 50, 0.5, 500),
        (MS, 50, 1.0, 1000),
        (MS, 1, 0, 1),
    ],
)
def test_a_burst_has_enough_runs_and_takes_enough_time(duration, runs, seconds, count):
    assert len(timed([duration], runs, seconds)) == count


def test_the_yardstick_is_the_fastest_of_its_runs():
    ticks = iter([0, 9, 10, 13, 20, 25] + [0, 50] * 100)
    assert yardstick_ms(clock=lambda: next(ticks)) == 3 / 1e6


PARENT = """
import json, subprocess, sys
import numpy
from cct_export.machine import peak_rss_bytes
before = peak_rss_bytes()
ballast = numpy.ones(200_000_000, numpy.uint8)
child = "from cct_export.machine import peak_rss_bytes; print(peak_rss_bytes())"
done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
print(before, peak_rss_bytes(), done.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is of Linux")
def test_a_child_does_not_inherit_the_peak_memory_of_a_large_parent():
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True)
    before, after, child = map(int, done.stdout.split())
    assert after - before >= 190_000_000
    assert 1_000_000 < child < 100_000_000
