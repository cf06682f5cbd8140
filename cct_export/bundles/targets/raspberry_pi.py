"""A folder for a Raspberry Pi: Python scripts, a self-test, a service that watches a folder."""

import re
import shlex
import string
from importlib import metadata, resources

from cct_export.bundles.contents import ENGINES, Contents, Files
from cct_export.errors import MissingDependency

SCRIPTS = ("model.py", "classify.py", "selftest.py", "cct-watch.service")
LIBRARIES = ("numpy", "pillow")


def files(contents: Contents) -> Files:
    """Returns the bundle's files by their paths.

    Raises:
        MissingDependency: a library whose version goes into ``requirements.txt`` is not installed.
    """
    texts = resources.files("cct_export.bundles") / "texts" / "raspberry_pi"
    readme = string.Template((texts / "README.md").read_text(encoding="utf-8"))
    return {
        **contents.common(),
        **{name: (texts / name).read_bytes() for name in SCRIPTS},
        "golden.npz": contents.golden_npz(),
        "requirements.txt": requirements(contents.format).encode(),
        "README.md": readme.substitute(_words(contents)).encode(),
    }


def requirements(format: str) -> str:
    """Returns a line ``name==version`` for everything that the scripts import, directly or not.

    The versions are those that are installed here: with them the outputs were computed that the
    self-test compares with.

    Args:
        format: ``tflite`` or ``onnx``.
    """
    found: dict[str, str] = {}
    for name in (*LIBRARIES, ENGINES[format]):
        _add(name, found)
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def _add(name: str, found: dict[str, str]) -> None:
    """Adds the version of ``name``, and of what it needs, to ``found``."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in found:
        return
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise MissingDependency(f"{name} is not installed: pip install {name} brings it") from None
    for line in metadata.requires(name) or ():
        needed, _, condition = line.partition(";")
        # What an extra brings is not needed; another condition is that of a system or Python.
        if not condition:
            _add(re.split(r"[^\w.-]", needed.strip())[0], found)


def _words(contents: Contents) -> dict[str, str]:
    """Returns what stands for the words with $ in README.md."""
    about = contents.model_json()
    height, width = about["input"]["shape"][1:3]
    return {
        "source": about["source"],
        "scheme": about["scheme"],
        "classes": str(len(contents.labels)),
        "folder": shlex.quote(contents.name),
        "height": str(height),
        "width": str(width),
        "dtype": about["input"]["dtype"],
        "preprocessing": about["input"]["preprocessing"],
        "model": contents.model_file,
        "images": str(len(contents.inputs)),
        "computed_by": about["golden"]["computed_by"],
        "computed_on": about["golden"]["computed_on"],
    }
