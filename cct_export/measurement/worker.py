"""The process that measures one artifact on one engine: a request as JSON in, a reply out.

It is a process of its own so that an engine that crashes, or that keeps memory, harms nothing.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cct_export import data, parity, registry, sidecar
from cct_export.data.picks import timing_images
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.measurement import accuracy, latency, memory
from cct_export.runtimes.session import Session, prepare, run
from cct_export.specs import BenchSpec


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Does one pass.

    Args:
        request: ``pass`` (``latency``, ``memory`` or ``accuracy``), ``path``, ``spec`` (the
            fields of a BenchSpec), ``batch``, ``data``.

    Returns:
        What the pass found, as plain JSON types.

    Raises:
        CCTExportError: the artifact or the data cannot be used.
    """
    spec = BenchSpec(**request["spec"])
    path = Path(request["path"])
    engine = registry.load("cct_export.runtimes", spec.runtime)
    engine.import_engine()  # loading a file is timed, importing Python modules is not
    started = time.perf_counter_ns()
    session: Session = engine.open_session(path, spec.threads, trusted=True)
    load_ms = (time.perf_counter_ns() - started) / 1e6
    try:
        return _PASSES[request["pass"]](session, path, spec, request) | {"load_ms": load_ms}
    finally:
        session.close()


def _latency(
    session: Session, path: Path, spec: BenchSpec, request: dict[str, Any]
) -> dict[str, Any]:
    batch = request["batch"]
    if session.batch not in (None, batch):
        source = session.contract.get("source", "MODEL")
        raise InvalidRequest(
            f"{path} takes {session.batch} image at a time, not {batch}: "
            f"`cct-export onnx {source}` makes a file for any number"
        )
    prepared = prepare(session, timing_images(session.image_shape, batch))
    started = time.perf_counter_ns()
    session.invoke(prepared)
    first_ms = (time.perf_counter_ns() - started) / 1e6
    times = latency.time_runs(session, prepared, spec)
    name, version = session.engine
    return {
        "first_inference_ms": first_ms,
        "times_ns": times,
        "runtime": {
            "name": name,
            "version": version,
            "accelerator": "cpu",
            "threads": spec.threads,
            "delegated_nodes": session.delegated_nodes,
            "total_nodes": session.total_nodes,
        },
        "contract": session.contract,
        "parity": _golden_parity(session, path),
    }


def _golden_parity(session: Session, path: Path) -> dict[str, Any] | None:
    beside = sidecar.read(path) if path.is_file() else None
    if beside is None or beside.golden.images.shape[1:] != session.image_shape:
        return None
    found = run(session, beside.golden.images)
    if found.shape != beside.golden.logits.shape:
        return None
    report = parity.compare(
        beside.golden.logits,
        found,
        beside.record["scheme"],
        names=(beside.record["source"], str(path)),
        images=f"golden images in the sidecar ({beside.golden.origin})",
        policy=parity.policy_of(beside.record["scheme"], golden=True),
    )
    return asdict(report)


def _memory(
    session: Session, path: Path, spec: BenchSpec, request: dict[str, Any]
) -> dict[str, Any]:
    prepared = prepare(session, timing_images(session.image_shape, request["batch"]))
    for _ in range(5):
        session.invoke(prepared)
    return {"peak_rss_bytes": memory.peak_rss_bytes()}


def _accuracy(
    session: Session, path: Path, spec: BenchSpec, request: dict[str, Any]
) -> dict[str, Any]:
    found = accuracy.measure(session, data.read(request["data"], session.image_shape))
    return {"accuracy": asdict(found)}


_PASSES = {"latency": _latency, "memory": _memory, "accuracy": _accuracy}


def main() -> None:
    """Reads the request on standard input and writes the reply to the file it names."""
    request = json.loads(sys.stdin.read())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            reply = measure(request)
    except CCTExportError as error:
        reply = {"error": str(error), "kind": type(error).__name__}
    Path(request["reply"]).write_text(json.dumps(reply))


if __name__ == "__main__":
    main()
