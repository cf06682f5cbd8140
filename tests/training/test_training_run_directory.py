"""The run directory: its lock, its record, and what must be the same when a run is resumed."""

import errno
import fcntl
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from malformed_npz import npy, with_header
from tiny_run import TINY, gray_images, train_tiny

from cct_export.errors import CCTExportError, InvalidModel, InvalidRequest, OutputError
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training.learner import compiled
from cct_export.training.run import RunDirectory, RunRecord, WeightsSource

RECIPE = {"seed": 5}


def _edit(run, **entries):
    record = json.loads(run.record_file.read_text()) | entries
    run.record_file.write_text(json.dumps(record))


def test_the_record_has_configuration_and_results(finished):
    record = finished.run.record()
    assert record.train == TrainSpec(finished.data, epochs=2, batch=8, learning_rate=3e-3, seed=5)
    assert record.model == replace(TINY, classes=3, labels=("0", "1", "2"))
    assert record.start is None
    assert record.backend == record.environment["backend"] == "tensorflow"
    content = json.loads(finished.run.record_file.read_text())
    assert list(content) == [
        "train", "model", "backend", "data", "validation_top1", "test", "test_jpeg", "environment",
    ]  # fmt: skip
    trained = finished.trained
    assert content["test"] == {"top1": trained.top1, "top5": trained.top5, "samples": 30}
    assert content["model"]["labels"] == ["0", "1", "2"]


def test_a_record_is_the_same_after_writing_and_reading(tmp_path):
    run = RunDirectory(tmp_path / "run")
    record = RunRecord(
        TrainSpec("x", freeze=("head", "blocks:1")), ModelSpec(labels=tuple("abcdefghij")),
        WeightsSource("a.keras", "0" * 64), WeightsSource("b.keras", "1" * 64), "jax",
        {"test images": 3},
    )  # fmt: skip
    run.begin(record, resume=False)
    assert run.record() == record


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "its JSON ends too early"),
        ("[]", "Expected `object`, got `array`"),
        ('{"train": {"data": "x"}}', "missing required field `model`"),
        ('{"train": {}, "model": {}}', "missing required field `data`"),
        ('{"train": {"data": 3}, "model": {}}', "Expected `str`, got `int`"),
        ('{"train": {"data": "x", "epochs": 0}, "model": {}}', "epochs must be at least 1"),
        ('{"train": {"data": "x"}, "model": {"classes": "10"}}', "Expected `int`, got `str`"),
    ],
)
def test_a_record_of_another_program_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InvalidModel, match=r"run\.json is not the record of a training") as refused:
        RunDirectory(tmp_path).record()
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_record_of_an_older_version_is_resumed(copied, finished):
    record = json.loads(copied.record_file.read_text())
    del record["data"], record["backend"]
    del record["train"]["freeze"], record["model"]["stochastic_depth_mode"]
    copied.record_file.write_text(json.dumps(record))
    copied.begin(finished.run.record(), resume=True)
    assert copied.record() == finished.run.record()


def test_other_data_of_the_same_name_is_refused_on_resume(copied, tmp_path):
    before = copied.state_file.read_bytes()
    data = gray_images(tmp_path / "d.npz")
    _edit(copied, train=copied.record().train.to_dict() | {"data": data})
    for change, differences in (
        ({"seed": 1}, "other training content, test content"),
        ({"count": 63}, "other training images, training labels, training content"),
    ):
        gray_images(tmp_path / "d.npz", **change)
        with pytest.raises(CCTExportError, match=f"was started with: {differences}"):
            train_tiny(copied.path, data, resume=True, **RECIPE)
    assert copied.state_file.read_bytes() == before


