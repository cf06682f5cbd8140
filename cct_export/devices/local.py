"""This machine: each pass in a fresh process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cct_export import errors
from cct_export.errors import EngineFailed
from cct_export.files import sha256
from cct_export.results import Accuracy, BenchResult, ParityReport
from cct_export.specs import BenchSpec

PASS_LIMIT_S = 3600
UNKNOWN_INPUT = "the file does not say what pixels it wants: raw 0-255 went in"
# The package is found where it is now, installed or in a checkout, behind everything else.
_WORKER = """
import sys
sys.path.append(sys.argv[1])
from cct_export.measurement import worker
worker.main()
"""


def measure(
    path: Path, spec: BenchSpec, batch: int = 1, accuracy_data: str | None = None
) -> BenchResult:
    """Measures one artifact on one engine: latency, then memory, then accuracy if asked for.

    Args:
        path: an artifact, or a MODEL for the engine ``keras``.
        spec: engine, threads, warm-up and duration.
        batch: images per run.
        accuracy_data: what ``--data`` says, None for no accuracy.

    Raises:
        CCTExportError: what the engine's room raised in the other process.
        EngineFailed: the other process crashed.
    """
    request = {"path": os.fspath(path), "spec": asdict(spec), "batch": batch}
    timed = _pass({**request, "pass": "latency"})
    space = _pass({**request, "pass": "memory"})
    scored = None
    if accuracy_data is not None:
        scored = _pass({**request, "pass": "accuracy", "data": accuracy_data})["accuracy"]
    contract = timed["contract"]
    is_file = path.is_file()
    return BenchResult(
        artifact={
            "path": os.fspath(path),
            "format": contract.get("format", spec.runtime),
            "scheme": contract.get("scheme", "unknown" if spec.runtime != "keras" else "none"),
            "size_bytes": path.stat().st_size if is_file else None,
            "sha256": sha256(path) if is_file else None,
        },
        runtime=timed["runtime"],
        batch=batch,
        times_ns=tuple(timed["times_ns"]),
        load_ms=timed["load_ms"],
        first_inference_ms=timed["first_inference_ms"],
        peak_rss_bytes=space["peak_rss_bytes"],
        accuracy=Accuracy(**scored) if scored else None,
        parity=ParityReport(**timed["parity"]) if timed["parity"] else None,
        warnings=() if contract else (UNKNOWN_INPUT,),
    )


def _pass(request: dict[str, Any]) -> dict[str, Any]:
    """Runs the worker on ``request`` and returns its reply."""
    with tempfile.TemporaryDirectory() as folder:
        reply_file = Path(folder, "reply.json")
        # -P: a module in the working directory must not stand in for one of an engine's.
        command = [sys.executable, "-P", "-c", _WORKER, str(Path(__file__).parents[2])]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(request | {"reply": str(reply_file)}),
                capture_output=True,
                text=True,
                timeout=PASS_LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            raise EngineFailed(
                f"{request['path']}: the {request['pass']} pass took over {PASS_LIMIT_S} s"
            ) from None
        if done.returncode != 0 or not reply_file.exists():
            raise EngineFailed(f"{request['path']}: {_cause(done)}")
        reply: dict[str, Any] = json.loads(reply_file.read_text())
    if "error" in reply:
        raise getattr(errors, reply["kind"])(reply["error"])
    return reply


def _cause(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:
        return f"the engine crashed ({signal.Signals(-done.returncode).name})"
    return done.stderr.strip().rpartition("\n")[2] or f"the engine ended with {done.returncode}"
