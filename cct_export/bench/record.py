"""The JSON record of measurements, written and read."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cct_export import machine
from cct_export.bench import statistics, validation
from cct_export.errors import InvalidData
from cct_export.records import Accuracy, BenchResult, OperatorProfile, ParityReport, Sustained

SCHEMA = "cct-bench/1"
_PLAIN = (
    "artifact", "runtime", "batch", "reported_ms", "load_ms", "first_inference_ms",
    "peak_rss_bytes", "preprocess_ms", "postprocess_ms", "headline", "conditions", "device",
    "machine", "failure", "failure_kind",
)  # fmt: skip
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_RECORDS: dict[str, Any] = {
    "accuracy": Accuracy,
    "parity": ParityReport,
    "operators": OperatorProfile,
    "sustained": Sustained,
}


def write(results: Sequence[BenchResult]) -> dict[str, Any]:
    """Returns ``schema``, ``machine`` and ``results`` as plain JSON types.

    What follows from the runs (``latency_ms``, ``throughput_per_s``) is in it for readers,
    and not read again.
    """
    return {
        "schema": SCHEMA,
        "machine": machine.describe(),
        "results": [_result(result) for result in results],
    }


def _result(result: BenchResult) -> dict[str, Any]:
    latency = statistics.told(result)
    return {
        **{name: getattr(result, name) for name in _PLAIN},
        "latency_ms": latency,
        "throughput_per_s": result.batch / latency["p50"] * 1e3 if latency else None,
        "times_ns": list(result.times_ns),
        "bursts": [list(bursts) for bursts in result.bursts],
        "accuracy": _accuracy(result.accuracy) if result.accuracy else None,
        "parity": result.parity.to_dict() if result.parity else None,
        "operators": asdict(result.operators) if result.operators else None,
        "sustained": asdict(result.sustained) if result.sustained else None,
        "warnings": list(result.warnings),
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return asdict(accuracy) | {"per_class": list(accuracy.per_class)}


def read(path: Path) -> list[BenchResult]:
    """Reads the results that ``--json`` wrote, each with the machine that it is of.

    Raises:
        InvalidData: no such file, or no record of measurements.
    """
    try:
        record = json.loads(path.read_text())
        if record["schema"] != SCHEMA:
            raise InvalidData(f"{path} is of schema {record['schema']!r}, not {SCHEMA!r}")
        if not record["results"]:
            raise InvalidData(f"{path} has no results")
        return [_read({"machine": record["machine"], **row}) for row in record["results"]]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{path} cannot be read: {error}") from error
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidData(f"{path} is no record that cct-bench --json wrote: {reason}") from error


def _read(found: dict[str, Any]) -> BenchResult:
    records: dict[str, Any] = {
        name: kind.from_dict(found[name]) if found.get(name) else None
        for name, kind in _RECORDS.items()
    }
    result = BenchResult(
        **{name: found[name] for name in _PLAIN if name in found},
        times_ns=tuple(found["times_ns"]),
        bursts=tuple(tuple(sizes) for sizes in found.get("bursts", ())),
        **records,
        warnings=tuple(found["warnings"]),
    )
    validation.check(result)
    return result
