"""LiteRT's C API, as far as its profiler needs it.

The profiler is switched on by an option that the wheel's Python modules do not pass on; the
library beside them takes it. Times of XNNPACK's operators are in no other API of the wheel.
"""

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Self

import numpy as np

from cct_export.runtimes.litert_file import TensorDetails
from cct_export.streams import quiet_start

# Structures are as in these versions: another version may lay them out differently.
VERSIONS = ("2.3.",)
LIBRARY = "libLiteRt.so"
# Types of events: an operator that LiteRT runs, and one that a delegate runs.
OPERATOR, DELEGATED_OPERATOR = 1 << 1, 1 << 3

_CPU = 1
_WRITE = 1
_SIGNATURE = 0
_MAX_RANK = 8
_ELEMENT_TYPES = {
    "float32": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "float16": 10,
}
_Handle = ctypes.c_void_p
_Payload = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# Payloads are Python's: they live as long as the model.
_KEEP = _Payload(lambda _: None)


class ProfilerUnusable(Exception):
    """LiteRT's profiler cannot be used here; the message says why, in a few words."""


@dataclass(frozen=True)
class Event:
    """The time of an operator in one run.

    Attributes:
        name: the format's name of the operator, or XNNPACK's.
        type: ``OPERATOR``, ``DELEGATED_OPERATOR``, or one that is not about operators.
        us: whole microseconds, rounded down.
        index: of the operator in the file, or in the delegate's partition.
        subgraph: in which LiteRT ran the operator; 0 is the main one.
    """

    name: str
    type: int
    us: int
    index: int
    subgraph: int


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint, 7),
        ("has_strides", ctypes.c_uint, 1),
        ("dimensions", ctypes.c_int32 * _MAX_RANK),
        ("strides", ctypes.c_uint32 * _MAX_RANK),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element_type", ctypes.c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", ctypes.c_size_t * 3),
        ("memory_after", ctypes.c_size_t * 3),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


_Handles = ctypes.POINTER(_Handle)
_REQUIREMENTS = (_Handle, ctypes.c_size_t, ctypes.c_size_t, _Handles)
_ARRAY = (ctypes.c_size_t, _Handles)
# The arguments of the functions that return a status.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "LiteRtCreateEnvironment": (ctypes.c_int, ctypes.c_void_p, _Handles),
    "LiteRtCreateModelFromFile": (_Handle, ctypes.c_char_p, _Handles),
    "LiteRtCreateOptions": (_Handles,),
    "LiteRtSetOptionsHardwareAccelerators": (_Handle, ctypes.c_int),
    "LiteRtCreateOpaqueOptions": (ctypes.c_char_p, ctypes.c_void_p, _Payload, _Handles),
    "LiteRtAddOpaqueOptions": (_Handle, _Handle),
    "LiteRtCreateCompiledModel": (_Handle, _Handle, _Handle, _Handles),
    "LiteRtCompiledModelGetProfiler": (_Handle, _Handles),
    "LiteRtGetCompiledModelInputBufferRequirements": _REQUIREMENTS,
    "LiteRtGetCompiledModelOutputBufferRequirements": _REQUIREMENTS,
    "LiteRtCreateManagedTensorBufferFromRequirements": (
        _Handle,
        ctypes.POINTER(_TensorType),
        _Handle,
        _Handles,
    ),
    "LiteRtGetTensorBufferSize": (_Handle, ctypes.POINTER(ctypes.c_size_t)),
    "LiteRtLockTensorBuffer": (_Handle, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int),
    "LiteRtUnlockTensorBuffer": (_Handle,),
    "LiteRtRunCompiledModel": (_Handle, ctypes.c_size_t, *_ARRAY, *_ARRAY),
    "LiteRtStartProfiler": (_Handle,),
    "LiteRtStopProfiler": (_Handle,),
    "LiteRtGetNumProfilerEvents": (_Handle, ctypes.POINTER(ctypes.c_int)),
    "LiteRtGetProfilerEvents": (_Handle, ctypes.c_int, ctypes.POINTER(_Event)),
}
_DESTROYERS = (
    "LiteRtDestroyEnvironment",
    "LiteRtDestroyModel",
    "LiteRtDestroyOptions",
    "LiteRtDestroyCompiledModel",
    "LiteRtDestroyTensorBuffer",
)


