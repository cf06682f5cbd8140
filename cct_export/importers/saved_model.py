"""A Keras-2 SavedModel of the keras.io example, as published on the Hugging Face Hub.

A SavedModel is a program. Its weights are read from the checkpoint in it, without executing
anything; only if the program consists of arithmetic alone is it run, to compare logits.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidModel, MissingDependency
from cct_export.importers.equivalence import (
    logits,
    logits_agree,
    probe_images,
    spec_from_shapes,
)
from cct_export.importers.imported_model import (
    Arrays,
    ImportedModel,
    check_finite,
    check_options,
)
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import check_declared_size
from cct_export.specs import GELUS, SAVED_MODEL_FILE, ImportSpec
from cct_export.untrusted import refusing

_SIGNATURE = "serving_default"
_VALUE = "VARIABLE_VALUE"
# The operators that Keras 2 writes for a CCT: arithmetic, shapes, variables, random augmentation.
_ALLOWED_OPERATORS = """
Abs Add AddN AddV2 All Any ArgMax Assert AssignSubVariableOp AssignVariableOp AvgPool
BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd Bitcast BroadcastTo Cast Concat ConcatV2 Const
Conv2D Cumsum Einsum Equal Erf Erfc Exp ExpandDims Fill Floor FloorDiv FloorMod Gather
GatherNd GatherV2 Greater GreaterEqual Identity IdentityN If ImageProjectiveTransformV3 Less
LessEqual Log LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool Maximum Mean Min Minimum Mul
Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
PlaceholderWithDefault Pow Prod RandomStandardNormal RandomUniform RandomUniformInt Range Rank
ReadVariableOp RealDiv Relu Reshape ResizeBilinear ReverseV2 RngReadAndSkip RngSkip Round Rsqrt
Select SelectV2 Shape Size Slice Softmax Split SplitV Sqrt Square SquaredDifference Squeeze
StatefulPartitionedCall StatelessIf StatelessRandomGetAlg StatelessRandomGetKeyCounter
StatelessRandomGetKeyCounterAlg StatelessRandomUniformFullIntV2 StatelessRandomUniformIntV2
StatelessRandomUniformV2 StatelessRandomUniform StatelessWhile StopGradient StridedSlice Sub
Sum Tanh Tile Transpose Unpack VarHandleOp VarIsInitializedOp Where While ZerosLike
"""


def load(folder: Path, options: ImportSpec) -> ImportedModel:
    """Returns the CCT in ``folder`` after comparing its logits with the SavedModel's.

    Args:
        folder: has ``saved_model.pb`` and ``variables/``.
        options: ``heads`` and ``gelu`` must not be set.

    Raises:
        InvalidModel: damaged, not a CCT like the example's, or it computes something else.
        InvalidRequest: an option without effect.
        MissingDependency: TensorFlow is not installed.
    """
    check_options(
        folder,
        options,
        heads="the heads follow from the shapes of its weights",
        gelu="the GELU follows from its logits",
    )
    if find_spec("tensorflow") is None:
        raise MissingDependency.of("tensorflow", "tensorflow")
    with refusing(InvalidModel, f"{folder} is not a SavedModel that can be read"):
        graph = _graph(folder)
        _check_operators(graph, folder)
        image = _image_shape(graph, folder)
        tables = _tables(graph, folder)
        arrays = _variables(folder)
    check_finite(arrays, folder)
    images = probe_images(image)
    expected = _run(folder, images)
    difference = np.inf
    for candidate in _candidates(arrays, tables, image, folder):
        outputs = logits(candidate.model, images)
        if outputs.shape == expected.shape:
            difference = min(difference, float(np.abs(outputs - expected).max()))
        if logits_agree(outputs, expected):
            return replace(candidate, difference=difference, images=len(images))
    raise InvalidModel(
        f"{folder} computes something else than the keras.io example with these weights: its "
        f"logits differ by {difference:.2g}"
    )


def _candidates(
    arrays: Arrays, tables: list[np.ndarray], image: tuple[int, int, int], folder: Path
) -> Iterator[ImportedModel]:
    """Yields a CCT for each GELU and each constant that may be the table of positions."""
    kind = "Keras-2 SavedModel of the keras.io example"
    kernels = sum(array.ndim == 4 for array in arrays.values())
    items = list(arrays.items())
    choices: list[tuple[Arrays, tuple[str, ...]]] = [(arrays, ())]
    for table in tables:
        note = "positions are a constant of its graph, as in the first version of the example"
        choices.append((dict([*items[:kernels], ("positions", table), *items[kernels:]]), (note,)))
    for used, notes in choices:
        for gelu in reversed(GELUS):
            try:
                shapes = [array.shape for array in used.values()]
                spec = spec_from_shapes(shapes, image, "cct_saved_model")
                model = CCT(replace(spec, gelu=gelu))
                model.set_weights(list(used.values()))
            except ValueError as error:
                if not tables:
                    raise InvalidModel(
                        f"{folder} does not hold the keras.io example's weights: {error}"
                    ) from error
                continue
            yield ImportedModel.from_arrays(model, kind, used, (*notes, f"{gelu} GELU"))


def _graph(folder: Path) -> Any:
    """Returns the description of the graph, parsed but not loaded."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    with refusing(InvalidModel, f"{folder / SAVED_MODEL_FILE} cannot be read"):
        saved = SavedModel.FromString((folder / SAVED_MODEL_FILE).read_bytes())
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        raise InvalidModel(f"{folder} is not a SavedModel that Keras 2 wrote")
    return saved.meta_graphs[0]


