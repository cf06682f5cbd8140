"""The JSON record of measurements, written and read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cct_export import machine
from cct_export.bench import statistics
from cct_export.errors import InvalidData
from cct_export.records import BenchResult
from cct_export.records.encoding import parse_json, to_json

SCHEMA = "cct-bench/1"


def write(results: Sequence[BenchResult]) -> dict[str, Any]:
    """Returns ``schema``, ``machine`` and ``results`` as plain JSON types.

    What follows from the runs (``latency_ms``, ``throughput_per_s``) is in it for readers,
    and not read again.
    """
    return {
        "schema": SCHEMA,
        "machine": to_json(machine.describe()),
        "results": [_result(result) for result in results],
    }


def _result(result: BenchResult) -> dict[str, Any]:
    latency = statistics.told(result)
    fields: dict[str, Any] = to_json(result)
    return fields | {
        "latency_ms": latency,
        "throughput_per_s": result.batch / latency["p50"] * 1e3 if latency else None,
        "accuracy": result.accuracy.to_dict() if result.accuracy else None,
        "parity": result.parity.to_dict() if result.parity else None,
    }


def read(path: Path) -> list[BenchResult]:
    """Reads the results that ``--json`` wrote, each with the machine that it is of.

    Raises:
        InvalidData: no such file, or no record of measurements.
    """
    try:
        record = parse_json(path.read_bytes())
        schema, rows = record["schema"], record["results"]
        if schema != SCHEMA:
            raise InvalidData(f"{path} is of schema {schema!r}, not {SCHEMA!r}")
        if not rows:
            raise InvalidData(f"{path} has no results")
        return [BenchResult.from_dict({"machine": record["machine"], **row}) for row in rows]
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidData(f"{path} is no record that cct-bench --json wrote: {reason}") from error
