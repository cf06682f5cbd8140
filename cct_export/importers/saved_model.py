"""SavedModels: the keras.io example as published on the Hugging Face Hub, and any other classifier.

A SavedModel is a program. Only if it consists of arithmetic alone is it run. If it has the weights
of a CCT, as Keras 2 saved them, and equal logits, it becomes one; else it is taken as it is.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidModel, MissingDependency
from cct_export.importers.equivalence import (
    logits,
    logits_agree,
    mlp_variants,
    probe_images,
    spec_from_shapes,
)
from cct_export.importers.functional import functional
from cct_export.importers.imported_model import (
    Arrays,
    ImportedModel,
    check_finite,
    check_options,
)
from cct_export.importers.restored import SIGNATURE, restored
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import check_declared_size, check_image
from cct_export.specs import GELUS, SAVED_MODEL_FILE, ImportSpec
from cct_export.untrusted import refusing

KIND = "SavedModel"
_VALUE = "VARIABLE_VALUE"
# The operators that Keras writes for image classifiers: arithmetic, shapes, variables, lists of a
# loop's tensors, random augmentation. None of them reads or writes a file, or runs other code.
_ALLOWED_OPERATORS = """
Abs Add AddN AddV2 All Any ArgMax ArgMin Assert AssignSubVariableOp AssignVariableOp AvgPool
BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd Bitcast BroadcastTo Cast Ceil
Concat ConcatV2 Const Conv2D Conv2DBackpropInput Cos Cumsum DepthToSpace DepthwiseConv2dNative
Einsum Elu EmptyTensorList EnsureShape Equal Erf Erfc Exp ExpandDims Expm1 Fill Floor FloorDiv
FloorMod FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN If
ImageProjectiveTransformV3 LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot
LogicalOr LogicalXor MatMul MatrixBandPart Max MaxPool Maximum Mean Min Minimum MirrorPad Mul
Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
PlaceholderWithDefault Pow Prod RandomStandardNormal RandomUniform RandomUniformInt Range Rank
ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear
ResizeNearestNeighbor ReverseV2 RngReadAndSkip RngSkip Round Rsqrt ScaleAndTranslate Select
SelectV2 Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToBatchND
SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall
StatelessIf StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg
StatelessRandomNormalV2 StatelessRandomUniformFullIntV2 StatelessRandomUniformIntV2
StatelessRandomUniformV2 StatelessRandomUniform StatelessWhile StopGradient StridedSlice Sub
Sum Tan Tanh TensorListElementShape TensorListFromTensor TensorListGetItem TensorListLength
TensorListPopBack TensorListPushBack TensorListReserve TensorListSetItem TensorListStack Tile
TopKV2 Transpose Unpack VarHandleOp VarIsInitializedOp Where While ZerosLike
"""


def load(folder: Path, options: ImportSpec) -> ImportedModel:
    """Returns the CCT in ``folder`` whose logits are the SavedModel's, else what it computes.

    Args:
        folder: has ``saved_model.pb`` and ``variables/``.
        options: ``heads`` and ``gelu`` must not be set.

    Raises:
        InvalidModel: damaged, no image classifier, or it has other operators than arithmetic.
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
        _check_repeatable(graph, folder)
        _check_operators(graph, folder)
        image = _image_shape(graph, folder)
        tables = _tables(graph, folder)
        arrays, reader = _weights(folder)
    check_finite(arrays, folder)
    images = probe_images(image)
    with refusing(InvalidModel, f"{folder} cannot be run"):
        whole = functional(restored(folder), str(folder))
        expected = logits(whole, images)
    for candidate in _candidates(_trainable(reader), tables, image):
        outputs = logits(candidate.model, images)
        if logits_agree(outputs, expected):
            difference = float(np.abs(outputs - expected).max())
            return replace(candidate, difference=difference, images=len(images))
    return ImportedModel.from_arrays(whole, KIND, arrays)


def _candidates(
    arrays: Arrays, tables: list[np.ndarray], image: tuple[int, int, int]
) -> Iterator[ImportedModel]:
    """Yields a CCT for each MLP and each constant that may be the table of positions.

    Args:
        arrays: the trainable weights in Keras' order, empty if they are not known.
        tables: what may be the positions.
        image: height, width and channels.
    """
    kernels = sum(array.ndim == 4 for array in arrays.values())
    items = list(arrays.items())
    choices: list[tuple[Arrays, tuple[str, ...]]] = [(arrays, ())]
    for table in tables:
        note = "positions are a constant of its graph, as in the first version of the example"
        choices.append((dict([*items[:kernels], ("positions", table), *items[kernels:]]), (note,)))
    for used, notes in choices:
        shapes = [array.shape for array in used.values()]
        try:
            any_mlp = spec_from_shapes(shapes, image, "cct_saved_model")
        except ValueError:
            continue
        for spec in mlp_variants(any_mlp, reversed(GELUS)):
            try:
                model = CCT(spec)
                model.set_weights(list(used.values()))
            except ValueError:
                continue
            kind = "Keras-2 SavedModel of the keras.io example"
            activation = "ReLU in the MLP" if spec.activation == "relu" else f"{spec.gelu} GELU"
            yield ImportedModel.from_arrays(model, kind, used, (*notes, activation))


