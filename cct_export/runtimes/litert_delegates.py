"""What LiteRT can hand a graph to, and whether that really took it."""

import functools
from pathlib import Path
from typing import Any

from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.specs import Delegation

ABOUT = {
    "default": "xnnpack where it takes the operators, LiteRT's own kernels elsewhere",
    "xnnpack": "the CPU's fast kernels",
    "none": "LiteRT's own kernels",
    "reference": "LiteRT's plain kernels, slow and exact",
    "gpu": "CompiledModel on WebGPU (Vulkan, Metal, Direct3D) or OpenCL",
    "npu": "CompiledModel on a vendor's dispatch library",
    "external": "external:/path/to/delegate.so, such as Edge TPU, Arm NN, Hexagon or VX",
}
# Where the engine takes a delegate by itself, the rest of the graph is its own business.
_MAY_FALL_BACK = ("default", "none", "reference")


def interpreter(path: Path, threads: int, delegation: Delegation) -> Any:
    """Returns LiteRT's interpreter of ``path`` with a delegate, tensors not allocated yet.

    Raises:
        InvalidRequest: options for a delegate that has none.
        NotAvailable: the delegate cannot be loaded.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    make = functools.partial(Interpreter, str(path), num_threads=threads)
    word, _, library = delegation.name.partition(":")
    if word == "external":
        return make(
            experimental_delegates=[_external(library, delegation)],
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    if delegation.options:
        names = ", ".join(name for name, _ in delegation.options)
        raise InvalidRequest(f"LiteRT's delegate {word!r} takes no options, not {names}")
    if word == "none":
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return make(experimental_op_resolver_type=resolver)
    if word == "reference":
        return make(experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    return make()


def _external(library: str, delegation: Delegation) -> Any:
    from ai_edge_litert.interpreter import load_delegate

    if not library:
        raise InvalidRequest(f"which library? Say external:/path/to/delegate.so, not {library!r}")
    if not Path(library).is_file():
        raise NotAvailable(f"no such delegate: {library}")
    try:
        return load_delegate(library, dict(delegation.options))
    except AttributeError as error:
        raise NotAvailable(
            f"{library} is no LiteRT delegate: it has no tflite_plugin_create_delegate"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise NotAvailable(f"{library} cannot be loaded as a delegate: {error}") from error


def check_taken(path: Path, delegation: Delegation, taken: int, total: int) -> None:
    """Raises ``NotAvailable`` if the delegate asked for would not really run the file."""
    word = delegation.name.partition(":")[0]
    if word in _MAY_FALL_BACK or taken == total:
        return
    if taken == 0:
        raise NotAvailable(f"{delegation.name} takes none of the {total} operators of {path}")
    if not delegation.allow_fallback:
        raise NotAvailable(
            f"{delegation.name} takes {taken} of the {total} operators of {path}: "
            "--allow-fallback measures it all the same, and says so"
        )
