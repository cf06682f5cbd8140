"""A fake of LiteRT's benchmark_model: it runs the file, and prints as the tool would.

Nothing of this was recorded. Flags and formats are those of LiteRT's sources, tflite/tools/
benchmark (benchmark_model.cc, benchmark_tflite_model.cc) and tflite/tools/delegates. FAULT in
the environment says what goes wrong.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from cct_export.runtimes.litert_file import nodes_of, partitions

FAULT = os.environ.get("FAULT", "")
FLAGS = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
KNOWN = {
    "graph", "num_threads", "use_xnnpack", "use_gpu", "gpu_precision_loss_allowed", "use_nnapi",
    "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs", "input_layer",
    "input_layer_shape", "input_layer_value_files", "output_filepath",
    "report_peak_memory_footprint",
}  # fmt: skip
if FAULT == "old":
    KNOWN.remove("output_filepath")
if FAULT == "compiled":
    KNOWN.remove("use_xnnpack")


def info(line):
    print(f"INFO: {line}", flush=True)


def figures(times):
    values = np.sort(np.array(times))
    if len(set(times)) == 1:
        text = f"count={len(times)} curr={times[-1]}" + "(all same)" * (len(times) > 1)
    else:
        text = (
            f"count={len(times)} first={times[0]} curr={times[-1]} min={values[0]} "
            f"max={values[-1]} avg={np.mean(times):g} std={int(np.std(times))}"
        )
    rank = {p: values[len(values) * p // 100] for p in (5, 50, 95)}
    return f"{text} p5={rank[5]} median={rank[50]} p95={rank[95]}"


def run(interpreter, pixels, runs, least_s, most_s):
    info(
        f"Running benchmark for at least {runs} iterations and at least {least_s:g} seconds but "
        f"terminate if exceeding {most_s:g} seconds."
    )
    times, start = [], time.perf_counter()
    while (len(times) < runs or time.perf_counter() - start < least_s) and (
        time.perf_counter() - start <= most_s
    ):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        before = time.perf_counter_ns()
        interpreter.invoke()
        times.append((time.perf_counter_ns() - before) // 1000)
    info(f"{figures(times)}\n")
    return times


def open_interpreter():
    """Returns the interpreter, and prints how much of the graph the delegate took."""
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    xnnpack = FLAGS.get("use_xnnpack") == "true"
    interpreter = Interpreter(
        FLAGS["graph"],
        num_threads=int(FLAGS["num_threads"]),
        experimental_op_resolver_type=OpResolverType.AUTO if xnnpack else plain,
    )
    interpreter.allocate_tensors()
    if FLAGS.get("use_gpu") == "true":
        print("WARN: GPU acceleration is unsupported on this platform.", flush=True)
    if xnnpack:
        nodes = nodes_of(interpreter)
        total = sum(not node.is_partition for node in nodes)
        taken = total - 4 if FAULT == "partly" else len(partitions(nodes))
        kernels = len(nodes) - total
        if FAULT == "partly":  # a build for debugging prints more
            print(
                f"VERBOSE: Replacing {taken} out of {total} node(s) with delegate "
                f"(TfLiteXNNPackDelegate) node, yielding {kernels} partitions for subgraph 0 "
                "(main)."
            )
        how = (
            "completely executed by the delegate."
            if taken == total and kernels == 1
            else f"partially executed by the delegate w/ {kernels} delegate kernels."
        )
        info(f"Explicitly applied XNNPACK delegate, and the model graph will be {how}")
    return interpreter


def main():
    info("STARTING!")
    unknown = [f"--{name}={value}" for name, value in FLAGS.items() if name not in KNOWN]
    if unknown:
        print("WARN: Unconsumed cmdline flags: " + " ".join(unknown), flush=True)
    info("Log parameter values verbosely: [0]")
    info(f"Graph: [{FLAGS['graph']}]")
    if FAULT == "crash" and FLAGS["num_threads"] == "2":
        os.kill(os.getpid(), signal.SIGSEGV)
    if FAULT == "garbled":
        print("what is this")
        return 0
    if FAULT == "refused":
        print("ERROR: Failed to apply XNNPACK delegate.\nERROR: Benchmarking failed.")
        return 1
    if FAULT == "hang":
        time.sleep(300)
    start = time.perf_counter_ns()
    info(f"Loaded model {FLAGS['graph']}")
    interpreter = open_interpreter()
    init_us = (time.perf_counter_ns() - start) // 1000
    info(f"The input model file size (MB): {Path(FLAGS['graph']).stat().st_size / 1e6:g}")
    info(f"Initialized session in {init_us / 1e3:g}ms.")
    image = interpreter.get_input_details()[0]
    pixels = np.fromfile(FLAGS["input_layer_value_files"].partition(":")[2], image["dtype"])
    pixels = pixels.reshape(image["shape"])
    most_s = float(FLAGS["max_secs"])
    warm = run(
        interpreter, pixels, int(FLAGS["warmup_runs"]), float(FLAGS["warmup_min_secs"]), most_s
    )
    times = run(interpreter, pixels, int(FLAGS["num_runs"]), float(FLAGS["min_secs"]), most_s)
    if "output_filepath" in FLAGS and FAULT != "old":
        logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        (logits[:, ::-1] if FAULT == "wrong" else logits).tofile(FLAGS["output_filepath"])
    info(
        f"Inference timings in us: Init: {init_us}, First inference: {warm[0]}, "
        f"Warmup (avg): {np.mean(warm):g}, Inference (avg): {np.mean(times):g}"
    )
    info(
        "Note: as the benchmark tool itself affects memory footprint, the following is only "
        "APPROXIMATE to the actual memory footprint of the model at runtime. Take the information "
        "at your discretion."
    )
    info("Memory footprint delta from the start of the tool (MB): init=4.5 overall=5.25")
    if FLAGS.get("report_peak_memory_footprint") == "true":
        info("Overall peak memory footprint (MB) via periodic monitoring: 11.5")
    return 0


sys.exit(main())
