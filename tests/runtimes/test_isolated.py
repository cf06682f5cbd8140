"""Files that crash, never end or take too much memory harm another process only."""

import os
import signal

import numpy as np
import pytest
from hostile_models import (
    SHAPE,
    endless_for_bright_onnx,
    endless_onnx,
    endless_tflite,
    huge_onnx,
    huge_tflite,
    with_sizes_onnx,
)

from cct_export import workers
from cct_export.errors import InvalidArtifact
from cct_export.evaluation.latency import time_files
from cct_export.inspection import inspect_file
from cct_export.runtimes import engine_of, isolated, litert, session
from cct_export.runtimes.isolated import Array, IsolatedSession

BLACK = np.zeros((1, 8, 8, 3), np.uint8)
BRIGHT = BLACK + 255


def _opened(path):
    return engine_of(path.suffix[1:]).open_session(path)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    """Returns a hostile ``.tflite`` file; TensorFlow makes each once."""
    folder = tmp_path_factory.mktemp("hostile")
    return {
        make: make(folder / f"{make.__name__}.tflite") for make in (endless_tflite, huge_tflite)
    }


@pytest.fixture
def short(monkeypatch):
    """Lets an answer take three seconds, which is long where nothing hangs."""
    monkeypatch.setattr(workers.Channel.__init__, "__defaults__", (3.0, None))
    monkeypatch.setattr(workers, "ANSWER_LIMIT_S", 3.0)
    monkeypatch.setitem(workers.start.__kwdefaults__, "limit_s", 3.0)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_session_in_another_process_is_like_one_in_this(exports, digit_images, format):
    path, engine = exports(format, "int8").path, engine_of(format)
    here, there = engine.open_session(path, trusted=True), engine.open_session(path)
    assert isinstance(there, IsolatedSession)
    for name in isolated.Description.__dataclass_fields__:
        assert getattr(there, name) == getattr(here, name), name
    images = digit_images[0][:5]
    np.testing.assert_array_equal(session.run(there, images), session.run(here, images))
    there.close()


def test_integers_and_floats_survive_the_way_to_the_other_process():
    for array in (np.arange(6, dtype=np.int8).reshape(2, 3), np.array([[np.nan, -np.inf, 1e-45]])):
        decoded = Array.of(array).decoded()
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)


def test_a_file_that_runs_for_ever_is_refused_after_a_time_limit(tmp_path, tflite, short):
    for path in (endless_onnx(tmp_path / "m.onnx"), tflite[endless_tflite]):
        opened = _opened(path)
        with pytest.raises(InvalidArtifact, match="cannot be run: no answer to 'invoke'") as error:
            session.run(opened, BLACK)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        opened.close()


def test_a_file_that_runs_for_ever_for_some_images_is_refused_for_those(tmp_path, short):
    opened = _opened(endless_for_bright_onnx(tmp_path / "m.onnx"))
    assert session.run(opened, BLACK).shape == (1, 3)
    with pytest.raises(InvalidArtifact, match="no answer"):
        session.run(opened, BRIGHT)
    opened.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux limits private memory")
def test_a_file_that_takes_too_much_memory_is_refused(tmp_path, tflite):
    for path in (huge_onnx(tmp_path / "m.onnx"), tflite[huge_tflite]):
        with pytest.raises(InvalidArtifact, match="cannot be run") as error:
            session.run(_opened(path), BLACK)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "image",
    [(1, 10**6, 10**6, 3), (1, 12_000, 12_000, 3), ("n", 12_000, 12_000, 3), (2**40, 8, 8, 3)],
)
def test_images_that_would_take_too_much_memory_here_are_refused(tmp_path, image):
    path = with_sizes_onnx(tmp_path / "m.onnx", image=image, rows=1, classes=3)
    with pytest.raises(InvalidArtifact, match="export it for smaller images") as error:
        _opened(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("rows", "classes"), [(1, 10**8), (10**6, 3), (2, 3), (0, 3), (1, 0)], ids=str
)
def test_logits_that_cannot_be_those_of_the_images_are_refused(tmp_path, rows, classes):
    path = with_sizes_onnx(tmp_path / "m.onnx", image=SHAPE, rows=rows, classes=classes)
    with pytest.raises(InvalidArtifact, match="not a row of 1 to") as error:
        session.run(_opened(path), BLACK)
    assert str(path) in str(error.value)


def test_a_run_of_many_large_images_is_split(tmp_path, monkeypatch):
    path = with_sizes_onnx(tmp_path / "m.onnx", image=("n", 8, 8, 3), rows=2, classes=3)
    # The file gives two rows of logits, whatever it gets: only in twos can the images be run.
    opened = _opened(path)
    monkeypatch.setattr(session, "_BATCH_VALUES", 2 * 8 * 8 * 3)
    assert session.run(opened, BLACK.repeat(6, axis=0)).shape == (6, 3)
    opened.close()


def test_a_crash_of_the_engine_is_an_invalid_artifact(tmp_path):
    opened = _opened(endless_for_bright_onnx(tmp_path / "m.onnx"))
    os.kill(opened._channel._process.pid, signal.SIGSEGV)
    with pytest.raises(InvalidArtifact, match=r"the engine crashed \(SIGSEGV\)"):
        opened.invoke(BLACK.astype(np.float32))


def test_a_closed_session_leaves_no_process(exports):
    opened = litert.open_session(exports("tflite").path)
    number = opened._channel._process.pid
    opened.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_file_that_cannot_be_opened_leaves_no_process(tmp_path, monkeypatch):
    started = []
    start = workers.start

    def recorded(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(workers, "start", recorded)
    (tmp_path / "m.tflite").write_bytes(b"no model")
    with pytest.raises(InvalidArtifact, match="TFL3"):
        litert.open_session(tmp_path / "m.tflite")
    assert started[0]._process.returncode is not None


def test_files_are_tried_in_another_process_before_they_are_timed_in_this(tmp_path, short):
    with pytest.raises(InvalidArtifact, match="no answer"):
        time_files([endless_onnx(tmp_path / "m.onnx")])


@pytest.mark.parametrize("make", [endless_onnx, huge_onnx])
def test_a_hostile_file_can_be_inspected(tmp_path, make):
    kinds = {
        operator.kind for operator in inspect_file(make(tmp_path / "m.onnx"), "onnx").operators
    }
    assert "ReduceMean" in kinds
