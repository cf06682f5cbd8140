"""What the arithmetic of this machine allows: the rate of one large matrix product."""

import statistics
import time

SIZE = 768
RUNS = 15


def rates(threads: int) -> dict[str, float]:
    """Measures ONNX Runtime's matrix product, the fastest there is for both types here.

    Args:
        threads: threads it may use.

    Returns:
        Multiply-accumulates per second, for ``float32`` and for ``int8`` (uint8 by int8).
    """
    return {name: SIZE**3 / _seconds(name, threads) for name in ("float32", "int8")}


def _seconds(name: str, threads: int) -> float:
    """Returns the median time of one product."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shape = (SIZE, SIZE)
    if name == "float32":
        kind, types = "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT)
        left, right = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    else:
        kind, types = "MatMulInteger", (TensorProto.UINT8, TensorProto.INT32)
        left = random.integers(0, 256, shape, np.uint8)
        right = random.integers(-128, 128, shape, np.int8)
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", types[0], shape)],
        [helper.make_tensor_value_info("y", types[1], shape)],
        [numpy_helper.from_array(right, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    times = []
    for _ in range(RUNS):
        before = time.perf_counter()
        session.run(None, {"a": left})
        times.append(time.perf_counter() - before)
    return statistics.median(times[3:])
