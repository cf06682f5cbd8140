"""Virtual environments with an additional library on top of everything installed here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PIP_S = 400
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def python_with(folder, *packages, module):
    """Returns an interpreter that can import ``module``: this one, or one of a new environment.

    Skips the test, with the reason, if the installation fails.

    Args:
        folder: of the new environment.
        packages: what pip installs, in the project's versions, without dependencies.
        module: the module to import.
    """
    if importlib.util.find_spec(module):
        return sys.executable
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "venv", folder)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "--no-deps", "--constraint", CONSTRAINTS, *packages)
    installed = [path for path in sys.path if path.endswith("site-packages")]
    (packages_folder,) = (folder / "lib").glob("python*/site-packages")
    (packages_folder / "linked.pth").write_text("\n".join(installed))
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
