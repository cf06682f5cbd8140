"""The model in this folder on its engine: LiteRT, ONNX Runtime or ncnn, by its format."""

import contextlib
import hashlib
import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
CHECKSUMS = "SHA256SUMS"
# By default ncnn computes in 16 bits wherever the processor can; the model was verified in 32.
IN_16_BITS = (
    "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed",
    "use_bf16_storage",
)  # fmt: skip


class Model:
    """An open model.

    Args:
        threads: threads that the engine may use.
        verbose: let the engine print what it says when it opens a model.

    Attributes:
        description: content of model.json.
        shape: height, width and channels of an image.
        engine: name and version of the engine.
    """

    def __init__(self, threads: int = 1, verbose: bool = False) -> None:
        self.description = json.loads(_verified("model.json"))
        files = [self.description["model"]]
        if self.description["weights"]:
            files.append(self.description["weights"])
        for name in files:
            _verified(name)
        shape = self.description["input"]["shape"][1:]
        self._channels_first = self.description["input"]["layout"] == "NCHW"
        self.shape = tuple(shape[1:] + shape[:1] if self._channels_first else shape)
        engines = {"tflite": _open_litert, "onnx": _open_onnxruntime, "ncnn": _open_ncnn}
        open_model = engines[self.description["format"]]
        with contextlib.nullcontext() if verbose else _native_stderr_hidden():
            self.engine, self._dtype, self._quantization, self._invoke = open_model(
                *(str(FOLDER / name) for name in files), threads=threads
            )

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Returns uint8 pixels ``(H, W, C)`` as the model takes them, in a batch of one."""
        if self._channels_first:
            pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        scale, zero_point = self._quantization
        if not scale:
            return pixels[np.newaxis].astype(self._dtype)
        limits = np.iinfo(self._dtype)
        quantized = np.round(pixels[np.newaxis] / scale) + zero_point
        return quantized.clip(limits.min, limits.max).astype(self._dtype)

    def run(self, prepared: np.ndarray) -> np.ndarray:
        """Returns the output for one prepared image, ``(1, classes)`` in its own type."""
        return self._invoke(prepared)

    def dequantize(self, outputs: np.ndarray) -> np.ndarray:
        """Returns outputs ``(N, classes)`` as float32 logits."""
        output = self.description["output"]
        if output["scale"] is None:
            return outputs.astype(np.float32)
        centred = outputs.astype(np.float64) - output["zero_point"]
        return (centred * output["scale"]).astype(np.float32)


def _verified(name: str) -> bytes:
    """Returns the content of a file of this folder; raises ``OSError`` if it has changed."""
    content = (FOLDER / name).read_bytes()
    lines = (FOLDER / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    if f"{hashlib.sha256(content).hexdigest()}  {name}" not in lines:
        raise OSError(f"{name} has another SHA-256 than in {CHECKSUMS}: copy it again")
    return content


@contextlib.contextmanager
def _native_stderr_hidden():
    """Drops what native code writes to standard error: LiteRT has no level of logging to set."""
    with Path(os.devnull).open("wb") as null:
        stderr = os.dup(2)
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


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
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read when the library starts
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()

    def invoke(prepared):
        return session.run(None, {image.name: prepared})[0]

    dtypes = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    return ("onnxruntime", onnxruntime.__version__), dtypes[image.type], (0.0, 0), invoke


def _open_ncnn(path, weights, threads):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in IN_16_BITS:
        setattr(net.opt, option, False)
    if net.load_param(path) or net.load_model(weights):
        raise OSError("ncnn cannot open the model: -v shows the reason")
    (image,), (logits,) = net.input_names(), net.output_names()

    def invoke(prepared):
        extractor = net.create_extractor()
        # A copy: ncnn neither holds the array nor takes any distance between channels.
        extractor.input(image, ncnn.Mat(prepared[0]).clone())
        failed, output = extractor.extract(logits)
        if failed:
            raise OSError(f"ncnn cannot run the model: {logits} returns {failed}")
        return np.array(output).reshape(1, -1)

    return ("ncnn", ncnn.__version__), np.float32, (0.0, 0), invoke
