"""Times of the operators of a TFLite file, derived from its prefixes.

A prefix is the file cut off behind an operator. Nothing but the interpreter is needed; see
``litert_profile`` for when it is.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from cct_export.errors import InvalidArtifact
from cct_export.records import OperatorProfile, OperatorTime
from cct_export.runtimes.litert_file import Node, partitions
from cct_export.runtimes.timing import Clock, Runnable, time_interleaved

# Short bursts, so that a temporary slowdown of the machine affects all prefixes.
BURST = 5
# Untimed runs before a burst: the previous prefix filled the caches with other weights,
WARMUP = 3
# and its worker threads, if any, spin for a while on the cores that this prefix needs.
SETTLE_NS = 2_000_000
# Kernels without SIMD take a hundred times longer: then there are fewer rounds, but at least three.
LIMIT_NS = 20_000_000_000
MIN_ROUNDS = 3
# Standard errors in half of a 95 % interval.
NOISE_SIGMAS = 1.96

NOTE = (
    "Differences: the file was cut off behind each operator, and a time is the median of that "
    "prefix minus the median of the previous one. The first includes the overhead of a call. A cut "
    "also separates what XNNPACK fuses and writes the tensor to memory, so single figures can be "
    "too large, or slightly negative; their sum is the time of the whole file."
)

_TensorIds = dict[int, None]  # an ordered set


class Prefix(NamedTuple):
    """A file cut off behind an operator.

    Attributes:
        name: of the operator's first output.
        content: the flatbuffer up to and including the operator; None if the operator does not
            depend on the input, so that its output is a constant.
    """

    name: str
    content: bytes | None


def profile(
    path: Path, *, nodes: Sequence[Node], image: np.ndarray, threads: int, runs: int
) -> OperatorProfile:
    """Times the operators of a TFLite file on XNNPACK.

    Every operator of the main subgraph is returned, in the file's order. An operator that does not
    depend on the input, such as dequantized weights, takes 0 ms: its cost is in its first consumer.

    Args:
        path: the file; all of its prefixes are in memory at once, on average half as large.
        nodes: what the interpreter runs of it.
        image: the input.
        threads: threads that the engine may use.
        runs: rounded up to a multiple of ``BURST``; there are fewer where all of them would take
            longer than ``LIMIT_NS``.

    Raises:
        InvalidArtifact: LiteRT cannot open a prefix.
    """
    cuts = list(prefixes(path.read_bytes()))
    by_index = _open(path, cuts, threads)
    parts, settle_ns = list(by_index.values()), SETTLE_NS if threads > 1 else 0
    rounds = affordable_rounds(parts, image=image, runs=runs, settle_ns=settle_ns)
    times = time_interleaved(
        parts,
        inputs=[image] * len(parts),
        rounds=rounds,
        burst=BURST,
        warmup=WARMUP,
        settle_ns=settle_ns,
    )
    times_of = dict(zip(by_index, times, strict=True))
    by_cut = [times_of.get(index) for index in range(len(cuts))]
    operators = _operators(cuts, nodes, operator_ms(by_cut), operator_noise_ms(by_cut))
    return OperatorProfile(operators, rounds * BURST, derived=True, note=NOTE)


def operator_ms(times: Sequence[Sequence[int] | None]) -> list[float]:
    """Returns the milliseconds of each operator; their sum is the median of the last prefix.

    Args:
        times: nanoseconds of each prefix; None where the operator is constant, which then takes
            no time.
    """
    medians = list(
        accumulate(
            times,
            lambda previous, runs: previous if runs is None else median(runs) / 1e6,
            initial=0.0,
        )
    )
    return [after - before for before, after in pairwise(medians)]


def operator_noise_ms(times: Sequence[Sequence[int] | None]) -> list[float]:
    """Returns half of the 95 % interval of each time that ``operator_ms`` returns.

    The standard error of a prefix' median is that of the median of its bursts, which are
    independent where runs are not: 1.2533 · σ / √bursts, with σ from the interquartile range.

    Args:
        times: see ``operator_ms``; each a multiple of ``BURST`` runs.
    """
    noises, previous = [], 0.0
    for runs in times:
        error = previous if runs is None else _median_error_ms(runs)
        noises.append(0.0 if runs is None else NOISE_SIGMAS * math.hypot(error, previous))
        previous = error
    return noises


def _median_error_ms(runs: Sequence[int]) -> float:
    """Returns the standard error of the median of a prefix."""
    medians = np.median(np.reshape(runs, (-1, BURST)), axis=1) / 1e6
    lower, upper = np.percentile(medians, (25, 75))
    return float(1.2533 * (upper - lower) / 1.349 / math.sqrt(len(medians)))


def affordable_rounds(
    parts: Sequence[Runnable],
    *,
    image: np.ndarray,
    runs: int,
    settle_ns: int,
    clock: Clock = time.perf_counter_ns,
) -> int:
    """Returns the number of rounds for ``runs`` runs, or as many as ``LIMIT_NS`` allows.

    Args:
        parts: the open prefixes; each runs twice here.
        image: their input.
        runs: timed runs of each.
        settle_ns: see ``time_interleaved``.
        clock: returns nanoseconds.
    """
    for part in parts:  # the first run takes longer than any other
        part.invoke(image)
    start = clock()
    for part in parts:
        part.invoke(image)
    round_ns = (clock() - start) * (WARMUP + BURST) + settle_ns * len(parts)
    affordable = LIMIT_NS // max(round_ns, 1)
    return min(-(-runs // BURST), max(MIN_ROUNDS, affordable))


class _OpenPrefix:
    """A prefix, ready to run."""

    def __init__(self, content: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]

    def invoke(self, prepared: np.ndarray) -> None:
        """Runs once; the outputs stay in the engine."""
        self._interpreter.set_tensor(self._input, prepared)
        self._interpreter.invoke()


def _open(path: Path, cuts: Sequence[Prefix], threads: int) -> dict[int, Runnable]:
    """Opens the prefixes that are not constant, by the index of their last operator."""
    parts: dict[int, Runnable] = {}
    for index, cut in enumerate(cuts):
        if cut.content is None:
            continue
        try:
            parts[index] = _OpenPrefix(cut.content, threads)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InvalidArtifact(
                f"{path} cannot be cut behind operator {index}, {cut.name}: {reason}"
            ) from error
    return parts


def _operators(
    cuts: Sequence[Prefix], nodes: Sequence[Node], ms: Sequence[float], noise_ms: Sequence[float]
) -> tuple[OperatorTime, ...]:
    delegated = partitions(nodes)
    kinds = {node.index: node.kind for node in nodes}
    return tuple(
        OperatorTime(
            cut.name,
            kinds[index],
            ms[index],
            "xnnpack" if index in delegated else "litert",
            noise_ms[index],
        )
        for index, cut in enumerate(cuts)
    )


def prefixes(content: bytes) -> Iterator[Prefix]:
    """Yields the prefix of every operator of the main subgraph, in the file's order.

    The outputs of a prefix are all tensors that a later operator or the caller reads. With the
    last one alone, the engine could drop everything that it does not depend on.

    Args:
        content: a flatbuffer that LiteRT can open; it is not changed.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    dependent = _input_dependent(graph)
    for last, operator in enumerate(_list(graph.operators)):
        outputs = _ids(operator.outputs)
        name = _list(graph.tensors)[next(iter(outputs))].name if outputs else None
        flatbuffer = None
        if not dependent.keys().isdisjoint(outputs):
            flatbuffer = _serialize(_cut(model, last, _live(graph, dependent, last)))
        yield Prefix((name or b"").decode(errors="replace"), flatbuffer)


