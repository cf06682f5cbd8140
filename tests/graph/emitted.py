"""Reads and runs emitted files, for the tests of formats and of quantization."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from cct_export.runtimes.litert_file import nodes_of, partitions


class FlatTensor(NamedTuple):
    """A tensor of a flatbuffer; ``scales`` is empty for floats."""

    name: str
    type: str
    shape: tuple[int, ...]
    scales: list[float]


class FlatOperator(NamedTuple):
    """An operator of a flatbuffer."""

    kind: str
    options: Any
    inputs: list[FlatTensor]
    output: FlatTensor


class Flatbuffer(NamedTuple):
    """A flatbuffer: its operators in order, all tensors, the input and the output."""

    operators: list[FlatOperator]
    tensors: list[FlatTensor]
    image: FlatTensor
    logits: FlatTensor


def _content(source):
    return source.read_bytes() if isinstance(source, Path) else source


def _names(kind):
    return {value: name for name, value in vars(kind).items() if not name.startswith("_")}


def read_tflite(source):
    """Reads a flatbuffer of bytes or of a path."""
    kinds, types = _names(schema.BuiltinOperator), _names(schema.TensorType)
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(_content(source)))
    (graph,) = model.subgraphs
    tensors = []
    for t in graph.tensors:
        scales = getattr(t.quantization, "scale", None)
        scales = [] if scales is None else list(scales)
        tensors.append(FlatTensor(t.name.decode(), types[t.type], tuple(t.shape), scales))
    operators = [
        FlatOperator(
            kinds[model.operatorCodes[o.opcodeIndex].builtinCode],
            o.builtinOptions,
            [tensors[i] for i in o.inputs if i >= 0],
            tensors[o.outputs[0]],
        )
        for o in graph.operators
    ]
    return Flatbuffer(operators, tensors, tensors[graph.inputs[0]], tensors[graph.outputs[0]])


def run_tflite(source, images):
    """Returns the logits as reals for pixels 0–255, passed in the type that the file takes."""
    runner = Interpreter(model_content=_content(source)).get_signature_runner("serving_default")
    (image,) = runner.get_input_details().values()
    (logits,) = runner.get_output_details().values()
    if image["dtype"] == np.int8:
        images = images.astype(np.int16) - 128
    outputs = [runner(image=pixels[None])["logits"] for pixels in images.astype(image["dtype"])]
    reals = np.concatenate(outputs).astype(np.float64)
    if logits["dtype"] == np.float32:
        return reals
    scale, zero_point = logits["quantization"]
    return (reals - zero_point) * scale


def partitions_of(content):
    """Returns how many partitions the XNNPACK delegate runs, and the operators it does not."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    nodes = nodes_of(interpreter)
    operators = sum(not node.is_partition for node in nodes)
    return sum(node.is_partition for node in nodes), operators - len(partitions(nodes))


def onnx_session(source):
    """Opens a graph of bytes or of a path."""
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def run_onnx(source, images, batched=False):
    """Returns the logits for pixels 0–255, computed image by image or as one batch."""
    session = onnx_session(source)
    type = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[session.get_inputs()[0].type]
    batches = [images] if batched else [image[None] for image in images]
    outputs = [session.run(["logits"], {"image": batch.astype(type)})[0] for batch in batches]
    return np.concatenate(outputs).astype(np.float64)


def read_onnx(source):
    """Reads a graph of bytes or of a path."""
    return onnx.load_from_string(_content(source))
