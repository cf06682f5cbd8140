"""LiteRT (TensorFlow Lite): its interpreter and delegates."""

import functools
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency, NotAvailable
from cct_export.files import check_file
from cct_export.records.layout import image_shape_of, layout_of
from cct_export.runtimes.isolated import IsolatedSession, Opening
from cct_export.runtimes.litert_file import (
    Node,
    TensorDetails,
    contract_of,
    image_and_outputs,
    nodes_of,
    partitions,
)
from cct_export.runtimes.session import (
    Logits,
    Session,
    checked_outputs,
    chosen_delegate,
    side_by_side,
)
from cct_export.specs import DEFAULT_DELEGATION, NO_OPTIONS, Delegation, ModelOptions
from cct_export.streams import quiet_start

DELEGATES = {
    "default": "XNNPACK for the operators that it supports, LiteRT's own kernels for the rest",
    "xnnpack": "the CPU's fast kernels",
    "none": "LiteRT's own kernels",
    "reference": "LiteRT's reference kernels, slow and exact",
    "gpu": "CompiledModel on WebGPU (Vulkan, Metal, Direct3D) or OpenCL",
    "npu": "CompiledModel on a vendor's dispatch library",
    "external": "external:/path/to/delegate.so, such as Edge TPU, Arm NN, Hexagon or VX",
}
# With these, running operators outside of the delegate is what was requested.
_PARTIAL = ("default", "none", "reference")


class LiteRTSession(Session):
    """A ``.tflite`` file in LiteRT's interpreter. See ``Session``."""

    def __init__(self, path: Path, *, threads: int, delegation: Delegation) -> None:
        """Opens ``path``; see ``Engine.open_session``."""
        self.contract = contract_of(path)
        try:
            with quiet_start():
                self._interpreter = _interpreter(path, threads, delegation)
                self._interpreter.allocate_tensors()
            nodes = self.nodes()
        except InvalidRequest:
            raise
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InvalidArtifact(f"LiteRT cannot open {path}: {reason}") from error
        self.engine = ("litert", metadata.version("ai-edge-litert"))
        self.delegate = "xnnpack" if delegation.name == "default" else delegation.name
        self.accelerator = "external" if delegation.name.startswith("external:") else "cpu"
        image, outputs = image_and_outputs(self._interpreter, path=path)
        self._image, self._details = image, outputs
        self._input, self._outputs = image.index, [output.index for output in outputs]
        self.input_quantization = image.quantization
        self.output_quantizations = tuple(output.quantization for output in outputs)
        self.layout = layout_of(image.shape)
        self.image_shape = image_shape_of(image.shape, self.layout)
        self.io = image.dtype
        self.batch = image.shape[0]
        found = [output.contract for output in outputs]
        self.outputs = checked_outputs(self, path=path, format="tflite", outputs=found)
        delegated, total = len(partitions(nodes)), sum(not node.is_partition for node in nodes)
        self.delegated_nodes, self.total_nodes = delegated, total
        _check_delegated(path, delegation, delegated, total)

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        self._interpreter.set_tensor(self._input, prepared)
        self._interpreter.invoke()
        return side_by_side([self._interpreter.get_tensor(index) for index in self._outputs])

    def tensors(self) -> tuple[TensorDetails, tuple[TensorDetails, ...]]:
        """Returns the image input and the outputs."""
        return self._image, self._details

    def nodes(self) -> list[Node]:
        """Returns the file's operators, followed by the delegate's partitions."""
        return nodes_of(self._interpreter)

    def close(self) -> None:
        """Frees the interpreter."""
        del self._interpreter


def choose_delegate(name: str) -> str:
    """Returns a delegate as this module names it; see ``Engine.choose_delegate``."""
    return chosen_delegate(name, DELEGATES, engine="LiteRT", library="external")


def import_engine() -> None:
    """Imports LiteRT; raises ``MissingDependency``."""
    try:
        import ai_edge_litert.interpreter
        import ai_edge_litert.schema_py_generated  # noqa: F401
    except ImportError:
        raise MissingDependency.of("ai-edge-litert", "litert") from None


def open_session(
    path: Path,
    *,
    threads: int = 1,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    options: ModelOptions = NO_OPTIONS,
) -> Session:
    """Opens a ``.tflite`` file; see ``Engine.open_session``."""
    check_file(path)
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    if not trusted:
        return IsolatedSession(Opening("litert", str(path), threads, delegation))
    import_engine()
    if delegation.name in ("gpu", "npu"):
        from cct_export.runtimes.litert_compiled import CompiledSession

        return CompiledSession(path, threads=threads, delegation=delegation)
    return LiteRTSession(path, threads=threads, delegation=delegation)


def _interpreter(path: Path, threads: int, delegation: Delegation) -> Any:
    """Returns LiteRT's interpreter with a delegate; its tensors are not allocated yet.

    Raises:
        InvalidRequest: the delegate was given options, and takes none.
        NotAvailable: the delegate cannot be loaded.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    new = functools.partial(Interpreter, str(path), num_threads=threads)
    kind, _, library = delegation.name.partition(":")
    if kind == "external":
        return new(
            experimental_delegates=[_external(library, delegation)],
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    if delegation.options:
        names = ", ".join(name for name, _ in delegation.options)
        raise InvalidRequest(f"LiteRT's delegate {kind!r} takes no options, not {names}")
    if kind == "none":
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return new(experimental_op_resolver_type=resolver)
    if kind == "reference":
        return new(experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    return new()


def _external(library: str, delegation: Delegation) -> Any:
    from ai_edge_litert.interpreter import load_delegate

    check_file(Path(library), "delegate")
    try:
        return load_delegate(library, dict(delegation.options))
    except AttributeError as error:
        raise NotAvailable(
            f"{library} is no LiteRT delegate: it has no tflite_plugin_create_delegate"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise NotAvailable(f"{library} cannot be loaded as a delegate: {error}") from error


def _check_delegated(path: Path, delegation: Delegation, delegated: int, total: int) -> None:
    """Raises ``NotAvailable`` if the requested delegate does not run all operators."""
    if delegation.name in _PARTIAL or delegated == total:
        return
    if delegated == 0:
        raise NotAvailable(f"{delegation.name} runs none of the {total} operators of {path}")
    if not delegation.allow_fallback:
        raise NotAvailable(
            f"{delegation.name} runs {delegated} of the {total} operators of {path}: "
            "--allow-fallback measures it anyway and reports the share"
        )
