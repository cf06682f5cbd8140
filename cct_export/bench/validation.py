"""What a record of a measurement must be like to be one: files may come from anyone."""

import math
from collections.abc import Mapping
from typing import Any

from cct_export import errors
from cct_export.records import BenchResult

_LONGEST_NS = 10**15
_FIGURES = ("load_ms", "first_inference_ms", "peak_rss_bytes", "preprocess_ms", "postprocess_ms")
_WORDS: dict[str, tuple[str, ...]] = {
    "artifact": ("path", "format", "scheme"),
    "runtime": ("name", "version", "delegate"),
}
_COUNTS: dict[str, tuple[str, ...]] = {
    "artifact": ("size_bytes",),
    "runtime": ("threads", "delegated_nodes", "total_nodes"),
    "conditions": ("other_cores", "yardstick_ms"),
}


def check(result: BenchResult) -> None:
    """Looks at every field that something is computed of.

    Raises:
        ValueError: the message says which is not what it has to be.
    """
    for place, names in _WORDS.items():
        for name in names:
            _demand(isinstance(getattr(result, place).get(name), str), f"{place}.{name}")
    for place, names in _COUNTS.items():
        for name in names:
            _demand(_figure(getattr(result, place).get(name)), f"{place}.{name}")
    for name in _FIGURES:
        _demand(_figure(getattr(result, name)), name)
    _demand(_whole(result.batch, 1, 10**9), "batch")
    _demand(_whole(result.headline, 1, 99), "headline")
    _demand(isinstance(result.machine, Mapping), "machine")
    _demand(isinstance(result.device, str), "device")
    _demand(all(isinstance(warning, str) for warning in result.warnings), "warnings")
    _times(result)
    _reported(result)
    _failure(result)


def _times(result: BenchResult) -> None:
    _demand(all(_whole(time, 1, _LONGEST_NS) for time in result.times_ns), "times_ns")
    sizes = [size for bursts in result.bursts for size in bursts]
    _demand(all(result.bursts) and all(_whole(size, 1, _LONGEST_NS) for size in sizes), "bursts")
    _demand(not sizes or sum(sizes) == len(result.times_ns), "bursts and times_ns together")


def _reported(result: BenchResult) -> None:
    found = result.reported_ms
    if found is None:
        return
    _demand(isinstance(found, Mapping) and not result.times_ns, "reported_ms")
    _demand(all(_figure(value) for value in found.values()), "reported_ms")
    _demand(_whole(found.get("count"), 1, _LONGEST_NS), "reported_ms.count")
    for name in ("p50", f"p{result.headline}"):
        _demand(bool(found.get(name)), f"reported_ms.{name}")


def _failure(result: BenchResult) -> None:
    known = result.failure_kind == "" or issubclass(
        getattr(errors, result.failure_kind, int), errors.CCTExportError
    )
    _demand(isinstance(result.failure, str) and known, "failure")
    _demand(bool(result.failure) == bool(result.failure_kind), "failure_kind")
    wrong = result.parity is not None and not result.parity.passed
    _demand(result.timed or bool(result.failure) or wrong, "times_ns")


def _figure(value: Any) -> bool:
    if value is None:
        return True
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} is not what it has to be")
