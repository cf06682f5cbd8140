"""How long each operator of an ONNX file takes, from ONNX Runtime's own profile."""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cct_export.data.sampling import timing_images
from cct_export.errors import EngineFailed
from cct_export.records import OperatorProfile, OperatorTime
from cct_export.runtimes.onnxruntime import open_session
from cct_export.runtimes.session import prepare
from cct_export.specs import DEFAULT_DELEGATION, Delegation

WARMUP = 10

NOTE = (
    "ONNX Runtime's own times of the graph that it optimized: operators have been fused, moved to "
    "other layouts and renamed. Its clock counts whole microseconds, and reading it takes one or "
    "two for every operator: short ones look longer than they are, and so does the sum."
)

_Event = dict[str, Any]
_KERNEL = "_kernel_time"


def profile(
    path: Path, threads: int, runs: int, delegation: Delegation = DEFAULT_DELEGATION
) -> OperatorProfile:
    """Times the operators of an ONNX file on one image of random pixels.

    Args:
        path: the file; it is only read.
        threads: threads inside an operator.
        runs: timed runs, after ``WARMUP`` others.
        delegation: the execution provider.

    Returns:
        Every operator that ran, in the order in which they ran.

    Raises:
        InvalidArtifact: missing, broken, or not from images to logits.
        MissingDependency: onnxruntime is not installed.
        EngineFailed: the engine broke while running it, or kept no profile of all runs.
    """
    found = runs_of(_events(path, threads, WARMUP + runs, delegation))[WARMUP:]
    if len(found) < runs:
        raise EngineFailed(
            f"ONNX Runtime kept a profile of {len(found)} runs of {path}, not {runs}: ask for fewer"
        )
    return OperatorProfile(operators(found), runs, derived=False, note=NOTE)


def kernels(path: Path) -> dict[str, int]:
    """Returns the operators that ONNX Runtime runs for one image, by kind, the commonest first.

    Args:
        path: a file from images to logits.

    Raises:
        InvalidArtifact: missing, broken, or of another kind.
        MissingDependency: onnxruntime is not installed.
    """
    (ran,) = runs_of(_events(path, 1, 1, DEFAULT_DELEGATION))
    return dict(Counter(str(event["args"]["op_name"]) for event in ran).most_common())


def runs_of(events: Iterable[_Event]) -> list[list[_Event]]:
    """Returns what each run did: of the events of a profile, the operators that came to an end.

    Args:
        events: as ONNX Runtime writes them. A run without its end is left out: where events are
            too many, the last ones are missing.
    """
    found: list[list[_Event]] = []
    run: list[_Event] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            run.append(event)
        elif event.get("name") == "model_run":
            found.append(run)
            run = []
    return found


def operators(runs: Sequence[Sequence[_Event]]) -> tuple[OperatorTime, ...]:
    """Returns the operators of the first run with their medians over all runs.

    Args:
        runs: as ``runs_of`` gives them; of the same graph.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        took: Counter[tuple[str, str]] = Counter()
        for event in run:  # in a loop, an operator runs several times
            took[_identity(event)] += event["dur"]
        for operator, microseconds in took.items():
            times[operator].append(microseconds)
    first = {_identity(event): event for event in runs[0]} if runs else {}
    return tuple(
        OperatorTime(
            name=event["name"].removesuffix(_KERNEL),
            kind=event["args"]["op_name"],
            ms=median(times[operator]) / 1e3,
            where=event["args"]["provider"].removesuffix("ExecutionProvider"),
        )
        for operator, event in first.items()
    )


def _identity(event: _Event) -> tuple[str, str]:
    """Returns what tells an operator from others: names need not."""
    return event["name"], event["args"]["node_index"]


def _events(path: Path, threads: int, runs: int, delegation: Delegation) -> list[_Event]:
    """Returns the events of a session in which one image ran ``runs`` times."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(
            path, threads, delegation=delegation, profile=Path(folder, "profile")
        )
        image = prepare(session, timing_images(session.image_shape, session.batch or 1))
        try:
            for _ in range(runs):
                session.invoke(image)
        except Exception as error:  # its exceptions have no common base class
            reason = str(error).strip().partition("\n")[0]
            raise EngineFailed(f"ONNX Runtime cannot run {path}: {reason}") from error
        written = session.end_profile()
        session.close()
        events: list[_Event] = json.loads(written.read_text())
    return events
