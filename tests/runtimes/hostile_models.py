"""Small files that an engine accepts and should not run: loops without end, and much memory."""

import numpy as np

SHAPE = (1, 8, 8, 3)
FOREVER = 2**62


def _saved(path, nodes, **constants):
    """Writes an ``.onnx`` file whose last node makes ``last`` of the image ``x``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    pool = helper.make_node("ReduceMean", ["last"], ["y"], axes=[1, 2], keepdims=0)
    graph = helper.make_graph(
        [*nodes, pool],
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _loop(*body):
    """Returns a Loop whose ``body`` makes the condition ``go`` and the value ``after``."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        body,
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", ["count", "yes", "x"], ["last"], body=graph)


def endless_onnx(path):
    """Writes a loop of 2^62 steps."""
    from onnx import helper

    go = helper.make_node("Identity", ["going"], ["go"])
    add = helper.make_node("Add", ["before", "before"], ["after"])
    return _saved(path, [_loop(go, add)], count=FOREVER, yes=True)


def endless_for_bright_onnx(path):
    """Writes a loop that ends at once for a black image, and never for a bright one."""
    from onnx import helper

    mean = helper.make_node("ReduceMean", ["before"], ["mean"], keepdims=0)
    go = helper.make_node("Greater", ["mean", "one"], ["go"])
    keep = helper.make_node("Identity", ["before"], ["after"])
    return _saved(path, [_loop(mean, go, keep)], count=FOREVER, yes=True, one=np.float32(1))


def huge_onnx(path):
    """Writes a constant of 5.6 GB, in 405 bytes."""
    from onnx import helper

    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"], axes=[0], keepdims=0),
        helper.make_node("Add", ["x", "mean"], ["last"]),
    ]
    return _saved(path, nodes, size=np.array([1_400_000_000]))


def with_sizes_onnx(path, *, image, rows, classes):
    """Writes a graph that is honest about its image and makes zeros of ``(rows, classes)``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    pool = helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)
    expand = helper.make_node("Expand", ["mean", "sizes"], ["y"])
    graph = helper.make_graph(
        [pool, expand],
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("rows", "classes"))],
        [numpy_helper.from_array(np.array([rows, classes]), "sizes")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _converted(path, function):
    import tensorflow as tf

    specification = tf.TensorSpec(SHAPE, tf.float32)
    concrete = tf.function(function).get_concrete_function(specification)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    path.write_bytes(converter.convert())
    return path


def endless_tflite(path):
    """Writes a loop whose condition always holds."""
    import tensorflow as tf

    def function(image):
        def body(step, value):
            return step, tf.abs(value) + 1

        # True for any input, including NaN: a new input buffer is not cleared.
        start = tf.reduce_sum(tf.clip_by_value(image, 0, 1))
        is_running = lambda step, _: tf.logical_not(step > 1e38)  # noqa: E731
        _, value = tf.while_loop(is_running, body, [start, image])
        return tf.reduce_mean(value, (1, 2))

    return _converted(path, function)


def huge_tflite(path):
    """Writes a tensor of 6 GB, whose size follows from the image."""
    import tensorflow as tf

    def function(image):
        rows = tf.cast(tf.clip_by_value(tf.reduce_max(image), 0, 1), tf.int32) + 1_499_999
        huge = tf.fill(tf.stack([rows, 1000]), tf.reduce_mean(image))
        return tf.reduce_mean(image, (1, 2)) + tf.reduce_max(huge)

    return _converted(path, function)