def test_another_backend_is_refused_on_resume(copied, finished):
    _edit(copied, backend="jax")
    with pytest.raises(CCTExportError, match=r"was started on jax.*resume with KERAS_BACKEND=jax"):
        train_tiny(copied.path, finished.data, resume=True, **RECIPE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 6}, "train seed 5, not 6"),
        ({"batch": 16}, "train batch 8, not 16"),
        ({"learning_rate": 1.0}, r"train learning_rate 0\.003, not 1\.0"),
        ({"epochs": 1}, "train epochs 2, not 1"),
        ({"freeze": ("head",)}, r"train freeze \[\], not \['head'\]"),
        ({"schedule": "cosine", "epochs": 3}, "train epochs 2, not 3"),
    ],
)
def test_other_hyperparameters_are_refused_on_resume(copied, changed, message):
    record = copied.record()
    before = copied.record_file.read_bytes()
    with pytest.raises(CCTExportError, match=f"was started with {message}"):
        copied.begin(replace(record, train=replace(record.train, **changed)), resume=True)
    assert copied.record_file.read_bytes() == before


def test_more_epochs_are_accepted_with_a_constant_learning_rate(copied):
    record = copied.record()
    longer = replace(record, train=replace(record.train, epochs=9))
    copied.begin(longer, resume=True)
    assert copied.record() == longer


def test_more_epochs_are_refused_where_they_would_have_made_the_warm_up_longer(copied):
    record = copied.record()
    shortened = replace(record, train=replace(record.train, warmup=0.5))
    copied.record_file.write_text(shortened.to_json())
    longer = replace(shortened, train=replace(shortened.train, epochs=9))
    with pytest.raises(CCTExportError, match="was started with train epochs 2, not 9"):
        copied.begin(longer, resume=True)


def test_another_model_or_dataset_is_refused_on_resume(copied, finished, tmp_path):
    with pytest.raises(CCTExportError, match="was started with model layers 1, not 2"):
        train_tiny(copied.path, finished.data, resume=True, model=replace(TINY, layers=2), **RECIPE)
    with pytest.raises(CCTExportError, match=r"train data .*my data\.npz.* not .*b\.npz"):
        train_tiny(copied.path, gray_images(tmp_path / "b.npz"), resume=True, **RECIPE)


def test_other_pretrained_weights_are_refused_on_resume(copied):
    record = copied.record()
    a, b = (replace(record, start=WeightsSource(f"{name}.keras", name * 64)) for name in "ab")
    _edit(copied, start={"source": "a.keras", "sha256": "a" * 64})
    with pytest.raises(CCTExportError, match=r"from a\.keras \(aaa.* not b\.keras \(bbb"):
        copied.begin(b, resume=True)
    with pytest.raises(CCTExportError, match="not random weights: resume with the same --from"):
        copied.begin(record, resume=True)
    copied.begin(a, resume=True)


def test_pretrained_weights_are_refused_on_resume_of_a_run_without(copied):
    record = replace(copied.record(), start=WeightsSource("a.keras", "a" * 64))
    message = r"from random weights, not a\.keras \(aaa.* resume without --from"
    with pytest.raises(CCTExportError, match=message):
        copied.begin(record, resume=True)


def test_a_directory_with_a_run_is_refused_without_resume(finished):
    before = finished.run.state_file.read_bytes()
    with pytest.raises(CCTExportError, match=r"already holds a run: add --resume"):
        train_tiny(finished.run.path, finished.data, **RECIPE)
    assert finished.run.state_file.read_bytes() == before


@pytest.mark.parametrize("name", ["README.md", "metrics.csv", "model.png"])
def test_a_folder_with_a_file_that_is_not_of_a_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(CCTExportError, match=f"is not a run directory and holds a {name}"):
        train_tiny(tmp_path, "digits")
    assert (tmp_path / name).read_text() == "mine"


