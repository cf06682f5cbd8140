"""A user who is not root and may not write everywhere, and one without a home.

Root may write anywhere: these tests run commands as the user nobody where they can.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NOBODY = 65534
OLD = b"the old file"
# Nobody may read everything, such as a Python below /root, and writes as nobody. Root's own user
# without its privileges would own the folders and could change their permissions.
DROP = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)  # fmt: skip


@pytest.fixture
def room():
    """A folder that every user may enter: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def as_nobody(room):
    """Runs a program of ours in ``room/mine`` as a user who is not root.

    Variables of the environment that are None are unset.
    """
    drop = DROP if os.geteuid() == 0 else ()
    mine = room / "mine"
    mine.mkdir()
    if drop:
        os.chown(mine, NOBODY, NOBODY)
        probe = [*drop, sys.executable, "-c", "import cct_export"]
        try:
            done = subprocess.run(probe, capture_output=True, text=True, cwd=mine)
        except FileNotFoundError as error:
            pytest.skip(f"root cannot become another user here: {error}")
        if done.returncode:
            pytest.skip(f"another user cannot run Python here: {done.stderr.strip()[-200:]}")

    def run(name, *arguments, **variables):
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | variables
        code = f"from cct_export.commands.program import {name}_main; {name}_main()"
        return subprocess.run(
            [*drop, sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, timeout=300, cwd=mine,
            env={name: value for name, value in environment.items() if value is not None},
        )  # fmt: skip

    return run


@pytest.fixture
def closed(room):
    """A folder that the user may read but not write in, with old files."""
    folder = room / "closed"
    folder.mkdir()
    for name in ("m.tflite", "m.tflite.json", "m.keras", "table.json", "table.csv", "p.png"):
        (folder / name).write_bytes(OLD)
    folder.chmod(0o555)
    return folder


def _content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS = {
    "tflite": ("tflite", "{run}", "-o", "{closed}/m.tflite"),
    "a new file": ("tflite", "{run}", "-o", "{closed}/new.tflite"),
    "a new folder": ("tflite", "{run}", "-o", "{closed}/new/m.tflite"),
    "export": ("export", "{run}", "-o", "{closed}"),
    "import": ("import", "{run}", "--classes", "4", "-o", "{closed}/m.keras"),
    "bundle": ("bundle", "{file}", "--target", "android", "-o", "{closed}/bundle"),
    "train": ("train", "--data", "digits", "-o", "{closed}/run"),
    "inspect": ("inspect", "{file}", "--json", "{closed}/table.json"),
    "predict": ("predict", "{file}", "{picture}", "--csv", "{closed}/table.csv"),
    "plot": ("quantize-report", "{run}", "--plot", "{closed}/p.png"),
    "a link": ("inspect", "{file}", "--json", "link.json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_may_not_be_written_is_one_line_and_stays_as_it_was(
    as_nobody, closed, room, digits_run, exports, name
):
    Image.new("RGB", (32, 32), "red").save(room / "red.png")
    (room / "mine/link.json").symlink_to(closed / "table.json")
    places = {
        "run": digits_run, "file": exports("tflite").path, "picture": room / "red.png",
        "closed": closed,
    }  # fmt: skip
    before = _content(closed)
    ended = as_nobody("export", *(word.format(**places) for word in COMMANDS[name]), "-q")
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: cannot write")
    assert f"no permission to write in {closed}" in line
    assert ended.stdout == ""
    assert _content(closed) == before


def test_a_folder_that_may_not_be_entered_is_one_line(as_nobody, room, exports):
    secret = room / "secret"
    secret.mkdir(mode=0o700)
    path = exports("tflite").path
    ended = as_nobody("export", "inspect", path, "--json", secret / "x/table.json")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: cannot write {secret}/x/table.json: ")
    assert "ermission" in line


def test_the_null_device_is_an_output_of_any_user(as_nobody, exports):
    ended = as_nobody("export", "inspect", exports("tflite").path, "--json", "/dev/null", "-q")
    assert (ended.returncode, ended.stderr) == (0, "")


def _without_home(home, closed):
    variables = {"HOME": home and home.format(closed=closed)}
    return variables | dict.fromkeys(("XDG_CACHE_HOME", "KERAS_HOME", "MPLCONFIGDIR"))


@pytest.mark.parametrize("home", [None, "", "/nonexistent"], ids=["unset", "empty", "missing"])
def test_a_model_is_exported_and_an_image_classified_without_a_home(
    as_nobody, closed, digits_run, room, home
):
    Image.new("RGB", (32, 32), "red").save(room / "mine" / "red.png")
    for arguments in (
        ("tflite", digits_run, "-o", "m.tflite", "--quantize", "int8"),
        ("predict", "m.tflite", "red.png"),
    ):
        ended = as_nobody("export", *arguments, "-q", **_without_home(home, closed))
        assert (ended.returncode, ended.stderr) == (0, ""), arguments


def test_every_kind_of_command_works_where_the_home_is_closed(
    as_nobody, closed, digits_run, digit_images, room
):
    mine = room / "mine"
    Image.new("RGB", (32, 32), "red").save(mine / "red.png")
    images, labels = (array[:60] for array in digit_images)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(mine / "data.npz", **arrays)
    variables = _without_home("{closed}", closed)
    for program, *arguments in (
        ("export", "tflite", digits_run, "-o", "m.tflite", "--quantize", "int8"),
        ("export", "predict", "m.tflite", "red.png"),
        ("export", "quantize-report", digits_run, "--samples", 4, "--plot", "p.png"),
        ("export", "train", "--data", "data.npz", "--epochs", 1, "-o", "run"),
        ("export", "bundle", "m.tflite", "--target", "android", "-o", "bundle"),
        ("bench", "tflite", "m.tflite", "--min-runs", 5, "--min-seconds", 0, "--html", "p.html"),
    ):
        ended = as_nobody(program, *arguments, "-q", **variables)
        assert ended.returncode == 0, ended.stderr
        # Its result is the one line of training.
        lines = [line for line in ended.stderr.splitlines() if "best of 1 epoch" not in line]
        assert lines == [], arguments
    assert {"m.tflite", "m.tflite.json", "p.png", "run", "bundle", "p.html"} <= {
        path.name for path in mine.iterdir()
    }
    assert not list(mine.rglob(".tmp-*"))


@pytest.mark.parametrize("home", [None, "/nonexistent", "{closed}"])
def test_a_cache_without_a_home_is_one_line(as_nobody, closed, digits_run, home):
    variables = {"HOME": home and home.format(closed=closed)}
    variables |= dict.fromkeys(("XDG_CACHE_HOME", "KERAS_HOME"))
    ended = as_nobody("export", "tflite", digits_run, "--data", "cifar10", "-q", **variables)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: cannot write")
    assert "cct-export/cifar10.npz" in line
    assert "XDG_CACHE_HOME" in line


def test_a_user_without_a_name_and_a_home_is_one_line(as_nobody, exports):
    """As in a container that was started with --user 12345."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("root alone can become a user that is not there")
    code = "from cct_export import data; data.read('cifar10', (32, 32, 3))"
    command = [word.replace(str(NOBODY), "12345") for word in DROP]
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [*command, sys.executable, "-B", "-c", code],
        capture_output=True, text=True, env=environment, cwd=Path("/"),
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].startswith("cct_export.errors.OutputError: cannot write ~")
