"""Times of the operators of a TFLite file, from LiteRT's own profiler.

The profiler is that of LiteRT's CompiledModel (``litert_c_api``). Prefixes of the file
(``litert_prefixes``) take its place where it cannot be used: with another version of the wheel or
without its library, for files with control flow, whose operators contain others, for those whose
first signature is of another subgraph, and where CompiledModel refuses the file or gives XNNPACK
other operators of it than the interpreter does, which runs it everywhere else.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from cct_export.data.sampling import timing_images
from cct_export.errors import InvalidRequest
from cct_export.records import OperatorProfile, OperatorTime
from cct_export.runtimes import litert, litert_prefixes
from cct_export.runtimes.litert_c_api import (
    DELEGATED_OPERATOR,
    OPERATOR,
    Event,
    ProfiledModel,
    ProfilerUnusable,
)
from cct_export.runtimes.litert_file import Node, operator_names, partitions, runs_main_subgraph
from cct_export.runtimes.session import prepare
from cct_export.runtimes.timing import time_interleaved
from cct_export.specs import DEFAULT_DELEGATION, Delegation

WARMUP = 10
# Runs between two readings of the profile; the first follows Python code, and is not counted.
BURST = 10
# Runs with the profiler and without it: where they would take longer, there are fewer.
LIMIT_NS = 20_000_000_000
MIN_RUNS = 3

NOTE = (
    "LiteRT's own times of what ran: XNNPACK fuses, adds and leaves out operators, and kinds are "
    "its names. It knows no names of layers: they are given where the file has as many operators "
    "of that kind. Its clock counts whole microseconds, rounded down: short ones are too short or "
    "0. Profiling also slows operators down, so that their sum is not the time of a run."
)
_CONTROL_FLOW = ("IF", "WHILE", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE")
# XNNPACK makes one operator of each of these, and of nothing else. Its kind of a product may be
# another one: it calls a convolution of single pixels fully connected.
_PRODUCT, _POOLING = "product", "pooling"
_FAMILIES = {
    "AVERAGE_POOL_2D": _POOLING,
    "BATCH_MATMUL": _PRODUCT,
    "CONV_2D": _PRODUCT,
    "DEPTHWISE_CONV_2D": _PRODUCT,
    "FULLY_CONNECTED": _PRODUCT,
    "GELU": "GELU",
    "MAX_POOL_2D": _POOLING,
    "SOFTMAX": "Softmax",
}
_XNNPACK_FAMILIES = {
    "Average Pooling": _POOLING,
    "Batch Matrix Multiply": _PRODUCT,
    "Convolution": _PRODUCT,
    "Dynamic Fully Connected": _PRODUCT,
    "Fully Connected": _PRODUCT,
    "GELU": "GELU",
    "Max Pooling": _POOLING,
    "Softmax": "Softmax",
}


def profile(
    path: Path, *, threads: int, runs: int, delegation: Delegation = DEFAULT_DELEGATION
) -> OperatorProfile:
    """Times the operators of a TFLite file; see ``Profiler``.

    Every operator that ran is returned, in order of execution; from prefixes, every operator of
    the file. Only XNNPACK can be profiled: other delegates would partition a prefix differently,
    and do not tell LiteRT's profiler about their operators. There are fewer runs than ``runs``
    where all of them would take longer than ``LIMIT_NS``.
    """
    if delegation.name not in ("default", "xnnpack"):
        raise InvalidRequest(
            "times of operators are measured on the CPU with XNNPACK, not with "
            f"{delegation.name}: choose the delegate default"
        )
    session = litert.LiteRTSession(path, threads=threads, delegation=delegation)
    try:
        image = prepare(session, timing_images(session.image_shape, session.batch or 1))
        nodes = session.nodes()
        try:
            return _profile(path, session, nodes, image, threads, runs)
        except ProfilerUnusable as error:
            reason = str(error)
    finally:
        session.close()
    derived = litert_prefixes.profile(path, nodes=nodes, image=image, threads=threads, runs=runs)
    note = f"{derived.note} LiteRT's own profiler could not be used: {reason}."
    return replace(derived, note=note)


def _profile(
    path: Path,
    session: litert.LiteRTSession,
    nodes: Sequence[Node],
    image: np.ndarray,
    threads: int,
    runs: int,
) -> OperatorProfile:
    """Returns LiteRT's own profile.

    Raises:
        ProfilerUnusable: it has none, or it is not about the nodes that the interpreter runs.
    """
    if control := next((node.kind for node in nodes if node.kind in _CONTROL_FLOW), None):
        raise ProfilerUnusable(f"operators of {control} are in others' times")
    content = path.read_bytes()
    if not runs_main_subgraph(content):
        raise ProfilerUnusable("the first signature is not of the main subgraph")
    inputs, outputs = session.tensors()
    with ProfiledModel(path, threads=threads, image=inputs, outputs=outputs) as model:
        model.write(image)
        _, durations = model.profile(WARMUP)
        runs = min(runs, max(MIN_RUNS, int(LIMIT_NS / (2 * median(durations)))))
        operators: list[list[Event]] = []
        profiled: list[int] = []
        while len(operators) < runs:
            events, durations = model.profile(BURST)
            operators += operators_per_run(events, BURST)[1:]
            profiled += durations[1:]
    times = operators_of(operators[:runs], nodes, operator_names(content))
    plain = time_interleaved([session], inputs=[image], rounds=1, burst=runs, warmup=WARMUP)[0]
    note = (
        f"{NOTE} A run takes {median(plain) / 1e6:.4f} ms, and {median(profiled) / 1e6:.4f} ms "
        "while it is profiled."
    )
    return OperatorProfile(times, runs, derived=False, note=note)


def operators_per_run(events: Sequence[Event], runs: int) -> list[list[Event]]:
    """Returns the events of operators, run by run.

    Args:
        events: a profile, in LiteRT's order.
        runs: its runs, which do the same.

    Raises:
        ProfilerUnusable: the runs differ.
    """
    timed = [event for event in events if event.type in (OPERATOR, DELEGATED_OPERATOR)]
    count = len(timed) // runs
    split = [timed[start : start + count] for start in range(0, count * runs, count or 1)]
    first, *others = [[(each.name, each.type, each.index) for each in run] for run in split] or [[]]
    if not first or len(timed) != count * runs or any(other != first for other in others):
        raise ProfilerUnusable(f"{len(timed)} operators of {runs} runs are not the same in each")
    return split


def operators_of(
    runs: Sequence[Sequence[Event]], nodes: Sequence[Node], names: Sequence[str]
) -> tuple[OperatorTime, ...]:
    """Returns the operators with their median times.

    Args:
        runs: the operators of each run, see ``operators_per_run``.
        nodes: what the interpreter runs of the same file.
        names: of the file's operators.

    Raises:
        ProfilerUnusable: LiteRT's kernels ran other operators than in the interpreter.
    """
    partition = partitions(nodes)
    remaining = {node.index for node in nodes if not node.is_partition} - partition.keys()
    ran = {event.index for event in runs[0] if event.type == OPERATOR}
    if ran != remaining or any(event.subgraph for event in runs[0]):
        raise ProfilerUnusable(
            f"it runs {len(ran)} operators outside of XNNPACK, not {len(remaining)}"
        )
    delegated = iter(_delegated_names(runs[0], nodes, names))
    return tuple(
        OperatorTime(
            names[event.index] if event.type == OPERATOR else next(delegated),
            event.name,
            median(run[position].us for run in runs) / 1e3,
            "litert" if event.type == OPERATOR else "xnnpack",
        )
        for position, event in enumerate(runs[0])
    )


def _delegated_names(
    run: Sequence[Event], nodes: Sequence[Node], names: Sequence[str]
) -> list[str]:
    """Returns the names of XNNPACK's operators: those of layers where their number agrees.

    Both lists are in order of execution, and XNNPACK keeps the order of the file.
    """
    partition = partitions(nodes)
    layers: dict[str, list[str]] = defaultdict(list)
    for node in sorted(nodes, key=lambda node: (partition.get(node.index, -1), node.index)):
        if node.index in partition and node.kind in _FAMILIES:
            layers[_FAMILIES[node.kind]].append(names[node.index])
    delegated = [event for event in run if event.type == DELEGATED_OPERATOR]
    found = [_XNNPACK_FAMILIES.get(event.name.partition(" (")[0]) for event in delegated]
    numbers = Counter(found)
    named = {family: iter(of) for family, of in layers.items() if len(of) == numbers[family]}
    return [
        next(named[family]) if family in named else f"xnnpack/{position}"
        for position, family in enumerate(found)
    ]
