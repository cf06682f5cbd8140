"""A run that is killed and resumed has the same result as an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cct_export.model import checkpoint
from cct_export.training.run import RunDirectory

EPOCHS = 3


def _arguments(folder, *options):
    return (
        "train", "--data", "digits", "--model", "cct_2_3x2_32", "--recipe", "short",
        "--cutmix", 0.2, "--mix-probability", 0.5, "--dropout", 0.1, "--epochs", EPOCHS,
        "--seed", 4, "-o", folder, *options,
    )  # fmt: skip


def _start(cwd, *arguments):
    code = "from cct_export.commands.program import export_main; export_main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _kill_at(process, file):
    """Kills the process as soon as ``file`` exists."""
    deadline = time.monotonic() + 200
    while not file.exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, f"no {file.name} was written"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_has_the_same_result(tmp_path, cct_export, same_state):
    done = cct_export(*_arguments("whole"))
    assert done.returncode == 0, done.stderr

    # Killed between the files of the first epoch, then after the first epoch, then not.
    broken = tmp_path / "broken"
    _kill_at(_start(tmp_path, *_arguments("broken")), broken / "best.keras")
    _kill_at(_start(tmp_path, *_arguments("broken", "--resume")), broken / "state.npz")
    epochs = len((broken / "metrics.csv").read_text().splitlines()) - 1
    assert 1 <= epochs < EPOCHS
    resumed = cct_export(*_arguments("broken", "--resume"))
    assert resumed.returncode == 0, resumed.stderr

    whole = tmp_path / "whole"
    assert len((whole / "metrics.csv").read_text().splitlines()) == 1 + EPOCHS
    same_state(RunDirectory(broken), RunDirectory(whole))
    weights = (checkpoint.load(run / "best.keras").get_weights() for run in (broken, whole))
    assert all(map(np.array_equal, *weights))

    again = cct_export(*_arguments("whole"))
    assert again.returncode == 1
    assert "add --resume" in again.stderr
    other_seed = cct_export(*_arguments("whole", "--resume", "--seed", 5))
    assert other_seed.returncode == 1
    assert "train seed 4, not 5" in other_seed.stderr
    assert "Traceback" not in other_seed.stderr