def test_resume_without_a_run_is_refused_and_makes_no_directory(tmp_path):
    with pytest.raises(InvalidRequest, match=r"none is not a run directory: no run\.json"):
        train_tiny(tmp_path / "none", "nowhere", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_state_without_a_record_is_neither_overwritten_nor_resumed(copied, finished):
    copied.record_file.unlink()
    with pytest.raises(CCTExportError, match="already holds a run"):
        train_tiny(copied.path, finished.data, seed=9)
    with pytest.raises(InvalidRequest, match=r"no run\.json in it"):
        train_tiny(copied.path, finished.data, resume=True)


def _learner(finished):
    record = finished.run.record()
    return compiled(CCT(record.model), record.train, 7)


def test_the_state_is_restored_bit_by_bit(finished):
    run = finished.run
    model = _learner(finished)
    metrics = run.load_state(model, run.read_state())
    with np.load(run.state_file) as state:
        assert json.loads(str(state["history"])) == metrics
        for prefix, owner in (("model", model), ("optimizer", model.optimizer)):
            assert sum(name.startswith(prefix) for name in state) == len(owner.variables)
            for index, variable in enumerate(owner.variables):
                assert np.array_equal(np.asarray(variable), state[f"{prefix}_{index}"])
    assert [epoch["epoch"] for epoch in metrics] == [1, 2]
    assert any("seed" in variable.path for variable in model.variables)


def test_a_damaged_state_is_refused_in_one_line(copied, finished):
    model, content = _learner(finished), copied.state_file.read_bytes()
    for damaged in (b"", b"xx", content[: len(content) // 2]):
        copied.state_file.write_bytes(damaged)
        with pytest.raises(InvalidModel, match=r"state\.npz is damaged") as refused:
            copied.load_state(model, copied.read_state())
        assert "\n" not in str(refused.value)


def test_a_state_of_another_version_is_refused(copied, finished):
    with np.load(copied.state_file) as state:
        fewer = {name: state[name] for name in state if name != "model_3"}
    np.savez(copied.state_file, **fewer)
    with pytest.raises(InvalidModel, match=r"state\.npz is another version's \(model: \d+ variab"):
        copied.load_state(_learner(finished), copied.read_state())


def test_a_locked_directory_is_refused(copied, finished):
    with copied.lock(), pytest.raises(CCTExportError, match=r"another process trains into .*run"):
        train_tiny(copied.path, finished.data, resume=True, epochs=3, **RECIPE)


def test_temporary_files_of_a_killed_process_are_removed_and_other_files_are_not(copied):
    temporaries = [copied.path / f".tmp-abc.{kind}" for kind in ("npz", "keras", "png", "csv")]
    for temporary in temporaries:
        temporary.write_bytes(b"half")
    (copied.path / ".tmp-mine.npz").mkdir()
    (copied.path / ".tmp-letter.txt").write_text("mine")
    with copied.lock():
        assert not any(temporary.exists() for temporary in temporaries)
    assert (copied.path / ".tmp-mine.npz").is_dir()
    assert (copied.path / ".tmp-letter.txt").read_text() == "mine"


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunDirectory(tmp_path / "run").lock():
        assert "run cannot be locked (No locks available)" in caplog.text


def test_an_error_while_locked_is_not_taken_for_another_process(tmp_path):
    with pytest.raises(BlockingIOError), RunDirectory(tmp_path / "run").lock():
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_directory_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    data = gray_images(tmp_path / "d.npz")
    for folder in ("file", "file/run"):
        with pytest.raises(OutputError, match="cannot write"):
            train_tiny(tmp_path / folder, data)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("key", ["history", "model_0", "optimizer_0"])
@pytest.mark.parametrize(
    "member", [with_header(b"("), npy("<U0", (10**18,)), npy("<U1", (), b"\xff" * 4), b""]
)
def test_a_state_with_an_array_that_cannot_be_is_refused(copied, finished, key, member):
    with zipfile.ZipFile(copied.state_file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(copied.state_file, "w") as archive:
        for name, content in (members | {f"{key}.npy": member}).items():
            archive.writestr(name, content)
    with pytest.raises(InvalidModel, match=r"state\.npz is damaged") as refused:
        copied.load_state(_learner(finished), copied.read_state())
    assert "\n" not in str(refused.value)
