"""ONNX Runtime, which runs ONNX files as they are."""

from pathlib import Path

import numpy as np


def convert(source: Path, precision: str, images: np.ndarray, folder: Path) -> Path:
    """Returns the file itself."""
    return source


def parts(path: Path) -> list[Path]:
    """Returns the file."""
    return [path]


class Session:
    """A session with one thread."""

    def __init__(self, path: Path, precision: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        (self._input,) = self._session.get_inputs()

    def prepare(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the inputs."""
        return {self._input.name: image}

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the logits."""
        return self._session.run(None, inputs)[0]
