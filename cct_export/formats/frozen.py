"""A Keras model as one flat TensorFlow graph with constant weights, for the stock converters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from cct_export.errors import ConversionError
from cct_export.graph.plan import Plan
from cct_export.stock_tools import quiet_tools

# Nodes of a frozen graph, with a number; no layer is called that.
_OUTPUT = "cct_export.output."
Substitute = Callable[..., Any]


def frozen_graph(model: keras.Model, batch: int | None) -> Any:
    """Traces a model at inference and turns its weights into constants.

    Nothing is called in the graph: a function in it, such as TensorFlow's ``silu`` or the compiled
    one that Keras makes for grouped convolutions, is what tf2onnx cannot enter. Loops remain.
    Gradients are left out: with one, such as that of ``silu``, TensorFlow cannot save the graph,
    and the TFLite converter then silently leaves the signature out.

    Args:
        model: see ``traced.inference_model``, which made it.
        batch: images per call, None for any number.

    Returns:
        A ``GraphDef`` from ``image`` float32 ``(batch, H, W, C)``, 0–255, to ``output_nodes``.

    Raises:
        ConversionError: Keras runs on another backend than TensorFlow, or the model has operators
            that only training needs.
    """
    if keras.backend.backend() != "tensorflow":
        raise ConversionError(
            f"conversion needs Keras on TensorFlow, not on {keras.backend.backend()}: "
            "start the process with KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def call(image: Any) -> Any:
        outputs = keras.tree.flatten(model(image, training=False))
        return [tf.identity(each, f"{_OUTPUT}{index}") for index, each in enumerate(outputs)]

    shape = (batch, *model.inputs[0].shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32, name=Plan.INPUT)]
    with quiet_tools(), _functions_inline():
        traced = tf.compat.v1.wrap_function(call, signature)
    frozen = convert_variables_to_constants_v2(
        traced, lower_control_flow=False, aggressive_inlining=True
    )
    graph = frozen.graph.as_graph_def()
    random = sorted({node.op for node in graph.node if "Random" in node.op})
    if random:
        raise ConversionError(
            f"operators that draw random numbers remain: {', '.join(random)}: leave the layer out "
            "that has them"
        )
    for node in graph.node:
        node.attr.pop("_gradient_op_type", None)
    return graph


@contextmanager
def _functions_inline() -> Iterator[None]:
    """Lets a ``tf.function`` that is called while tracing record its operations, not a call."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def output_nodes(graph: Any) -> list[str]:
    """Returns the names of the nodes that are the outputs of a frozen graph, in their order."""
    names = [node.name for node in graph.node if node.name.startswith(_OUTPUT)]
    return sorted(names, key=lambda name: int(name.removeprefix(_OUTPUT)))


def function_of(graph: Any, names: Sequence[str]) -> Any:
    """Returns the graph as a ``tf.function`` with a fixed signature.

    Args:
        graph: made by ``frozen_graph``.
        names: of its outputs.

    Returns:
        From ``image`` to a dict of outputs by these names.
    """
    import tensorflow as tf

    (image,) = (node for node in graph.node if node.name == Plan.INPUT)
    shape = tf.TensorShape(image.attr["shape"].shape)

    nodes = [f"{node}:0" for node in output_nodes(graph)]

    def call(image: Any) -> Any:
        outputs = tf.graph_util.import_graph_def(graph, {Plan.INPUT: image}, nodes, name="")
        return dict(zip(names, outputs, strict=True))

    signature = [tf.TensorSpec(shape, tf.float32, name=Plan.INPUT)]
    return tf.function(call, input_signature=signature)


def substituted(graph: Any, substitutes: Mapping[str, Substitute]) -> Any:
    """Returns a graph with operations that a format lacks made of others.

    Args:
        graph: a ``GraphDef``.
        substitutes: by type of operation: a function from the ``tf.Operation`` and its inputs to
            its output.
    """
    import tensorflow as tf

    if not any(node.op in substitutes for node in graph.node):
        return graph
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(graph, name="")
    result = tf.compat.v1.GraphDef(versions=graph.versions, library=graph.library)
    for node in graph.node:
        if node.op in substitutes:
            operation = whole.get_operation_by_name(node.name)
            result.node.extend(_nodes(operation, substitutes[node.op], list(node.input)))
        else:
            result.node.append(node)
    return result


def _nodes(operation: Any, substitute: Substitute, inputs: list[str]) -> Iterator[Any]:
    """Yields the nodes that compute what ``operation`` does; the last one has its name."""
    import tensorflow as tf

    with tf.Graph().as_default() as part:
        placeholders = [
            tf.compat.v1.placeholder(tensor.dtype, tensor.shape) for tensor in operation.inputs
        ]
        output = tf.identity(substitute(operation, *placeholders))
    names = {tensor.op.name: name for tensor, name in zip(placeholders, inputs, strict=False)}
    own = {node.name: f"{operation.name}/{node.name}" for node in part.get_operations()}
    own[output.op.name] = operation.name
    for node in part.as_graph_def().node:
        if node.name in names:
            continue
        for index, name in enumerate(node.input):
            source, _, place = name.partition(":")
            node.input[index] = names.get(source) or own[source] + (place and f":{place}")
        node.name = own[node.name]
        yield node


