"""A Keras-2 SavedModel of the keras.io example, as published on the Hugging Face Hub.

A SavedModel is a program. Its weights are read from the checkpoint in it, without running anything;
it is then run beside the model they give, if it consists of nothing but arithmetic.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidModel, MissingDependency
from cct_export.importers.foreign import (
    Arrays,
    Foreign,
    check_finite,
    check_options,
    of_arrays,
)
from cct_export.importers.lookalike import agrees, logits, probes, spec_of
from cct_export.model.cct import CCT
from cct_export.model.untrusted import check_declared
from cct_export.specs import GELUS, ImportSpec

FILE = "saved_model.pb"
_SIGNATURE = "serving_default"
_VALUE = "VARIABLE_VALUE"
# What Keras 2 writes for a CCT: arithmetic, shapes, its variables, and augmentation's random state.
_HARMLESS = """
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


def load(folder: Path, options: ImportSpec) -> Foreign:
    """Returns the CCT in ``folder``, compared with the SavedModel itself.

    Args:
        folder: has ``saved_model.pb`` and ``variables/``.
        options: nothing of them is left open by such a folder.

    Raises:
        InvalidModel: damaged, no CCT of the example's kind, or it computes something else.
        InvalidRequest: an option that does nothing here.
        MissingDependency: TensorFlow is not installed.
    """
    check_options(
        folder,
        options,
        heads="the shapes of its weights tell the heads",
        gelu="its own logits tell the GELU",
    )
    if find_spec("tensorflow") is None:
        raise MissingDependency.of("tensorflow", "tensorflow")
    graph = _graph(folder)
    _check_harmless(graph, folder)
    image = _image_shape(graph, folder)
    arrays = _variables(folder)
    check_finite(arrays, folder)
    images = probes(image)
    wanted = _run(folder, images)
    best = np.inf
    for kind, model, used, note in _candidates(arrays, _tables(graph), image, folder):
        found = logits(model, images)
        if found.shape == wanted.shape:
            best = min(best, float(np.abs(found - wanted).max()))
        if agrees(found, wanted):
            made = of_arrays(model, kind, used, note)
            return replace(made, difference=best, images=len(images))
    raise InvalidModel(
        f"{folder} computes something else than the keras.io example with these weights: its "
        f"logits differ by {best:.2g}"
    )


def _candidates(
    arrays: Arrays, tables: list[np.ndarray], image: tuple[int, int, int], folder: Path
) -> Iterator[tuple[str, CCT, Arrays, tuple[str, ...]]]:
    """Yields the CCTs that may be meant: the file says neither its GELU nor what a constant is."""
    kind = "Keras-2 SavedModel of the keras.io example"
    weights = list(arrays.values())
    kernels = sum(array.ndim == 4 for array in weights)
    choices: list[tuple[Arrays, tuple[str, ...]]] = [(arrays, ())]
    for table in tables:
        names = list(arrays)
        before = {name: arrays[name] for name in names[:kernels]}
        after = {name: arrays[name] for name in names[kernels:]}
        note = "positions are a constant of its graph, as the example's code first had it"
        choices.append((before | {"positions": table} | after, (note,)))
    for used, said in choices:
        for gelu in reversed(GELUS):
            try:
                spec = spec_of([array.shape for array in used.values()], image, "cct_saved_model")
                model = CCT(replace(spec, gelu=gelu))
                model.set_weights(list(used.values()))
            except ValueError as error:
                if not tables:
                    raise InvalidModel(
                        f"{folder} does not hold the keras.io example's weights: {error}"
                    ) from error
                continue
            yield kind, model, used, (*said, f"{gelu} GELU")


