"""What a worker answers about a real file."""

from dataclasses import asdict

import pytest

from cct_export.bench.hosts.channel import start_worker
from cct_export.errors import InvalidRequest
from cct_export.specs import BenchSpec


@pytest.fixture
def opened(exports):
    path = str(exports("tflite", "int8-full", "int8").path)
    with start_worker(path) as channel:
        answer = channel.ask("open", path=path, spec=asdict(BenchSpec("litert")))
        yield channel, answer


def test_opening_tells_what_runs_it(opened):
    _, answer = opened
    runtime = answer["runtime"]
    assert (runtime["name"], runtime["delegate"], runtime["accelerator"]) == (
        "litert", "xnnpack", "cpu",
    )  # fmt: skip
    assert 0 < runtime["delegated_nodes"] <= runtime["total_nodes"]
    assert answer["load_ms"] > 0
    assert answer["contract"]["scheme"] == "int8-full"


def test_the_golden_logits_are_those_of_the_very_engine(opened):
    channel, _ = opened
    answer = channel.ask("golden")
    assert answer["parity"]["failures"] == []
    assert answer["changed"] is False


def test_pre_and_postprocessing_are_timed_apart(opened):
    channel, _ = opened
    answer = channel.ask("processing")
    assert answer["preprocess_ms"] > 0
    assert answer["postprocess_ms"] > 0


def test_a_burst_has_as_many_runs_as_asked_for(opened):
    channel, _ = opened
    answer = channel.ask("burst", runs=7, seconds=0.0)
    assert len(answer["times_ns"]) == 7
    assert all(isinstance(time, int) and time > 0 for time in answer["times_ns"])


def test_operators_are_timed_on_the_same_engine(opened):
    channel, answer = opened
    found = channel.ask("operators", runs=5)["operators"]
    assert len(found["operators"]) == answer["runtime"]["total_nodes"]


def test_keras_tells_no_times_of_operators(digits_model):
    path = str(digits_model)
    with start_worker(path) as channel:
        channel.ask("open", path=path, spec=asdict(BenchSpec("keras")))
        with pytest.raises(InvalidRequest, match="tells no times of its operators"):
            channel.ask("operators", runs=5)
