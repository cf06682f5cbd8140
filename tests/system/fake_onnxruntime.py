"""A fake of onnxruntime_perf_test: it runs the file, and prints and writes as the tool would.

Nothing of this was recorded. Flags and formats are those of ONNX Runtime's sources,
onnxruntime/test/perftest (command_args_parser.cc, performance_runner.cc).
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

WITH_VALUE = ("-e", "-x", "-y", "-f", "-C", "-i", "-r", "-t")


def parse(arguments):
    flags, positional, rest = {}, [], iter(arguments)
    for argument in rest:
        if argument.startswith("-"):
            flags[argument] = next(rest) if argument in WITH_VALUE else ""
        else:
            positional.append(argument)
    return flags, *positional


def main():
    flags, model, results = parse(sys.argv[1:])
    if flags["-e"] != "cpu":
        print(f"{flags['-e'].upper()} is not supported in this build", file=sys.stderr)
        return 255
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(flags["-x"])
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options)
    created_s = time.perf_counter() - start
    image = session.get_inputs()[0]
    name, _, size = flags.get("-f", ":1").partition(":")
    shape = [int(size) if axis == name else axis for axis in image.shape]
    pixels = np.random.default_rng().random(shape, np.float32)

    def once():
        before = time.perf_counter()
        session.run(None, {image.name: pixels})
        return time.perf_counter() - before

    first_s = once()
    times = []
    while len(times) < int(flags.get("-r", 0)) or sum(times) < int(flags.get("-t", 0)):
        times.append(once())
    print(f"Session creation time cost: {created_s:g} s")
    print(f"First inference time cost: {int(first_s * 1e3)} ms")
    print(f"Total inference time cost: {sum(times):g} s")
    print(f"Total inference requests: {len(times)}")
    print(f"Average inference time cost: {np.mean(times) * 1e3:g} ms")
    with Path(results).open("a") as file:
        for number, seconds in enumerate(times):
            file.write(f"cct-export,{seconds:g},20971520,50,{number}\n")
    return 0


sys.exit(main())