def _graph(folder: Path) -> Any:
    """Returns the description of the graph, parsed but not loaded."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    with refusing(InvalidModel, f"{folder / SAVED_MODEL_FILE} cannot be read"):
        saved = SavedModel.FromString((folder / SAVED_MODEL_FILE).read_bytes())
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        raise InvalidModel(f"{folder} is not a SavedModel that TensorFlow 2 wrote")
    return saved.meta_graphs[0]


def _check_repeatable(graph: Any, folder: Path) -> None:
    """Refuses a program that does not compute the same for the same image."""
    outputs = graph.signature_def[SIGNATURE].outputs.values()
    calls = {tensor.name.partition(":")[0] for tensor in outputs}
    nodes = [node for node in graph.graph_def.node if node.name in calls]
    # A crop of Keras 2 has random numbers in a branch that is never taken.
    names = [node.attr["f"].func.name for node in nodes]
    operators = _operators(graph, names, without=("If", "StatelessIf"))
    if not any(operator.startswith(("Assign", "Random", "Rng")) for operator in operators):
        return
    if any("Random" in operator or operator.startswith("Rng") for operator in operators):
        raise InvalidModel(
            f"{folder} draws random numbers when it is run: augmentation was exported with it; "
            "export the .keras file, or the model without augmentation"
        )
    raise InvalidModel(
        f"{folder} assigns variables when it is run, so that its outputs depend on earlier images: "
        "export the .keras file, or the model without that"
    )


def _operators(graph: Any, names: Iterable[str], without: tuple[str, ...] = ()) -> set[str]:
    """Returns the operators of functions and of those that they call.

    Args:
        graph: of the SavedModel.
        names: of the functions.
        without: operators whose functions do not count.
    """
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    seen: set[str] = set()
    pending = list(names)
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
            if node.op in without:
                continue
            for value in node.attr.values():
                pending += [value.func.name, *(function.name for function in value.list.func)]
    return operators


def _check_operators(graph: Any, folder: Path) -> None:
    """Refuses a graph that could do more than compute when it is loaded or run.

    All functions that the loaded object could call are checked, and those that they call. The
    functions that write and restore checkpoints are not among them.
    """
    operators = _operators(graph, graph.object_graph_def.concrete_functions)
    refused = sorted(operators - set(_ALLOWED_OPERATORS.split()))
    kinds = {node.WhichOneof("kind") for node in graph.object_graph_def.nodes}
    refused += sorted(kinds & {"asset", "resource"})
    if refused:
        raise InvalidModel(
            f"{folder} is not run: it has what no image classifier needs "
            f"({', '.join(refused[:5])}); export the Keras model itself"
        )


def _image_shape(graph: Any, folder: Path) -> tuple[int, int, int]:
    inputs = list(graph.signature_def[SIGNATURE].inputs.values())
    shapes: list[tuple[Any, ...]] = [
        tuple(None if dim.size < 0 else dim.size for dim in tensor.tensor_shape.dim)
        for tensor in inputs
    ]
    check_image(shapes, str(folder))
    if len(shapes) != 1 or len(shapes[0]) != 4 or not all(shapes[0][1:]):
        raise InvalidModel(f"{folder} is not an image classifier: it takes {shapes or 'nothing'}")
    height, width, channels = shapes[0][1:]
    return height, width, channels


def _weights(folder: Path) -> tuple[Arrays, Any]:
    """Returns all floating-point weights by their keys, and the reader of the checkpoint."""
    from tensorflow import train

    with refusing(InvalidModel, f"{folder} has no readable weights"):
        reader = train.load_checkpoint(str(folder / "variables" / "variables"))
        shapes = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
        keys = [key for key in shapes if types[key].is_floating and "/.ATTRIBUTES/" in key]
        sizes = (int(np.prod(shapes[key], dtype=np.int64)) for key in keys)
        check_declared_size(4 * sum(sizes), folder)
        return {key: np.asarray(reader.get_tensor(key), np.float32) for key in keys}, reader


def _trainable(reader: Any) -> Arrays:
    """Returns the trainable weights in the order of Keras 2, by their names; empty if unknown."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        objects = TrackableObjectGraph.FromString(
            reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
        ).nodes
        root = {child.local_name: child.node_id for child in objects[0].children}
        children = objects[root["trainable_variables"]].children
        arrays = {}
        for child in sorted(children, key=lambda child: int(child.local_name)):
            (value,) = (a for a in objects[child.node_id].attributes if a.name == _VALUE)
            arrays[value.full_name] = np.asarray(
                reader.get_tensor(value.checkpoint_key), np.float32
            )
    except (KeyError, ValueError):  # Keras 3 or another program wrote it
        return {}
    return arrays


def _tables(graph: Any, folder: Path) -> list[np.ndarray]:
    """Returns the float matrices among the graph's constants: one may be the table of positions."""
    from tensorflow import make_ndarray

    bodies = [function.node_def for function in graph.graph_def.library.function]
    nodes = [node for body in (graph.graph_def.node, *bodies) for node in body]
    constants = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    # A single number in the file may stand for a tensor of any size.
    sizes = (math.prod(dim.size for dim in tensor.tensor_shape.dim) for tensor in constants)
    check_declared_size(4 * sum(sizes), folder)
    outside = [node.attr["value"].tensor for node in graph.graph_def.node if node.op == "Const"]
    arrays = [make_ndarray(tensor) for tensor in outside if 2 <= len(tensor.tensor_shape.dim) <= 3]
    return [
        np.reshape(array, array.shape[-2:])
        for array in arrays
        if array.dtype == np.float32 and array.size == np.prod(array.shape[-2:])
    ]
