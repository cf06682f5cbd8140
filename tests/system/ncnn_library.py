"""ncnn's C++ library, compiled from the sources of its Python package.

No package has it: neither Debian nor the wheel has the headers.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile

from debian_archive import Unavailable

TIMEOUT_S = 1200
# What our files have, and what these layers of ncnn call.
LAYERS = {
    "binaryop", "cast", "clip", "concat", "convolution", "crop", "flatten", "gelu", "gemm",
    "hardsigmoid", "hardswish", "innerproduct", "input", "interp", "layernorm", "matmul",
    "memorydata", "packing", "padding", "permute", "pooling", "reduction", "relu", "reshape",
    "sigmoid", "softmax", "split", "swish", "tanh", "unaryop",
}  # fmt: skip
# Minutes instead of an hour: one set of instructions, and no arithmetic but float32's.
_OFF = (
    "VULKAN", "RUNTIME_CPU", "AVX", "BF16", "INT8", "WEIGHT_QUANT", "BUILD_TOOLS",
    "BUILD_EXAMPLES", "BUILD_BENCHMARK", "BUILD_TESTS", "PYTHON",
)  # fmt: skip
# Its setup.py takes the day for the version, and pip refuses a version that is not the file's.
_DAY = """
import time
time.localtime = lambda seconds=None: time.strptime({day!r}, "%Y%m%d")
"""


def install(folder):
    """Returns a folder with ``include`` and ``lib``, as ncnn's releases have them.

    Args:
        folder: a new folder.

    Raises:
        Unavailable: no compiler, no network, or it does not compile.
    """
    for program in ("cmake", "g++"):
        if shutil.which(program) is None:
            raise Unavailable(f"compiling ncnn needs {program}")
    sources = _sources(folder)
    prefix = folder / "ncnn"
    names = re.findall(
        r"^ncnn_add_layer\((\w+)", (sources / "src/CMakeLists.txt").read_text(), re.M
    )
    unused = {name.lower() for name in names} - LAYERS
    options = [*(f"NCNN_{name}" for name in _OFF), *(f"WITH_LAYER_{name}" for name in unused)]
    _run(
        "cmake", "-S", sources, "-B", folder / "build", f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
        *(f"-D{option}=OFF" for option in options),
    )  # fmt: skip
    _run("cmake", "--build", folder / "build", "--target", "install", "--parallel", 2)
    return prefix


def _sources(folder):
    """Returns the folder of the sources of the version whose wheel is installed."""
    version = importlib.metadata.version("ncnn")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_DAY.format(day=version.rpartition(".")[2]))
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation")
    _run(
        *pip, "--no-binary=:all:", f"ncnn=={version}", "--dest", folder,
        PYTHONPATH=str(folder / "site"),
    )  # fmt: skip
    (archive,) = folder.glob("ncnn-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _run(*command, **variables):
    """Runs a command; raises ``Unavailable`` if it fails."""
    try:
        process = subprocess.run(
            [str(part) for part in command],
            env=os.environ | variables, capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took over {TIMEOUT_S} s") from None
    if process.returncode:
        message = " ".join((process.stderr or process.stdout).split())[-300:]
        raise Unavailable(f"{command[0]} failed: {message}")
