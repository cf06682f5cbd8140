"""The JSON record of measurements."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cct_export import machine
from cct_export.measurement import statistics
from cct_export.results import BenchResult

SCHEMA = "cct-bench/1"


def bench(results: Sequence[BenchResult]) -> dict[str, Any]:
    """Returns ``schema``, ``machine`` and ``results`` as plain JSON types."""
    return {
        "schema": SCHEMA,
        "machine": machine.describe(),
        "results": [_result(result) for result in results],
    }


def _result(result: BenchResult) -> dict[str, Any]:
    return {
        "artifact": result.artifact,
        "runtime": result.runtime,
        "batch": result.batch,
        "latency_ms": statistics.summary(result.times_ns),
        "times_ns": list(result.times_ns),
        "load_ms": result.load_ms,
        "first_inference_ms": result.first_inference_ms,
        "peak_rss_bytes": result.peak_rss_bytes,
        "accuracy": asdict(result.accuracy) if result.accuracy else None,
        "parity": result.parity.to_dict() if result.parity else None,
        "device": result.device,
        "warnings": list(result.warnings),
    }
