"""Compiling and running C++ bundles.

The headers of ONNX Runtime's C API are from Debian's package, the library from its Python wheel;
``ncnn_library`` compiles ncnn.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import debian_archive
from debian_archive import Unavailable
from PIL import Image

RELEASE = "trixie"  # the first one with libonnxruntime-dev


def unpack_onnxruntime(folder):
    """Returns a folder with ``include`` and ``lib``, as in the archives of its releases.

    Raises:
        Unavailable: a compiler, the headers or the library are missing.
    """
    for program in ("cmake", "g++"):
        if shutil.which(program) is None:
            raise Unavailable(f"compiling the bundle needs {program}")
    package = Path(importlib.util.find_spec("onnxruntime").origin).parent
    libraries = sorted(package.glob("capi/libonnxruntime.so.*"))
    if not libraries:
        raise Unavailable("this wheel of onnxruntime has no library of its own")
    root = debian_archive.unpack_alone(folder, "libonnxruntime-dev", release=RELEASE)
    prefix = folder / "onnxruntime"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "include").symlink_to(root / "usr/include/onnxruntime")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (prefix / "lib" / name).symlink_to(libraries[0])
    return prefix


def run(*command):
    """Returns the process of a program that has ended."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def configure(folder, engine):
    """Returns the process of cmake, which looks at a bundle before compiling it.

    Args:
        folder: the bundle.
        engine: the option that tells where its engine is.
    """
    return run("cmake", "-B", folder / "build", "-S", folder, engine)


def compile(folder, engine):
    """Compiles a bundle, without a warning; see ``configure``."""
    process = configure(folder, engine)
    assert process.returncode == 0, process.stderr
    process = run("cmake", "--build", folder / "build")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "warning:" not in process.stdout + process.stderr


def classify(folder, *pictures):
    """Returns the probabilities by label, to four digits, that a compiled bundle prints for each.

    It reads PPM files, which are written beside the pictures.
    """
    for picture in pictures:
        with Image.open(picture) as image:
            image.save(picture.with_suffix(".ppm"))
    process = run(folder / "build/classify", *(path.with_suffix(".ppm") for path in pictures))
    assert process.returncode == 0, process.stderr
    shown = []
    for line in process.stdout.splitlines():
        percent, found, label = line.partition(" %  ")
        if found:
            shown[-1][label] = float(percent) / 100
        else:
            shown.append({})
    return shown
