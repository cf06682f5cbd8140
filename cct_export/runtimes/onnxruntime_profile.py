"""Times of the operators of an ONNX file, from ONNX Runtime's own profiler."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from cct_export.data.sampling import timing_images
from cct_export.errors import EngineFailed
from cct_export.files import check_file
from cct_export.records import OperatorProfile, OperatorTime
from cct_export.records.encoding import from_json, parse_json
from cct_export.runtimes.onnxruntime import OnnxRuntimeSession, choose_delegate, import_engine
from cct_export.runtimes.session import prepare
from cct_export.specs import DEFAULT_DELEGATION, Delegation

WARMUP = 10

NOTE = (
    "ONNX Runtime's own times of the graph that it optimized: operators have been fused, converted "
    "to other layouts and renamed. Its clock counts whole microseconds, and reading it adds one or "
    "two to every operator: the times of short ones, and the sum, are too large."
)
_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class EventArguments:
    """Details of a kernel's event; empty for other events."""

    op_name: str = ""
    node_index: str | int = ""
    provider: str = ""


@dataclass(frozen=True)
class Event:
    """An event of ONNX Runtime's profile.

    Attributes:
        name: of the event; of a kernel that of its node, with ``_kernel_time`` appended.
        cat: category, ``Node`` or ``Session``.
        dur: microseconds.
        args: operator, index and execution provider of a node.
    """

    name: str = ""
    cat: str = ""
    dur: int = 0
    args: EventArguments = field(default_factory=EventArguments)

    @property
    def key(self) -> tuple[str, str | int]:
        """Identifies the node; names alone may not be unique."""
        return self.name, self.args.node_index


def profile(
    path: Path, *, threads: int, runs: int, delegation: Delegation = DEFAULT_DELEGATION
) -> OperatorProfile:
    """Times the operators of an ONNX file; see ``Profiler``.

    Every operator that ran is returned, in order of execution. ``WARMUP`` untimed runs go first.
    """
    timed = kernels_per_run(_events(path, threads, WARMUP + runs, delegation))[WARMUP:]
    if len(timed) < runs:
        raise EngineFailed(
            f"ONNX Runtime's profile of {path} has {len(timed)} runs, not {runs}: request fewer"
        )
    return OperatorProfile(operators(timed), runs, derived=False, note=NOTE)


def kernels(path: Path) -> dict[str, int]:
    """Returns the number of operators that ONNX Runtime runs for one image, by kind.

    Args:
        path: an ``.onnx`` file that maps images to logits.

    Returns:
        The counts in descending order.

    Raises:
        InvalidArtifact: the file is missing, broken, or of another kind.
        MissingDependency: onnxruntime is not installed.
    """
    (events,) = kernels_per_run(_events(path, 1, 1, DEFAULT_DELEGATION))
    return dict(Counter(event.args.op_name for event in events).most_common())


def kernels_per_run(events: Iterable[Event]) -> list[list[Event]]:
    """Returns the events of the kernels, run by run.

    Args:
        events: a profile, in ONNX Runtime's order. A run without its end is left out: the profile
            drops the last events where there are too many.
    """
    runs: list[list[Event]] = []
    current: list[Event] = []
    for event in events:
        if event.cat == "Node" and event.name.endswith(_KERNEL):
            current.append(event)
        elif event.name == "model_run":
            runs.append(current)
            current = []
    return runs


def operators(runs: Sequence[Sequence[Event]]) -> tuple[OperatorTime, ...]:
    """Returns the operators of the first run with their median times over all runs.

    Args:
        runs: the kernels of each run of the same graph, see ``kernels_per_run``.
    """
    times: dict[tuple[str, str | int], list[float]] = defaultdict(list)
    for run in runs:
        totals: Counter[tuple[str, str | int]] = Counter()
        for event in run:  # in a loop, an operator runs several times
            totals[event.key] += event.dur
        for key, microseconds in totals.items():
            times[key].append(microseconds)
    first = {event.key: event for event in runs[0]} if runs else {}
    return tuple(
        OperatorTime(
            name=event.name.removesuffix(_KERNEL),
            kind=event.args.op_name,
            ms=median(times[key]) / 1e3,
            where=event.args.provider.removesuffix("ExecutionProvider"),
        )
        for key, event in first.items()
    )


def _events(path: Path, threads: int, runs: int, delegation: Delegation) -> list[Event]:
    """Returns the profile of a session in which one image runs ``runs`` times."""
    check_file(path)
    import_engine()
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    with tempfile.TemporaryDirectory() as folder:
        session = OnnxRuntimeSession(
            path, threads=threads, delegation=delegation, profile=Path(folder, "profile")
        )
        image = prepare(session, timing_images(session.image_shape, session.batch or 1))
        try:
            for _ in range(runs):
                session.invoke(image)
        except Exception as error:  # its exceptions have no common base class
            reason = str(error).strip().partition("\n")[0]
            raise EngineFailed(f"ONNX Runtime cannot run {path}: {reason}") from error
        file = session.end_profile()
        session.close()
        return from_json(parse_json(file.read_bytes()), list[Event])
