"""Prints every table of the commands; a test runs it on terminals of different widths.

    python every_table.py RECORDS

RECORDS is a pickle of what ``tables`` takes.
"""

import logging
import pickle
import sys
from pathlib import Path

from bench_results import MACHINE, operators, several

import cct_export
from cct_export.bench.doctor import PROBES
from cct_export.records import (
    Architecture,
    Diagnosis,
    Exported,
    Layer,
    QuantizationReport,
    StepError,
    TriedScheme,
)
from cct_export.records.artifact import Artifact, Contract
from cct_export.report import bench, export, inspection

MARK = "=== "


def records():
    """Returns by name the records that the tables are made of."""
    results = several()
    steps = tuple(
        StepError(f"block_{i}/attention/scores", "MatMul", "static", None, 30.0 + i, -1234.5, 98.7,
                  -1000.0, 90.0 + i, 0.0123, 40.0 + i, 50.0 + i)
        for i in range(6)
    )  # fmt: skip
    return {
        "results": results,
        "profile": operators(),
        "quantization": QuantizationReport(
            "runs/cct", "tflite", "int8", "200 images", "100 images", 34.5, steps, {}
        ),
        "machine": MACHINE,
        "delegates": [
            Diagnosis("litert", "2.3.0", "xnnpack", "the CPU's fast kernels", True, ""),
            Diagnosis("onnxruntime", "", "tensorrt", "in onnxruntime-gpu", False, "no such " * 20),
        ],
        "exported": Exported(
            Artifact(Path("m.tflite"), Contract(), 1000, "0" * 64),
            results[0].parity,
            None,
            (
                TriedScheme("int8", "", 0.162, 344_904, 34.1),
                TriedScheme("int4-weight", "top-1 agreement 0.8762 is below 0.9400", 0.3, 1, 15.3),
                TriedScheme("int8-full", "needs --io int8"),
            ),
        ),
        "chosen": Exported(
            Artifact(Path("m.onnx"), Contract("onnx", "int8"), 1000, "0" * 64),
            results[0].parity,
            None,
            (
                TriedScheme("int8", "slower than openvino int8", 0.162, 344_904, 34.1,
                            engine="litert"),
                TriedScheme("int8", "", 0.141, 331_020, 33.1, engine="openvino"),
                TriedScheme("fp16", "slower than openvino int8", 0.721, 579, 60.2, engine="ncnn"),
            ),
        ),
        "file": cct_export.inspect(PROBES["litert"]),
        "other": cct_export.inspect(PROBES["onnxruntime"]),
        "model": Architecture(
            "cct", (32, 32, 3), 10, (),
            tuple(
                Layer(f"block_{i}", "TransformerBlock", (64, 256), 1_000_000 + i, 7, 10**9 + i)
                for i in range(3)
            ),
        ),
    }  # fmt: skip


def tables(records):
    """Returns by name what prints a table."""
    results = records["results"]
    return {
        "results": lambda: bench.show(results[:1]),
        "compared results": lambda: bench.show(results, ratios=True),
        "operators": lambda: bench.show_operators(records["profile"], "model.tflite"),
        "quantization": lambda: export.show_quantization(records["quantization"]),
        "delegates": lambda: export.show_diagnosis(records["machine"], records["delegates"]),
        "candidates": lambda: export.show_export(records["exported"]),
        "engines": lambda: export.show_export(records["chosen"]),
        "file": lambda: inspection.show(records["file"], tensors=True),
        "two files": lambda: inspection.show_comparison(records["file"], records["other"]),
        "layers": lambda: inspection.show_model(records["model"]),
    }


if __name__ == "__main__":
    logging.getLogger("cct_export").setLevel(logging.CRITICAL)
    for name, show in tables(pickle.loads(Path(sys.argv[1]).read_bytes())).items():
        print(f"{MARK}{name}", flush=True)
        show()
