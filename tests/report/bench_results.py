"""Results as a measurement leaves them, with figures like those of the shipped model."""

from dataclasses import replace

import numpy as np

from cct_export.records import (
    Accuracy,
    BenchResult,
    Conditions,
    MachineInfo,
    MeasuredFile,
    OperatorProfile,
    OperatorTime,
    PairedAccuracy,
    ParityReport,
    RunConditions,
    Runtime,
    Sustained,
)

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MACHINE = MachineInfo(
    cpu="Example Processor 3000",
    architecture="x86_64",
    cores=2,
    os="Linux 6.1",
    python="3.11.2",
    versions={"ai-edge-litert": "2.3.0", "numpy": "2.4.6"},
)


def parity(passed=True, sqnr_db=41.5, scheme="int8"):
    failures = () if passed else ("SQNR 11.2 dB is below 30 dB", "top-1 agreement 0.61")
    return ParityReport(
        "cct_keras_io", "cct.tflite", scheme, "64 golden images", 64, 0.021, 0.004, 0.99998,
        sqnr_db, 1.0 if passed else 0.61, 61, True, False, failures,
    )  # fmt: skip


def accuracy(top1=0.84, classes=CLASSES, seed=0):
    images = 1000
    rng = np.random.default_rng(seed)
    spread = rng.dirichlet(np.full(len(classes) - 1, 0.7), len(classes))
    matrix = []
    for index, shares in enumerate(spread):
        wrong = rng.multinomial(round(images * (1 - top1)), shares)
        matrix.append(tuple(map(int, np.insert(wrong, index, images - wrong.sum()))))
    right = sum(row[index] for index, row in enumerate(matrix)) / (images * len(classes))
    return Accuracy(
        right, 0.99, images * len(classes), "cifar10 test split",
        (right - 0.007, right + 0.007), (0.987, 0.992), 0.031, tuple(matrix), tuple(classes),
        PairedAccuracy(0.8402, 31, 24, 0.42),
    )  # fmt: skip


def operators(derived=False):
    kinds = ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "ADD"]
    kinds += ["FULLY_CONNECTED", "BATCH_MATMUL", "SOFTMAX", "BATCH_MATMUL", "ADD", "GELU"] * 4
    names = [f"cct/block_{i // 6}/{kind.lower()}_{i}/out" for i, kind in enumerate(kinds)]
    ms = np.random.default_rng(5).gamma(1.2, 0.08, len(kinds))
    where = ["XNNPACK" if kind != "GELU" else "LiteRT" for kind in kinds]
    times = tuple(map(OperatorTime, names, kinds, map(float, ms), where))
    note = "Prefixes were run in turn." if derived else ""
    return OperatorProfile(times, 200, derived, note)


def sustained():
    minutes = np.arange(1, 31)
    p50 = 2.31 * (1 + 0.18 / (1 + np.exp(-(minutes - 12) / 2)))
    return Sustained(
        60.0,
        tuple(p50.round(4).tolist()),
        tuple((p50 * 1.06).round(4).tolist()),
        (25_000,) * len(minutes),
        tuple((45 + 30 * (1 - np.exp(-minutes / 7))).round(1).tolist()),
        tuple(np.where(minutes < 12, 2400.0, 1900.0).tolist()),
    )


def result(path, median_ms=2.3, size=1_700_000, runs=400, seed=0, **changes):
    """A result of ``runs`` runs in two repeats of bursts, with the tail of a busy machine."""
    rng = np.random.default_rng(seed)
    times = median_ms * rng.lognormal(0, 0.03, runs)
    times[rng.random(runs) < 0.01] *= 4
    scheme = path.rpartition("-")[2].partition(".")[0]
    file = MeasuredFile(path, path.rpartition(".")[2], scheme, size, f"{seed:064x}")
    measured = BenchResult(
        artifact=file,
        runtime=_runtime(file.format),
        batch=1,
        times_ns=tuple((times * 1e6).astype(int).tolist()),
        bursts=((runs // 4,) * 2,) * 2,
        load_ms=12.5 + seed,
        first_inference_ms=median_ms * 1.7,
        peak_rss_bytes=61_000_000 + size,
        preprocess_ms=0.011,
        postprocess_ms=0.02,
        conditions=RunConditions(
            Conditions(frequency_mhz=2400, load_1m=0.4), Conditions(frequency_mhz=2380)
        ),
        parity=parity(scheme=scheme),
    )
    return replace(measured, **changes)


def _runtime(format):
    name, version, delegate = {
        "tflite": ("litert", "2.3.0", "xnnpack"),
        "onnx": ("onnxruntime", "1.31.1", "cpu"),
    }[format]
    return Runtime(
        name, version, "cpu", delegate, "default", 1, {}, delegated_nodes=31, total_nodes=44
    )


def with_file(result, **changes):
    """Returns ``result`` of another file: its path, format or scheme."""
    return replace(result, artifact=replace(result.artifact, **changes))


def with_runtime(result, **changes):
    """Returns ``result`` of another runtime: its name, delegate, threads and so on."""
    return replace(result, runtime=replace(result.runtime, **changes))


def several():
    """Six results; the fifth failed parity, the last failed, the first is the slowest."""
    loud = ("two runs of one binary differ by 7 %: close other programs",)
    crashed = {"times_ns": (), "bursts": (), "peak_rss_bytes": None, "load_ms": None}
    return [
        result(
            "out/cct_keras_io-float32.tflite", 4.41, 1_699_000, seed=1, accuracy=accuracy(0.841),
            parity=parity(sqnr_db=121.0, scheme="float32"), operators=operators(),
        ),
        result(
            "out/cct_keras_io-int8.tflite", 2.31, 512_000, seed=2, accuracy=accuracy(0.838, seed=1),
            operators=operators(), sustained=sustained(), warnings=loud,
        ),
        result(
            "out/cct_keras_io-float16.tflite", 4.38, 862_000, seed=3,
            accuracy=accuracy(0.8408, seed=2),
        ),
        result(
            "out/cct_keras_io-float32.onnx", 3.02, 1_702_000, seed=4,
            accuracy=accuracy(0.841, seed=3), operators=operators(derived=True),
        ),
        result("out/cct_keras_io-int8.onnx", 1.88, 498_000, seed=5, parity=parity(False)),
        result(
            "out/cct_keras_io-int4.onnx", 9.0, 301_000, seed=6, parity=None,
            failure="the engine crashed (SIGSEGV)", **crashed,
        ),
    ]  # fmt: skip
