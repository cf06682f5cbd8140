"""Fixtures: small real models on real data (scikit-learn's digits)."""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

from cct_export.specs import SUFFIXES

# What a shell starts in the background ignores Ctrl-C, and so would the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# How long an example takes says nothing while other tests run beside it.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

# Tests with these marks fetch something or take long: they are part of ``make test-all`` only.
SLOW = {
    "adb", "arm64", "browser", "cpp", "keras2", "kotlin", "provider", "ssh", "torch", "vulkan",
}  # fmt: skip
SYSTEM = Path(__file__).parent / "system"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow what needs more than Python packages, before ``-m`` chooses."""
    for item in items:
        if SYSTEM in item.path.parents or SLOW & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.slow)


SMALL = {
    "name": "small",
    "filters": (16, 32),
    "layers": 2,
    "heads": 2,
    "head_dim": 32,
    "mlp_units": (32, 32),
}


@pytest.fixture(scope="session")
def once(tmp_path_factory, request):
    """Makes a folder once for all workers of pytest-xdist; do not change what is in it.

    ``once("name", make)`` calls ``make(folder)`` in the first worker that asks for ``name``, and
    returns the folder.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if hasattr(request.config, "workerinput") else base) / "once"
    shared.mkdir(exist_ok=True)

    def get(name, make):
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def small_spec():
    """A CCT of 20,000 parameters that learns the digits in seconds."""
    from cct_export.specs import ModelSpec

    return ModelSpec(**SMALL)


@pytest.fixture(scope="session")
def digits_run(once, small_spec) -> Path:
    """A finished run directory: the small CCT trained on digits, well above chance."""

    def train(folder):
        import cct_export
        from cct_export.specs import TrainSpec

        recipe = TrainSpec(data="digits", epochs=12, batch=64, learning_rate=3e-3)
        trained = cct_export.train(folder / "run", recipe=recipe, model=small_spec)
        assert trained.top1 > 0.7
        (folder / "run" / "calibration.npz").unlink()

    return once("digits", train) / "run"


@pytest.fixture(scope="session")
def digits_model(digits_run) -> Path:
    """The ``.keras`` file of ``digits_run``."""
    return digits_run / "best.keras"


@pytest.fixture
def cct_export(tmp_path):
    """Runs ``cct-export`` in a process of its own in ``tmp_path``; returns the process."""
    return _program("export", tmp_path)


@pytest.fixture
def cct_bench(tmp_path):
    """Runs ``cct-bench`` in a process of its own in ``tmp_path``; returns the process."""
    return _program("bench", tmp_path)


def _program(name, folder):
    code = f"from cct_export.commands.program import {name}_main; {name}_main()"

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


class Ended(NamedTuple):
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def record(self):
        """What ``--json -`` put on standard output."""
        return json.loads(self.out)


class Export(NamedTuple):
    """A file that a command exported, and the record it printed."""

    path: Path
    record: dict


@pytest.fixture(scope="session")
def in_process():
    """Runs a command in this process, where TensorFlow is loaded already.

    ``in_process("export", "tflite", model)`` is ``cct-export tflite model``; returns ``Ended``.
    """
    from click.testing import CliRunner

    from cct_export.commands import program

    def run(name, *arguments):
        logger = logging.getLogger("cct_export")
        before = logger.handlers, logger.propagate, logger.level
        try:
            result = CliRunner().invoke(
                getattr(program, name), list(map(str, arguments)), prog_name=f"cct-{name}"
            )
        finally:
            logger.handlers, logger.propagate = before[:2]
            logger.setLevel(before[2])
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


def _options(format, scheme, io):
    """Returns the options of a scheme and a type of the input; skips without ncnn for its files."""
    if format != "ncnn":
        return ("--quantize", scheme, "--io", io)
    pytest.importorskip("ncnn", reason="ncnn is not installed: pip install 'cct-export[ncnn]'")
    return ("--quantize", scheme)


@pytest.fixture(scope="session")
def exports(once, digits_run, in_process):
    """Returns the export of ``digits_run`` in a format and scheme, made once; do not change it."""

    def get(format, scheme="none", io="float32", *more):
        name = f"small-{scheme}-{io}{''.join(more)}{SUFFIXES[format]}"

        def export(folder):
            options = (*_options(format, scheme, io), "-o", folder / name, "--json", "-")
            ended = in_process("export", format, digits_run, *options, *more)
            assert ended.code == 0, ended.err
            (folder / "record.json").write_text(ended.out)

        folder = once(f"export-{name}", export)
        return Export(folder / name, json.loads((folder / "record.json").read_text()))

    return get


@pytest.fixture(scope="session")
def head_exports(once, in_process):
    """Returns the export of a small model with some kind of outputs, made once; do not change it.

    The model is beside it, as ``m.keras``; see ``output_kinds``.
    """

    def get(kind, format, scheme="none", io="float32"):
        name = f"m-{scheme}-{io}{SUFFIXES[format]}"

        def export(folder):
            from output_kinds import model_of

            model_of(kind).save(folder / "m.keras")
            options = (*_options(format, scheme, io), "-o", folder / name, "--json", "-")
            ended = in_process("export", format, folder / "m.keras", *options)
            assert ended.code == 0, ended.err
            (folder / "record.json").write_text(ended.out)

        folder = once(f"{kind}-{name}", export)
        return Export(folder / name, json.loads((folder / "record.json").read_text()))

    return get


@pytest.fixture(scope="session")
def digit_images():
    """The test images of ``digits``, uint8 (360, 32, 32, 3), and their labels."""
    from cct_export import data

    split = data.read("digits", (32, 32, 3)).test
    return split.images(range(len(split.labels))), split.labels


@pytest.fixture
def on_terminal(tmp_path):
    """Runs a command on a pseudo-terminal of some width in ``tmp_path``; returns its ``Screen``.

    ``on_terminal(80, "export", "tflite")`` is ``cct-export tflite`` where a line has 80 cells.
    """

    from screens import screen_of

    def run(width, name, *arguments):
        code = f"from cct_export.commands.program import {name}_main; {name}_main()"
        return screen_of(width, [sys.executable, "-c", code, *map(str, arguments)], tmp_path)

    return run


@pytest.fixture
def mounted(tmp_path):
    """Returns a function that mounts a file system of some kB, where this machine lets us."""
    folder = tmp_path / "disk"

    def mount(kilobytes):
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a file system is not allowed here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)
