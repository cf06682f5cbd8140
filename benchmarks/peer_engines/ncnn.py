"""ncnn: of our own .ncnn.param file, or through pnnx of our ONNX file."""

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np

# By default ncnn computes in 16 bits wherever the processor can.
IN_16_BITS = (
    "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed",
    "use_bf16_storage",
)  # fmt: skip
SUFFIX = ".ncnn.param"
# Without a hyphen, which pnnx replaces.
PNNX = "of_pnnx"


def convert(source: Path, precision: str, images: np.ndarray, folder: Path) -> Path:
    """Returns our own file, or that of pnnx if ``source`` is an ONNX file."""
    if source.name.endswith(SUFFIX):
        return source
    copy = folder / f"{PNNX}.onnx"  # pnnx writes beside the file that it reads
    shutil.copyfile(source, copy)
    shape = ",".join(map(str, (1, *images.shape[1:])))
    # The program itself: the script of the wheel imports PyTorch.
    program = metadata.distribution("pnnx").locate_file("pnnx/pnnx")
    command = [program, copy, f"inputshape=[{shape}]", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    path = folder / f"{PNNX}{SUFFIX}"
    if done.returncode or not path.is_file():
        raise RuntimeError(f"pnnx ended with {done.returncode}: {done.stderr[-150:]}")
    return path


def parts(path: Path) -> list[Path]:
    """Returns the layers and their weights."""
    return [path, _weights(path)]


def _weights(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".param") + ".bin")


class Session:
    """A net with one thread."""

    def __init__(self, path: Path, precision: str) -> None:
        import ncnn

        self._mat, self._net = ncnn.Mat, ncnn.Net()
        self._net.opt.num_threads = 1
        if precision != "fp16":
            for option in IN_16_BITS:
                setattr(self._net.opt, option, False)
        if self._net.load_param(str(path)) or self._net.load_model(str(_weights(path))):
            raise RuntimeError(f"ncnn cannot read {path.name}")
        (self._input,), (self._output,) = self._net.input_names(), self._net.output_names()
        # Ours takes channels first, as ncnn's layers do; that of pnnx what the ONNX file takes.
        self._channels_last = path.name.startswith(PNNX)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns the image without a batch axis, in the layout of the file."""
        return (
            image[0] if self._channels_last else np.ascontiguousarray(image[0].transpose(2, 0, 1))
        )

    def run(self, image: np.ndarray) -> np.ndarray:
        """Returns the logits."""
        extractor = self._net.create_extractor()
        # A copy: ncnn does not hold the array.
        extractor.input(self._input, self._mat(image).clone())
        failed, logits = extractor.extract(self._output)
        if failed:
            raise RuntimeError(f"ncnn ended with {failed}")
        return np.array(logits)
