"""A folder for a Raspberry Pi: Python scripts, a self-test, and a service that watches a folder."""

import io
import re
from importlib import metadata

import numpy as np

from cct_export.bundles.contents import Contents
from cct_export.bundles.folder import Files, render
from cct_export.errors import MissingDependency

LIBRARIES = ("numpy", "pillow")
# The engine's distribution, by format.
ENGINES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime", "ncnn": "ncnn"}


def files(contents: Contents) -> Files:
    """Returns the files of the bundle by path.

    Raises:
        MissingDependency: a library whose version goes into ``requirements.txt`` is not installed.
    """
    return {
        **contents.common_files(),
        **render(
            "raspberry_pi",
            folder=contents.name,
            model=contents.description,
            summary=contents.summary,
        ),
        "golden.npz": golden_npz(contents),
        "requirements.txt": requirements(contents.description.format).encode(),
    }


def golden_npz(contents: Contents) -> bytes:
    """Returns an ``.npz`` with ``images``, ``inputs``, ``outputs``, and the ``logits`` of Keras."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        images=contents.golden.images,
        inputs=contents.inputs,
        outputs=contents.outputs,
        logits=contents.golden.logits,
    )
    return stream.getvalue()


def requirements(format: str) -> str:
    """Returns a line ``name==version`` for everything that the scripts import, directly or not.

    The versions are those installed on this machine: they computed the outputs that the self-test
    compares with.

    Args:
        format: ``tflite``, ``onnx`` or ``ncnn``.

    Raises:
        MissingDependency: one of them is not installed.
    """
    versions: dict[str, str] = {}
    for name in (*LIBRARIES, ENGINES[format]):
        _add_version(name, versions)
    return "".join(f"{name}=={versions[name]}\n" for name in sorted(versions))


def _add_version(name: str, versions: dict[str, str]) -> None:
    """Adds the version of ``name``, and of its dependencies, to ``versions``."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in versions:
        return
    try:
        versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        raise MissingDependency(
            f"{name} is not installed: pip install {name} installs it"
        ) from None
    for requirement in metadata.requires(name) or ():
        dependency, _, marker = requirement.partition(";")
        # What has a marker belongs to an extra, or to another system or Python.
        if not marker:
            _add_version(re.split(r"[^\w.-]", dependency.strip())[0], versions)
