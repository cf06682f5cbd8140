"""Prints every table of the commands; a test runs it on terminals of different widths.

    python every_table.py RECORDS

RECORDS is a pickle of what ``tables`` takes.
"""

import logging
import pickle
import sys
from pathlib import Path

from cct_export.report import bench, export, inspection

MARK = "=== "


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
        "file": lambda: inspection.show(records["file"], tensors=True),
        "two files": lambda: inspection.show_comparison(records["file"], records["other"]),
        "layers": lambda: inspection.show_model(records["model"]),
    }


if __name__ == "__main__":
    logging.getLogger("cct_export").setLevel(logging.CRITICAL)
    for name, show in tables(pickle.loads(Path(sys.argv[1]).read_bytes())).items():
        print(f"{MARK}{name}", flush=True)
        show()
