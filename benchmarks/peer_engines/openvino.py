"""OpenVINO, with NNCF's post-training quantization."""

from pathlib import Path

import numpy as np

# OpenVINO's names.
HINTS = {"float32": "f32", "int8": "f32", "bf16": "bf16"}


def convert(source: Path, precision: str, images: np.ndarray, folder: Path) -> Path:
    """Returns the ONNX file itself, or NNCF's int8 model by its default settings."""
    if precision != "int8":
        return source
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    dataset = nncf.Dataset([image[np.newaxis] for image in images])
    path = folder / "int8.xml"
    openvino.save_model(nncf.quantize(model, dataset, subset_size=len(images)), path)
    return path


def parts(path: Path) -> list[Path]:
    """Returns the graph and its weights."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


class Session:
    """A compiled model, with one thread and one stream."""

    def __init__(self, path: Path, precision: str) -> None:
        import openvino

        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            # OpenVINO would compute in float32 without a word.
            raise RuntimeError("this processor does not compute in bfloat16")
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": HINTS[precision],
        }
        self._request = core.compile_model(path, "CPU", options).create_infer_request()

    def prepare(self, image: np.ndarray) -> list[np.ndarray]:
        """Returns the inputs."""
        return [image]

    def run(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Returns the logits."""
        return self._request.infer(inputs)[0]