def _graph(folder: Path) -> Any:
    """Returns the description of the graph, parsed and not loaded."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        saved = SavedModel.FromString((folder / FILE).read_bytes())
    except (OSError, DecodeError) as error:
        raise InvalidModel(f"{folder / FILE} cannot be read: {error}") from error
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        raise InvalidModel(f"{folder} is not a SavedModel that Keras 2 wrote")
    return saved.meta_graphs[0]


def _check_harmless(graph: Any, folder: Path) -> None:
    """Refuses what could do more than compute when it is loaded or run.

    Checked are all functions that the loaded object could call, and those that they call. What
    writes and restores checkpoints is called by none of them.
    """
    functions = {one.signature.name: one for one in graph.graph_def.library.function}
    seen: set[str] = set()
    left = list(graph.object_graph_def.concrete_functions)
    used: set[str] = set()
    while left:
        name = left.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            if node.op in functions:
                left.append(node.op)
            else:
                used.add(node.op)
            for value in node.attr.values():
                left += [value.func.name, *(one.name for one in value.list.func)]
    others = sorted(used - set(_HARMLESS.split()))
    kinds = {node.WhichOneof("kind") for node in graph.object_graph_def.nodes}
    others += sorted(kinds & {"asset", "resource", "captured_tensor"})
    if others:
        raise InvalidModel(
            f"{folder} is not run: it has what no CCT needs ({', '.join(others[:5])})"
        )


def _image_shape(graph: Any, folder: Path) -> tuple[int, int, int]:
    inputs = list(graph.signature_def[_SIGNATURE].inputs.values())
    shapes = [tuple(dim.size for dim in one.tensor_shape.dim) for one in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or min(shapes[0][1:]) < 1:
        raise InvalidModel(f"{folder} is no image classifier: it takes {shapes or 'nothing'}")
    height, width, channels = shapes[0][1:]
    return height, width, channels


def _variables(folder: Path) -> dict[str, np.ndarray]:
    """Returns the trainable weights in Keras' order, by their full names."""
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        shapes = reader.get_variable_to_shape_map()
        objects = TrackableObjectGraph.FromString(
            reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
        ).nodes
        root = {child.local_name: child.node_id for child in objects[0].children}
        listed = objects[root["trainable_variables"]].children
        found = {}
        for child in sorted(listed, key=lambda one: int(one.local_name)):
            (value,) = (a for a in objects[child.node_id].attributes if a.name == _VALUE)
            found[value.full_name] = value.checkpoint_key
        sizes = (int(np.prod(shapes[key], dtype=np.int64)) for key in found.values())
        check_declared(4 * sum(sizes), folder)
        return {name: np.asarray(reader.get_tensor(key), np.float32) for name, key in found.items()}
    except (KeyError, ValueError, IndexError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidModel(f"{folder} has no readable weights of Keras 2: {reason}") from error


def _tables(graph: Any) -> list[np.ndarray]:
    """Returns the constants that may be a table of positions: float matrices of the graph."""
    from tensorflow import make_ndarray

    tensors = [node.attr["value"].tensor for node in graph.graph_def.node if node.op == "Const"]
    arrays = [make_ndarray(one) for one in tensors if 2 <= len(one.tensor_shape.dim) <= 3]
    return [
        np.reshape(array, array.shape[-2:])
        for array in arrays
        if array.dtype == np.float32 and array.size == np.prod(array.shape[-2:])
    ]


def _run(folder: Path, images: np.ndarray) -> np.ndarray:
    """Returns the logits that the SavedModel itself gives for ``images``."""
    import tensorflow as tf

    try:
        call = tf.saved_model.load(str(folder)).signatures[_SIGNATURE]
        (name,) = call.structured_input_signature[1]
        size = call.structured_input_signature[1][name].shape[0] or len(images)
        parts = []
        for start in range(0, len(images) - size + 1, size):
            batch = tf.constant(images[start : start + size])
            (found,) = call(**{name: batch}).values()
            parts.append(found.numpy())
        return np.concatenate(parts)
    # TensorFlow raises whatever its loaders raise: every kind means that it cannot be run.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidModel(f"{folder} cannot be run: {reason}") from error
