"""How long each operator of a TFLite file takes, found by running its first operators.

LiteRT's own profiler cannot be reached from Python. XNNPACK runs its whole part of a graph as one
operator of LiteRT's anyway.
"""

import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cct_export.data.sampling import timing_images
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.records import OperatorProfile, OperatorTime
from cct_export.runtimes import litert
from cct_export.runtimes.litert_file import partitions
from cct_export.runtimes.session import prepare
from cct_export.runtimes.tflite_prefixes import Prefix, prefixes
from cct_export.runtimes.timing import Clock, Runs, time_in_turn
from cct_export.specs import DEFAULT_DELEGATION, Delegation

# Short turns: what slows the machine down for a while then meets every prefix.
BURST = 5
# Untimed runs of a turn: the prefix before had other weights in the caches,
WARMUP = 3
# and its threads, where it has some, wait for more work on the cores that this one needs.
SETTLE_NS = 2_000_000
# Kernels without SIMD take a hundred times longer: fewer rounds then, but no fewer than these.
LIMIT_NS = 20_000_000_000
ROUNDS_AT_LEAST = 3

NOTE = (
    "Differences: the file was cut off behind each operator, and a time is the median of that "
    "prefix less the median of the one before. The first has the call of the engine in it. A cut "
    "also parts what XNNPACK computes together and writes the tensor out, so single figures can be "
    "too large, or slightly negative; their sum is the time of the whole file."
)


class _Part:
    """The first operators of a file, ready to run."""

    def __init__(self, content: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]

    def invoke(self, prepared: np.ndarray) -> None:
        """Runs once; what comes out stays in the engine."""
        self._interpreter.set_tensor(self._input, prepared)
        self._interpreter.invoke()


def profile(
    path: Path, threads: int, runs: int, delegation: Delegation = DEFAULT_DELEGATION
) -> OperatorProfile:
    """Times the operators of a TFLite file on one image of random pixels.

    All prefixes are in memory at once, about half the file for every operator.

    Args:
        path: the file; it is only read.
        threads: threads of the XNNPACK delegate.
        runs: timed runs of each prefix, rounded up to a multiple of ``BURST``; fewer where all of
            them would take longer than ``LIMIT_NS``.
        delegation: the CPU with XNNPACK; nothing else can be cut and still be what it was.

    Returns:
        Every operator of the main subgraph, in the file's order. One that no input reaches, such
        as the decoding of stored weights, takes 0 ms: what it costs is in its first reader.

    Raises:
        InvalidArtifact: missing, broken, or not from images to logits.
        InvalidRequest: another delegate.
        MissingDependency: ai-edge-litert is not installed.
    """
    if delegation.name not in ("default", "xnnpack"):
        raise InvalidRequest(
            f"times of operators are derived on the CPU with XNNPACK, not with {delegation.name}"
        )
    session = litert.LiteRTSession(path, threads, delegation)
    try:
        image = prepare(session, timing_images(session.image_shape, session.batch or 1))
        nodes = session.nodes()
    finally:
        session.close()
    cuts = list(prefixes(path.read_bytes()))
    parts = _parts(path, cuts, threads)
    ready, settle_ns = list(parts.values()), SETTLE_NS if threads > 1 else 0
    rounds = affordable_rounds(ready, image, runs, settle_ns)
    images = [image] * len(ready)
    found = time_in_turn(ready, images, rounds, BURST, WARMUP, settle_ns=settle_ns)
    timed = dict(zip(parts, found, strict=True))
    ms = operator_ms([timed.get(index) for index in range(len(cuts))])
    return OperatorProfile(_operators(cuts, nodes, ms), rounds * BURST, derived=True, note=NOTE)


def operator_ms(times: Sequence[Sequence[int] | None]) -> list[float]:
    """Returns the milliseconds of each operator; their sum is the median of the last prefix.

    Args:
        times: nanoseconds of each prefix; None where there is none, which counts as no time more
            than the prefix before it.
    """
    whole = list(
        accumulate(
            times, lambda before, now: before if now is None else median(now) / 1e6, initial=0.0
        )
    )
    return [after - before for before, after in pairwise(whole)]


def _parts(path: Path, cuts: Sequence[Prefix], threads: int) -> dict[int, Runs]:
    """Opens each prefix that there is, by the index of its last operator."""
    parts: dict[int, Runs] = {}
    for index, cut in enumerate(cuts):
        if cut.content is None:
            continue
        try:
            parts[index] = _Part(cut.content, threads)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InvalidArtifact(
                f"{path} cannot be cut behind operator {index}, {cut.name}: {reason}"
            ) from error
    return parts


def affordable_rounds(
    parts: Sequence[Runs],
    image: np.ndarray,
    runs: int,
    settle_ns: int,
    clock: Clock = time.perf_counter_ns,
) -> int:
    """Returns how many rounds ``runs`` are, or how many of them ``LIMIT_NS`` allows.

    Args:
        parts: what has a turn in each round; each runs twice.
        image: their input.
        runs: timed runs of each.
        settle_ns: see ``time_in_turn``.
        clock: returns nanoseconds.
    """
    for part in parts:  # the first run of all takes longer than any other
        part.invoke(image)
    start = clock()
    for part in parts:
        part.invoke(image)
    turns = (clock() - start) * (WARMUP + BURST) + settle_ns * len(parts)
    affordable = LIMIT_NS // max(turns, 1)
    return min(-(-runs // BURST), max(ROUNDS_AT_LEAST, affordable))


def _operators(
    cuts: Sequence[Prefix], nodes: list[dict[str, Any]], ms: Sequence[float]
) -> tuple[OperatorTime, ...]:
    delegated = partitions(nodes)
    kinds = {int(node["index"]): str(node["op_name"]) for node in nodes}
    return tuple(
        OperatorTime(cut.name, kinds[index], time, "xnnpack" if index in delegated else "litert")
        for index, (cut, time) in enumerate(zip(cuts, ms, strict=True))
    )