def _list(vector: Any) -> list[Any]:
    """Returns a vector of the flatbuffer, which is absent where it is empty."""
    return [] if vector is None else list(vector)


def _ids(vector: Any) -> _TensorIds:
    """Returns the tensors of an operator; −1, an optional one that is missing, is left out."""
    return {int(index): None for index in _list(vector) if index >= 0}


def _input_dependent(graph: Any) -> _TensorIds:
    """Returns the inputs of a graph and all tensors that depend on them."""
    dependent = _ids(graph.inputs)
    for operator in _list(graph.operators):
        if not dependent.keys().isdisjoint(_ids(operator.inputs)):
            dependent |= _ids(operator.outputs)
    return dependent


def _live(graph: Any, dependent: _TensorIds, last: int) -> _TensorIds:
    """Returns the outputs of a prefix: those of its last operator, and those that are read later.

    Dequantized constants are left out: as outputs they would be written in every run, which the
    whole file does not do.
    """
    operators = _list(graph.operators)
    needed = _ids(graph.outputs) | _ids(operators[last].outputs)
    for operator in operators[last + 1 :]:
        needed |= _ids(operator.inputs)
    computed: _TensorIds = {}
    for operator in operators[: last + 1]:
        computed |= {index: None for index in _ids(operator.outputs) if index in dependent}
    return {index: None for index in computed if index in needed}


def _cut(model: Any, last: int, outputs: _TensorIds) -> Any:
    """Returns a copy of ``model`` that ends behind the operator ``last``."""
    cut, graph = copy.copy(model), copy.copy(model.subgraphs[0])
    graph.operators = _list(graph.operators)[: last + 1]
    graph.outputs = np.asarray(list(outputs), np.int32)
    cut.subgraphs = [graph, *model.subgraphs[1:]]
    # The signatures name inputs and outputs of the whole file.
    cut.signatureDefs = []
    cut.buffers = _used_buffers(cut)
    return cut


def _used_buffers(model: Any) -> list[Any]:
    """Returns the buffers, emptied where only operators behind the cut read them."""
    graph, others = model.subgraphs[0], model.subgraphs[1:]
    tensors = _ids(graph.inputs)
    for operator in graph.operators:
        tensors |= _ids(operator.inputs) | _ids(operator.outputs)
    used = {graph.tensors[index].buffer for index in tensors}
    used |= {tensor.buffer for other in others for tensor in _list(other.tensors)}
    # Some metadata controls the delegate.
    used |= {entry.buffer for entry in _list(model.metadata)}
    return [
        buffer if index in used else type(buffer)() for index, buffer in enumerate(model.buffers)
    ]


def _serialize(model: Any) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
