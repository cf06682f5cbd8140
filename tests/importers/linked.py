"""Virtual environments with one more library, which sees everything that is installed here."""

import importlib.util
import subprocess
import sys

import pytest

PIP_S = 400


def python_with(folder, *packages, module, shared=True):
    """Returns an interpreter that can import ``module``: this one, or one made in ``folder``.

    Skips the test, with the reason, where it cannot be had.

    Args:
        folder: where the environment is made.
        packages: what pip installs, without anything that they depend on when ``shared``.
        module: what must then be importable.
        shared: whether the environment sees the packages that are installed here.
    """
    if shared and importlib.util.find_spec(module):
        return sys.executable
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "venv", folder)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(*pip, *(["--no-deps"] if shared else []), *packages)
    if shared:
        here = [path for path in sys.path if path.endswith("site-packages")]
        (packages_folder,) = (folder / "lib").glob("python*/site-packages")
        (packages_folder / "linked.pth").write_text("\n".join(here))
    _run(python, "-c", f"import {module}")
    return str(python)


def _run(*command):
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=PIP_S
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[2]} took over {PIP_S} s")
    if done.returncode:
        pytest.skip(f"{command[2]} {command[-1]}: {' '.join(done.stderr.split())[-300:]}")
