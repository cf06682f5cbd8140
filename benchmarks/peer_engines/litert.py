"""LiteRT, which runs TFLite files as they are."""

from pathlib import Path

import numpy as np


def convert(source: Path, precision: str, images: np.ndarray, folder: Path) -> Path:
    """Returns the file itself."""
    return source


def parts(path: Path) -> list[Path]:
    """Returns the file."""
    return [path]


class Session:
    """An interpreter with one thread."""

    def __init__(self, path: Path, precision: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns the pixels, as integers where the file takes integers."""
        kind = self._input["dtype"]
        if kind is np.float32:
            return image
        scale, zero = self._input["quantization"]
        bounds = np.iinfo(kind)
        return np.clip(np.round(image / scale) + zero, bounds.min, bounds.max).astype(kind)

    def run(self, image: np.ndarray) -> np.ndarray:
        """Returns the logits."""
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        logits = self._interpreter.get_tensor(self._output["index"])
        if logits.dtype == np.float32:
            return logits
        scale, zero = self._output["quantization"]
        return (logits.astype(np.float32) - zero) * scale
