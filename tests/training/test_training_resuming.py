"""A run that goes on needs not be told again what it is."""

import json

from cct_export.training.resuming import fill_in


def _rows(folder):
    return (folder / "metrics.csv").read_text().splitlines()[1:]


def test_a_run_goes_on_with_the_options_that_it_was_begun_with(in_process, tmp_path):
    (tmp_path / "mine.toml").write_text('recipe = "short"\nema = 0.5\nmixup = 0.2\n')
    asked = (
        "export", "train", "--model", "cct_2_3x2_32", "--data", "digits", "--batch", 256,
        "--recipe", tmp_path / "mine.toml", "--schedule", "constant", "--no-flip",
        "--stochastic-depth-mode", "batch", "--epochs", 1, "-o", tmp_path / "run",
    )  # fmt: skip
    assert in_process(*asked).code == 0
    before = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "mine.toml").unlink()
    ended = in_process("export", "train", "--resume", "--epochs", 2, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    after = json.loads((tmp_path / "run/run.json").read_text())
    assert after["train"] == before["train"] | {"epochs": 2}
    assert after["model"] == before["model"]
    assert len(_rows(tmp_path / "run")) == 2

    ended = in_process("export", "train", "--resume", "--mixup", 0.3, "-o", tmp_path / "run")
    assert ended.code == 1
    assert "was begun with train mixup 0.2, not 0.3" in ended.err


def test_a_fine_tuning_goes_on_from_what_it_was_begun_with(in_process, digits_run, tmp_path):
    asked = (
        "export", "train", "--from", digits_run, "--data", "digits", "--batch", 256,
        "--recipe", "keras-io", "--freeze", "tokenizer,blocks:1", "--epochs", 1,
        "-o", tmp_path / "run",
    )  # fmt: skip
    assert in_process(*asked).code == 0
    ended = in_process("export", "train", "--resume", "--epochs", 2, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert len(_rows(tmp_path / "run")) == 2


def test_where_no_run_is_nothing_is_filled_in(in_process, tmp_path):
    given = {"model": None, "start": None, "recipe": None, "data": None}
    assert fill_in(tmp_path, given) == given
    for content in ("", "[]", '{"train": 1}', '{"train": {}, "model": {}}'):
        (tmp_path / "run.json").write_text(content)
        assert fill_in(tmp_path, given) == given
    ended = in_process("export", "train", "--resume", "-o", tmp_path / "none")
    assert ended.code == 1
    assert "is not a run directory: no run.json in it" in ended.err
