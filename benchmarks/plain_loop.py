"""The simplest loop that times a file: nothing of cct-export is in it.

``python -P benchmarks/plain_loop.py FILE SECONDS`` prints the nanoseconds of every run as JSON.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

WARM_UP_S = 0.5


def opened(path: str) -> Callable[[], object]:
    """Returns what runs ``path`` once on random pixels, on one thread."""
    random = np.random.default_rng(1)
    if path.endswith(".tflite"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
        (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
        pixels = random.uniform(0, 255, image["shape"]).astype(image["dtype"])

        def run() -> object:
            interpreter.set_tensor(image["index"], pixels)
            interpreter.invoke()
            return interpreter.get_tensor(logits["index"])

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (end,) = session.get_inputs()
    sizes = [size if isinstance(size, int) else 1 for size in end.shape]
    images = {end.name: random.uniform(0, 255, sizes).astype(np.float32)}
    return lambda: session.run(None, images)


def main(path: str, seconds: float) -> None:
    """Prints the times of all runs that begin within ``seconds``."""
    run = opened(path)
    end = time.perf_counter_ns() + WARM_UP_S * 1e9
    while time.perf_counter_ns() < end:
        run()
    times = []
    end = time.perf_counter_ns() + seconds * 1e9
    while (before := time.perf_counter_ns()) < end:
        run()
        times.append(time.perf_counter_ns() - before)
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
