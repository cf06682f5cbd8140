"""MNN, with its own converter and quantizer.

The scripts ``mnnconvert`` and ``mnnquant`` of the wheel run pip as they start, and report what
they did and on which machine. The native module behind them does neither.
"""

import json
from pathlib import Path

import numpy as np


def convert(source: Path, precision: str, images: np.ndarray, folder: Path) -> Path:
    """Returns the converted file, or what MNN's offline quantizer makes of it."""
    import _tools

    path = folder / "float32.mnn"
    command = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(path)]
    _tools.mnnconvert([*command, "--bizCode", "MNN"])
    _check(path)
    if precision != "int8":
        return path
    quantized, config = folder / "int8.mnn", folder / "config.json"
    config.write_text(json.dumps(_config(images, folder / "images")))
    _tools.mnnquant(["mnnquant", str(path), str(quantized), str(config)])
    _check(quantized)
    if quantized.stat().st_size > 0.9 * path.stat().st_size:
        # As where it cannot feed the images: it says so, and writes float32 weights all the same.
        raise RuntimeError("mnnquant left the weights in float32")
    return quantized


def parts(path: Path) -> list[Path]:
    """Returns the file."""
    return [path]


def _check(path: Path) -> None:
    if not path.is_file():
        raise RuntimeError(f"MNN wrote no {path.name}")


def _config(images: np.ndarray, folder: Path) -> dict:
    """Writes images as the quantizer reads tensors of any layout; returns its configuration.

    It reads pictures too, but feeds them channels first, whatever the model takes.
    """
    for index, image in enumerate(images):
        sample = folder / f"{index:04}"
        sample.mkdir(parents=True)
        # What our ONNX files call input and output.
        ends = {"inputs": [{"name": "image", "shape": [1, *image.shape]}], "outputs": ["logits"]}
        (sample / "input.json").write_text(json.dumps(ends))
        np.savetxt(sample / "image.txt", image.reshape(-1), fmt="%g")
    return {
        "input_type": "sequence",
        "path": f"{folder}/",
        "used_sample_num": len(images),
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
        "batch_size": 1,
    }


class Session:
    """A session with one thread, which computes float32 in float32."""

    def __init__(self, path: Path, precision: str) -> None:
        import MNN

        self._mnn = MNN
        self._interpreter = MNN.Interpreter(str(path))
        config = {"numThread": 1, "backend": "CPU", "precision": "high"}
        self._session = self._interpreter.createSession(config)
        self._input = self._interpreter.getSessionInput(self._session)
        self._output = self._interpreter.getSessionOutput(self._session)
        # On the host, where the logits are copied to.
        self._logits = self._tensor(np.zeros(self._output.getShape(), np.float32))

    def _tensor(self, values: np.ndarray) -> object:
        kinds = self._mnn.Halide_Type_Float, values, self._mnn.Tensor_DimensionType_Caffe
        return self._mnn.Tensor(values.shape, *kinds)

    def prepare(self, image: np.ndarray) -> object:
        """Returns the tensor of an image."""
        return self._tensor(np.ascontiguousarray(image))

    def run(self, image: object) -> np.ndarray:
        """Returns the logits."""
        self._input.copyFrom(image)
        self._interpreter.runSession(self._session)
        self._output.copyToHostTensor(self._logits)
        return self._logits.getNumpyData()
