"""How the rows of a baseline are measured again, and what of it the user has to name."""

from dataclasses import replace
from pathlib import Path

import pytest

from cct_export.bench.baseline import UserChoice, remeasurement
from cct_export.errors import InvalidRequest
from cct_export.records import Accuracy, BenchResult, MeasuredFile, Runtime

RUNTIME = Runtime("litert", "2", "cpu", "xnnpack", "default", 2, {})
ROW = BenchResult(MeasuredFile("some/m.tflite", "tflite", "int8"), RUNTIME, 3, (1,), ((1,),))
HUB = replace(ROW.artifact, path="hf:nobody/cct")
LIBRARY = replace(RUNTIME, requested="external:/lib.so", options={"a": "1", "b": "2"})


def again(*rows, **named):
    return remeasurement(rows, UserChoice(**named), name="b.json")


def test_a_row_is_measured_again_as_it_was():
    found = again(ROW)
    (job,) = found.jobs
    assert (found.device, found.data) == ("local", None)
    assert (job.path, job.spec.runtime) == (Path("some/m.tflite"), "litert")
    assert (job.spec.threads, job.spec.batch) == (2, 3)
    (job,) = again(ROW, paths=(Path("n.tflite"),)).jobs
    assert job.path == Path("n.tflite")


def test_the_artifacts_of_a_baseline_are_named_row_by_row():
    with pytest.raises(InvalidRequest, match="name as many artifacts, not 2"):
        again(ROW, paths=(Path("a"), Path("b")))


def test_rows_of_several_devices_are_not_measured_again():
    with pytest.raises(InvalidRequest, match="is of 2 devices"):
        again(ROW, replace(ROW, device="adb"))


def test_what_is_named_is_used():
    row = replace(ROW, device="ssh:box", runtime=LIBRARY, artifact=HUB)
    named = {
        "paths": (Path("hf:nobody/cct"),),
        "device": "ssh:box",
        "delegates": ("external:/lib.so",),
        "options": (("a", "1"), ("b", "2")),
    }
    found = again(row, **named)
    assert found.device == "ssh:box"
    assert found.jobs[0].spec.delegation.name == "external:/lib.so"
    assert found.jobs[0].spec.delegation.options == (("a", "1"), ("b", "2"))
    for name in named:
        some = {key: value for key, value in named.items() if key != name}
        with pytest.raises(InvalidRequest, match="only if you name it too"):
            again(row, **some)


def test_images_are_those_of_the_user_or_of_the_baseline(tmp_path):
    row = replace(ROW, accuracy=Accuracy(0.5, 0.9, 10, str(tmp_path)))
    assert again(row).data == str(tmp_path)
    assert again(row, data="digits").data == "digits"
    assert again(ROW, data="digits").data is None


def test_images_that_are_on_this_machine_need_not_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = replace(ROW, accuracy=Accuracy(0.5, 0.9, 10, "cifar10"))
    with pytest.raises(InvalidRequest, match="add --data cifar10"):
        again(row)
    assert again(row, data="cifar10").data == "cifar10"
    (tmp_path / "cct-export").mkdir()
    (tmp_path / "cct-export/cifar10.npz").touch()
    assert again(row).data == "cifar10"
    digits = replace(ROW, accuracy=Accuracy(0.5, 0.9, 10, "digits"))
    assert again(digits).data == "digits"


def test_images_that_are_gone_are_refused(tmp_path):
    row = replace(ROW, accuracy=Accuracy(0.5, 0.9, 10, str(tmp_path / "gone")))
    with pytest.raises(InvalidRequest, match="no such data"):
        again(row)
