"""A killed run, resumed, ends where an unbroken one does."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cct_export.model import checkpoint

EPOCHS = 3


def _arguments(folder, *more):
    return (
        "train", "--data", "digits", "--model", "cct_2_3x2_32", "--recipe", "short",
        "--cutmix", 0.2, "--mix-probability", 0.5, "--dropout", 0.1, "--epochs", EPOCHS,
        "--seed", 4, "-o", folder, *more,
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


def _kill_when(process, exists):
    """Kills the process as soon as a file is there."""
    deadline = time.monotonic() + 200
    while not exists.exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, f"no {exists.name} came"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, cct_export):
    unbroken = cct_export(*_arguments("unbroken"))
    assert unbroken.returncode == 0, unbroken.stderr

    # Killed between the files of the first epoch, then after the first epoch, then let go.
    broken = tmp_path / "broken"
    _kill_when(_start(tmp_path, *_arguments("broken")), broken / "best.keras")
    _kill_when(_start(tmp_path, *_arguments("broken", "--resume")), broken / "state.npz")
    done = len((broken / "metrics.csv").read_text().splitlines()) - 1
    assert 1 <= done < EPOCHS
    resumed = cct_export(*_arguments("broken", "--resume"))
    assert resumed.returncode == 0, resumed.stderr

    whole = tmp_path / "unbroken"
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert len((whole / "metrics.csv").read_text().splitlines()) == 1 + EPOCHS
    mine, theirs = (checkpoint.load(run / "best.keras").get_weights() for run in (broken, whole))
    for one, other in zip(mine, theirs, strict=True):
        assert np.array_equal(one, other)
    with np.load(broken / "state.npz") as one, np.load(whole / "state.npz") as other:
        assert sorted(one) == sorted(other)
        for name in one:
            assert np.array_equal(one[name], other[name]), name

    again = cct_export(*_arguments("unbroken"))
    assert again.returncode == 1
    assert "add --resume" in again.stderr
    other_seed = cct_export(*_arguments("unbroken", "--resume", "--seed", 5))
    assert other_seed.returncode == 1
    assert "train seed 4, not 5" in other_seed.stderr
    assert "Traceback" not in other_seed.stderr
