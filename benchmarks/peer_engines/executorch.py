"""ExecuTorch with its XNNPACK backend; onnx2torch makes the PyTorch model of our ONNX file."""

from pathlib import Path

import numpy as np

# Which torchvision defines in C++, in wheels for the build of PyTorch that they are for. onnx2torch
# imports torchvision for models that detect objects; with another build that would fail.
OPERATORS = ("nms", "qnms")


def convert(source: Path, precision: str, images: np.ndarray, folder: Path) -> Path:
    """Returns the lowered program; for int8, quantized by ``XNNPACKQuantizer`` per channel."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.set_num_threads(1)
    model = _torch_model(source)
    example = (torch.from_numpy(images[:1]),)
    exported = torch.export.export(model, example)
    if precision == "int8":
        exported = torch.export.export(_quantized(exported, images), example)
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path = folder / f"{precision}.pte"
    path.write_bytes(program.to_executorch().buffer)
    return path


def parts(path: Path) -> list[Path]:
    """Returns the file."""
    return [path]


def _torch_model(source: Path) -> object:
    """Returns the model as onnx2torch makes it, with constants that can be exported.

    onnx2torch keeps shapes, bounds and weights as tensors: torch.export refuses the first two as
    depending on data, and the quantizer knows a dense layer by ``linear`` alone.
    """
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from onnx2torch import convert as from_onnx

    model = from_onnx(str(source)).eval()
    for node in list(model.graph.nodes):
        if node.op != "call_module":
            continue
        layer = model.get_submodule(node.target)
        kind = type(layer).__name__
        values = [_constant(model, other) for other in node.args[1:]]
        if kind in ("OnnxReshape", "OnnxSlice"):
            constants = (None if value is None else tuple(value.tolist()) for value in values)
            node.args = (node.args[0], *constants)
            node.op, node.target = "call_function", _reshape if kind == "OnnxReshape" else _slice
        elif kind == "OnnxMatMul" and values[0] is not None and values[0].ndim == 2:
            node.target = f"linear_{node.name}"
            dense = torch.nn.Linear(*values[0].shape, bias=False)
            dense.weight = torch.nn.Parameter(values[0].T.contiguous(), requires_grad=False)
            model.add_module(node.target, dense)
            node.args = node.args[:1]
        elif kind == "Sequential" and _is_relu(model, node.args[0]):
            # Max pooling of a map that is padded with -inf, which the program's file cannot hold.
            layer[0].constant_value = 0.0
    model.graph.eliminate_dead_code()
    model.recompile()
    return model.requires_grad_(False)


def _is_relu(model: object, node: object) -> bool:
    is_layer = node.op == "call_module"
    return is_layer and type(model.get_submodule(node.target)).__name__ == "ReLU"


def _constant(model: object, node: object) -> object:
    """Returns the tensor that a node stands for, None if it is computed."""
    if node is None or node.op != "get_attr":
        return None
    value = model
    for name in node.target.split("."):
        value = getattr(value, name)
    return value


def _reshape(values: object, shape: tuple[int, ...]) -> object:
    """As ONNX: zero keeps a size."""
    return values.reshape([size or values.shape[axis] for axis, size in enumerate(shape)])


def _slice(
    values: object,
    starts: tuple,
    ends: tuple,
    axes: tuple | None = None,
    steps: tuple | None = None,
) -> object:
    axes = axes or range(len(starts))
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        whole = (slice(None),) * (axis % values.ndim)
        values = values[(*whole, slice(start, end, step))]
    return values


def _quantized(exported: object, images: np.ndarray) -> object:
    """Returns the module after post-training quantization on the images."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(exported.module(), XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        for image in images:
            prepared(torch.from_numpy(image[np.newaxis]))
    return convert_pt2e(prepared)


class Session:
    """A loaded program, with one thread."""

    def __init__(self, path: Path, precision: str) -> None:
        import torch
        from executorch.extension.pybindings import _portable_lib
        from executorch.runtime import Runtime

        self._torch = torch
        # By default it takes every core.
        _portable_lib._unsafe_reset_threadpool(1)
        self._program = Runtime.get().load_program(path)
        self._method = self._program.load_method("forward")

    def prepare(self, image: np.ndarray) -> tuple:
        """Returns the inputs."""
        return (self._torch.from_numpy(image),)

    def run(self, inputs: tuple) -> np.ndarray:
        """Returns the logits."""
        return self._method.execute(inputs)[0].numpy()
