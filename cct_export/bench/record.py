"""The JSON record of measurements, written and read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cct_export import machine
from cct_export.bench import regression, statistics
from cct_export.errors import InvalidData
from cct_export.records import BenchResult
from cct_export.records.encoding import from_json, parse_json, to_json
from cct_export.specs import JSONObject

SCHEMA = "cct-bench/1"
# Of a file of anyone; a measurement has some hundred rows of some million runs at most.
MAX_BYTES = 2**28
MAX_ROWS = 1000


@dataclass(frozen=True)
class _Record:
    """What ``read`` reads: the machine is that of results that name none."""

    schema: str
    machine: Any
    results: list[JSONObject]


def to_dict(results: Sequence[BenchResult]) -> JSONObject:
    """Returns ``schema``, ``machine`` and ``results`` as plain JSON types.

    What follows from the runs (``latency_ms``, ``throughput_per_s``) is in it for readers,
    and not read again.
    """
    return {
        "schema": SCHEMA,
        "machine": to_json(machine.describe()),
        "results": [_result(result) for result in results],
    }


def _result(result: BenchResult) -> JSONObject:
    summary = statistics.summary_of(result)
    latency: JSONObject | None = to_json(summary)
    if latency and result.times_ns:
        del latency["max"]  # only reported: times_ns has it
    fields: JSONObject = to_json(result)
    return fields | {
        "latency_ms": latency,
        "throughput_per_s": None if summary is None else result.batch / summary.p50 * 1e3,
        "accuracy": result.accuracy.to_dict() if result.accuracy else None,
        "parity": result.parity.to_dict() if result.parity else None,
    }


def read(path: Path) -> list[BenchResult]:
    """Reads the results that ``--json`` wrote, each with the machine that it is of.

    Raises:
        InvalidData: no such file, or no record of measurements.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InvalidData(f"{path} has {size:,} bytes: a record has {MAX_BYTES:,} at most")
        record = from_json(parse_json(path.read_bytes()), _Record)
        if record.schema != SCHEMA:
            raise InvalidData(f"{path} is of schema {record.schema!r}, not {SCHEMA!r}")
        if not record.results:
            raise InvalidData(f"{path} has no results")
        if len(record.results) > MAX_ROWS:
            rows = len(record.results)
            raise InvalidData(f"{path} has {rows:,} results: a record has {MAX_ROWS:,} at most")
        return [
            _row(index, {"machine": record.machine, **row})
            for index, row in enumerate(record.results)
        ]
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise InvalidData(f"{path} is no record that cct-bench --json wrote: {error}") from error


def _row(index: int, fields: JSONObject) -> BenchResult:
    try:
        return BenchResult.from_dict(fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"results[{index}]: {error}") from error


def read_for_comparison(path: Path) -> list[BenchResult]:
    """Reads results, with a warning on those of another machine; raises ``InvalidData``."""
    this_machine = machine.describe()
    results = []
    for result in read(path):
        differences = regression.differences(result.machine, this_machine)
        warning = f"of another machine ({'; '.join(differences)})"
        warnings = (*result.warnings, warning) if differences else result.warnings
        results.append(replace(result, warnings=warnings))
    return results
