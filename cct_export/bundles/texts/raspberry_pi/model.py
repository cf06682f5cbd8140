"""The model in this folder, on its engine: LiteRT for model.tflite, ONNX Runtime for model.onnx."""

import json
from importlib import metadata
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class Model:
    """The model, opened.

    Args:
        threads: threads that the engine may use.

    Attributes:
        contract: what model.json says.
        shape: height, width and channels of an image.
        engine: name and version of the engine.
    """

    def __init__(self, threads: int = 1) -> None:
        self.contract = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
        self.shape = tuple(self.contract["input"]["shape"][1:])
        open_engine = {"tflite": _open_litert, "onnx": _open_onnxruntime}[self.contract["format"]]
        self.engine, self._type, self._quantization, self._invoke = open_engine(
            str(HERE / self.contract["model"]), threads
        )

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Returns uint8 pixels ``(H, W, C)`` as the file takes them, ``(1, H, W, C)``."""
        scale, zero_point = self._quantization
        if not scale:
            return pixels[np.newaxis].astype(self._type)
        limits = np.iinfo(self._type)
        steps = np.round(pixels[np.newaxis] / scale) + zero_point
        return steps.clip(limits.min, limits.max).astype(self._type)

    def answer(self, prepared: np.ndarray) -> np.ndarray:
        """Returns what the file gives for one prepared image, ``(1, classes)`` in its own type."""
        return self._invoke(prepared)

    def logits(self, answers: np.ndarray) -> np.ndarray:
        """Returns the logits that answers stand for, as float32."""
        output = self.contract["output"]
        if output["scale"] is None:
            return answers.astype(np.float32)
        whole = answers.astype(np.float64) - output["zero_point"]
        return (whole * output["scale"]).astype(np.float32)


def _open_litert(path, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    def invoke(prepared):
        interpreter.set_tensor(image["index"], prepared)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    engine = "ai-edge-litert", metadata.version("ai-edge-litert")
    return engine, image["dtype"], image["quantization"], invoke


def _open_onnxruntime(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()

    def invoke(prepared):
        return session.run(None, {image.name: prepared})[0]

    numbers = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    return ("onnxruntime", onnxruntime.__version__), numbers[image.type], (0.0, 0), invoke