class ProfiledModel:
    """A ``.tflite`` file on the CPU, with XNNPACK, under LiteRT's profiler. A context manager.

    Args:
        path: the file, which LiteRT's interpreter can open.
        threads: threads that LiteRT and XNNPACK may use.
        image: the input, with the shape that the interpreter gave it.
        outputs: likewise, all of them in the file's order.

    Raises:
        ProfilerUnusable: the wheel has another version, or LiteRT refuses a step.
    """

    def __init__(
        self, path: Path, *, threads: int, image: TensorDetails, outputs: Sequence[TensorDetails]
    ) -> None:
        self._library = _load()
        self._payloads: list[Any] = []
        # LiteRT lists the accelerators that it looks for and forgets.
        with quiet_start(), ExitStack() as stack:
            self._open(stack, path, threads)
            self._input = self._buffer(stack, "Input", 0, image)
            buffers = [
                self._buffer(stack, "Output", index, output) for index, output in enumerate(outputs)
            ]
            self._inputs = (_Handle * 1)(self._input)
            self._outputs = (_Handle * len(buffers))(*buffers)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with quiet_start():
            self._stack.close()

    def write(self, prepared: np.ndarray) -> None:
        """Copies the input's values."""
        values = np.ascontiguousarray(prepared)
        size, address = ctypes.c_size_t(), ctypes.c_void_p()
        self._call("LiteRtGetTensorBufferSize", self._input, ctypes.byref(size))
        if size.value < values.nbytes:
            raise ProfilerUnusable(f"its input has {size.value} bytes, not {values.nbytes}")
        self._call("LiteRtLockTensorBuffer", self._input, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", self._input)

    def profile(self, runs: int) -> tuple[list[Event], list[int]]:
        """Runs ``runs`` times under the profiler.

        Returns:
            The events of all runs, in LiteRT's order, and the nanoseconds of each run.
        """
        self._call("LiteRtStartProfiler", self._profiler)
        durations = []
        for _ in range(runs):
            before = perf_counter_ns()
            self._run()
            durations.append(perf_counter_ns() - before)
        self._call("LiteRtStopProfiler", self._profiler)
        return self._events(), durations

    def _events(self) -> list[Event]:
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if not count.value:
            return []
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return [
            Event(
                (event.tag or b"").decode(errors="replace"),
                event.type,
                event.elapsed_us,
                event.index,
                event.subgraph,
            )
            for event in events
        ]

    def _run(self) -> None:
        self._call(
            "LiteRtRunCompiledModel",
            self._model,
            _SIGNATURE,
            len(self._inputs),
            self._inputs,
            len(self._outputs),
            self._outputs,
        )

    def _open(self, stack: ExitStack, path: Path, threads: int) -> None:
        """Compiles the file; ``stack`` destroys what was created, the last first."""
        self._environment = self._create(stack, "Environment", "LiteRtCreateEnvironment", 0, None)
        model = self._create(
            stack, "Model", "LiteRtCreateModelFromFile", self._environment, str(path).encode()
        )
        options = self._create(stack, "Options", "LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._add_option(options, "runtime_options_string", "enable_profiling = true\n")
        # The first is read by LiteRT, the second by its XNNPACK.
        for identifier in ("cpu_delegate", "xnnpack"):
            self._add_option(options, identifier, f"num_threads = {threads}\n")
        self._model = self._create(
            stack,
            "CompiledModel",
            "LiteRtCreateCompiledModel",
            self._environment,
            model,
            options,
        )
        self._profiler = self._created("LiteRtCompiledModelGetProfiler", self._model)

    def _add_option(self, options: Any, identifier: str, text: str) -> None:
        payload = ctypes.create_string_buffer(text.encode())
        self._payloads.append(payload)
        option = self._created(
            "LiteRtCreateOpaqueOptions",
            identifier.encode(),
            ctypes.cast(payload, ctypes.c_void_p),
            _KEEP,
        )
        self._call("LiteRtAddOpaqueOptions", options, option)

    def _buffer(self, stack: ExitStack, side: str, index: int, tensor: TensorDetails) -> Any:
        """Creates the buffer of an input or output."""
        if tensor.dtype not in _ELEMENT_TYPES or len(tensor.shape) > _MAX_RANK:
            raise ProfilerUnusable(f"it takes no tensor of {tensor.dtype} {list(tensor.shape)}")
        requirements = self._created(
            f"LiteRtGetCompiledModel{side}BufferRequirements", self._model, _SIGNATURE, index
        )
        layout = _Layout(rank=len(tensor.shape))
        layout.dimensions[: len(tensor.shape)] = tensor.shape
        return self._create(
            stack,
            "TensorBuffer",
            "LiteRtCreateManagedTensorBufferFromRequirements",
            self._environment,
            ctypes.byref(_TensorType(_ELEMENT_TYPES[tensor.dtype], layout)),
            requirements,
        )

    def _create(self, stack: ExitStack, kind: str, function: str, *arguments: Any) -> Any:
        """Returns a new object, which ``stack`` destroys."""
        handle = self._created(function, *arguments)
        stack.callback(getattr(self._library, f"LiteRtDestroy{kind}"), handle)
        return handle

    def _created(self, function: str, *arguments: Any) -> Any:
        """Returns what a function puts into its last argument."""
        handle = _Handle()
        self._call(function, *arguments, ctypes.byref(handle))
        if not handle:
            raise ProfilerUnusable(f"{function} gives nothing")
        return handle

    def _call(self, function: str, *arguments: Any) -> None:
        if status := getattr(self._library, function)(*arguments):
            raise ProfilerUnusable(f"{function} returns status {status}")


def _load() -> ctypes.CDLL:
    """Returns the wheel's library, with the types of the functions used here."""
    version = metadata.version("ai-edge-litert")
    if not version.startswith(VERSIONS):
        raise ProfilerUnusable(f"its structures are not known in ai-edge-litert {version}")
    package = util.find_spec("ai_edge_litert")
    folders = package.submodule_search_locations if package else None
    try:
        library = ctypes.CDLL(str(Path((folders or [""])[0], LIBRARY)))
    except OSError:
        raise ProfilerUnusable(f"{LIBRARY} is not in ai-edge-litert, or cannot be loaded") from None
    for name in (*_FUNCTIONS, *_DESTROYERS):
        if not hasattr(library, name):
            raise ProfilerUnusable(f"{LIBRARY} has no {name}")
        function = getattr(library, name)
        function.argtypes = _FUNCTIONS.get(name, (_Handle,))
        function.restype = ctypes.c_int if name in _FUNCTIONS else None
    return library