# What operations are made of


def resized_by_matrices(operation: Any, images: Any, *_: Any) -> Any:
    """Resizes ``(N, H, W, C)`` by a constant matrix for each axis, for filters that formats lack.

    A resize is linear and works on one axis after the other, so its matrices are what the
    operation itself makes of an identity.

    Args:
        operation: of a type in ``RESIZES``, with sizes that are known.
        images: what it resizes.
    """
    import tensorflow as tf

    rows, columns = (tf.constant(matrix) for matrix in _matrices(operation))
    _, height, width, channels = images.shape
    resized = tf.matmul(rows, tf.reshape(images, (-1, height, width * channels)))
    resized = tf.matmul(columns, tf.reshape(resized, (-1, width, channels)))
    return tf.reshape(resized, (-1, rows.shape[0], columns.shape[0], channels))


def _matrices(operation: Any) -> list[np.ndarray]:
    """Returns the matrices ``(new height, height)`` and ``(new width, width)`` of a resize."""
    import tensorflow as tf

    sizes, new_sizes = operation.inputs[0].shape[1:3], operation.outputs[0].shape[1:3]
    if not (sizes.is_fully_defined() and new_sizes.is_fully_defined()):
        raise ConversionError(
            f"{operation.name} resizes to a size that is known at run time only: give it numbers"
        )
    names = [argument.name for argument in operation.op_def.input_arg]
    with tf.compat.v1.Session(graph=operation.graph) as session:
        (image,) = (op for op in operation.graph.get_operations() if op.name == Plan.INPUT)
        # Keras computes the scale of the shape.
        pixels = np.zeros([size or 1 for size in image.outputs[0].shape], np.float32)
        tensors = dict(zip(names[1:], operation.inputs[1:], strict=True))
        values = session.run(tensors, {image.outputs[0]: pixels})
    values["size"] = np.asarray(new_sizes, np.int32)
    attributes = {
        attribute.name: operation.get_attr(attribute.name)
        for attribute in operation.op_def.attr
        if attribute.name != "T"
    }
    # The other axis has one pixel, which stays one.
    neutral = {"size": 1, "scale": 1.0, "translation": 0.0}
    matrices = []
    for axis, size in enumerate(sizes):
        arguments = {
            name: np.asarray([value[axis], neutral[name]], value.dtype)
            for name, value in values.items()
        }
        identity = np.eye(size, dtype=np.float32).reshape(1, size, 1, size)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            resize = getattr(tf.raw_ops, operation.type)
            resized = session.run(resize(images=identity, **arguments, **attributes))
        matrices.append(resized[0, :, 0, :])
    return matrices


def erf_by_exp(operation: Any, x: Any) -> Any:
    """Returns erf(x) to 1.5e-7: Abramowitz and Stegun, Handbook, formula 7.1.26."""
    import tensorflow as tf

    t = 1 / (1 + 0.3275911 * tf.abs(x))
    polynomial = 0.0 * t
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + coefficient) * t
    return tf.sign(x) * (1 - polynomial * tf.exp(-x * x))


def erfc_by_erf(operation: Any, x: Any) -> Any:
    """Returns 1 − erf(x), which exact GELU has."""
    import tensorflow as tf

    return 1 - tf.math.erf(x)


def expm1_by_exp(operation: Any, x: Any) -> Any:
    """Returns exp(x) − 1."""
    import tensorflow as tf

    return tf.exp(x) - 1


def log1p_by_log(operation: Any, x: Any) -> Any:
    """Returns log(1 + x)."""
    import tensorflow as tf

    return tf.math.log(1 + x)


def negated_by_product(operation: Any, x: Any) -> Any:
    """Returns −x as a product, which TFLite also has in integers.

    That in an exact GELU, which multiplies by erfc(−x / √2), stays: TFLite has GELU as a whole.
    """
    import tensorflow as tf

    following = operation.outputs[0].consumers()
    last = [consumer for next in following for consumer in next.outputs[0].consumers()]
    if any(consumer.type == "Erfc" for consumer in following + last):
        return tf.negative(x)
    return -1.0 * x


def squared_difference_by_product(operation: Any, x: Any, y: Any) -> Any:
    """Returns (x − y)² as a product, which TFLite also has in 16 bits."""
    difference = x - y
    return difference * difference


RESIZES: dict[str, Substitute] = dict.fromkeys(
    ("ScaleAndTranslate", "ResizeBicubic", "ResizeArea"), resized_by_matrices
)
# What formats lack, also in integers.
SUBSTITUTES: dict[str, dict[str, Substitute]] = {
    "tflite": {
        **RESIZES,
        "Neg": negated_by_product,
        "SquaredDifference": squared_difference_by_product,
    },
    "onnx": {
        **RESIZES,
        "Erfc": erfc_by_erf,
        "Expm1": expm1_by_exp,
        "Log1p": log1p_by_log,
    },
}
# What TFLite's converter recognizes as a part of a whole, such as an exact GELU by its Erf, and
# lacks elsewhere.
LAST_RESORTS: dict[str, Substitute] = {"Erf": erf_by_exp}