def _check_operators(graph: Any, folder: Path) -> None:
    """Refuses a graph that could do more than compute when it is loaded or run.

    All functions that the loaded object could call are checked, and those that they call. The
    functions that write and restore checkpoints are not among them.
    """
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    seen: set[str] = set()
    pending = list(graph.object_graph_def.concrete_functions)
    operators: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            if node.op in functions:
                pending.append(node.op)
            else:
                operators.add(node.op)
            for value in node.attr.values():
                pending += [value.func.name, *(function.name for function in value.list.func)]
    refused = sorted(operators - set(_ALLOWED_OPERATORS.split()))
    kinds = {node.WhichOneof("kind") for node in graph.object_graph_def.nodes}
    refused += sorted(kinds & {"asset", "resource", "captured_tensor"})
    if refused:
        raise InvalidModel(
            f"{folder} is not run: it has what no CCT needs ({', '.join(refused[:5])})"
        )


def _image_shape(graph: Any, folder: Path) -> tuple[int, int, int]:
    inputs = list(graph.signature_def[_SIGNATURE].inputs.values())
    shapes = [tuple(dim.size for dim in tensor.tensor_shape.dim) for tensor in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or min(shapes[0][1:]) < 1:
        raise InvalidModel(f"{folder} is not an image classifier: it takes {shapes or 'nothing'}")
    height, width, channels = shapes[0][1:]
    return height, width, channels


def _variables(folder: Path) -> dict[str, np.ndarray]:
    """Returns the trainable weights in Keras' order, by their full names."""
    from tensorflow import train
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    with refusing(InvalidModel, f"{folder} has no readable weights of Keras 2"):
        reader = train.load_checkpoint(str(folder / "variables" / "variables"))
        shapes = reader.get_variable_to_shape_map()
        objects = TrackableObjectGraph.FromString(
            reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
        ).nodes
        root = {child.local_name: child.node_id for child in objects[0].children}
        children = objects[root["trainable_variables"]].children
        keys = {}
        for child in sorted(children, key=lambda child: int(child.local_name)):
            (value,) = (a for a in objects[child.node_id].attributes if a.name == _VALUE)
            keys[value.full_name] = value.checkpoint_key
        sizes = (int(np.prod(shapes[key], dtype=np.int64)) for key in keys.values())
        check_declared_size(4 * sum(sizes), folder)
        return {name: np.asarray(reader.get_tensor(key), np.float32) for name, key in keys.items()}


def _tables(graph: Any, folder: Path) -> list[np.ndarray]:
    """Returns the float matrices among the graph's constants: one may be the table of positions."""
    from tensorflow import make_ndarray

    constants = [node.attr["value"].tensor for node in graph.graph_def.node if node.op == "Const"]
    tensors = [tensor for tensor in constants if 2 <= len(tensor.tensor_shape.dim) <= 3]
    # A single number in the file may stand for a tensor of any size.
    sizes = (math.prod(dim.size for dim in tensor.tensor_shape.dim) for tensor in tensors)
    check_declared_size(4 * sum(sizes), folder)
    arrays = list(map(make_ndarray, tensors))
    return [
        np.reshape(array, array.shape[-2:])
        for array in arrays
        if array.dtype == np.float32 and array.size == np.prod(array.shape[-2:])
    ]


def _run(folder: Path, images: np.ndarray) -> np.ndarray:
    """Returns the logits of the SavedModel itself for ``images``."""
    import tensorflow as tf

    try:
        call = tf.saved_model.load(str(folder)).signatures[_SIGNATURE]
        (name,) = call.structured_input_signature[1]
        size = call.structured_input_signature[1][name].shape[0] or len(images)
        batches = []
        for start in range(0, len(images) - size + 1, size):
            batch = tf.constant(images[start : start + size])
            (outputs,) = call(**{name: batch}).values()
            batches.append(outputs.numpy())
        return np.concatenate(batches)
    # TensorFlow's loaders raise any kind of exception; in each case it cannot be run.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidModel(f"{folder} cannot be run: {reason}") from error
