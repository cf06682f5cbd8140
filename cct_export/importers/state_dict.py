"""State dicts in PyTorch's files, read without executing anything in them.

``.safetensors`` needs no PyTorch. ``.pth``, ``.pt``, ``.bin`` and ``.ckpt`` are pickles, in effect
programs: PyTorch reads them with ``weights_only``, which builds tensors and plain containers and
calls nothing else.
"""

import argparse
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidModel, MissingDependency
from cct_export.files import check_file
from cct_export.importers.location import SAFETENSORS
from cct_export.model.checkpoint import check_archive_size, check_declared_size
from cct_export.untrusted import refusing

# Keys under which training scripts save the weights, the first found is used; and prefixes that
# they put before every name.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the tensors of a state dict in the order of the file, and notes on their choice.

    Wrappers (``{"state_dict": …}``) and prefixes of all names (``module.``) are removed.
    Floating-point numbers become float32; integers stay unchanged.

    Raises:
        InvalidRequest: there is no such file.
        InvalidModel: truncated, not a state dict, or it holds Python code.
        MissingDependency: the library that reads such a file is not installed.
    """
    check_file(path, "model file")
    notes: tuple[str, ...] = ()
    if path.suffix.lower() in SAFETENSORS:
        typed = _safetensors(path)
    else:
        with refusing(InvalidModel, f"{path} cannot be used", otherwise="it is no state dict"):
            tensors, notes = _tensors(path)
            typed = {name: _array(tensor, name, path) for name, tensor in tensors.items()}
    kinds = Counter(kind for kind, _ in typed.values() if _is_float(kind) and kind != "float32")
    notes += tuple(
        f"{count} of {len(typed)} tensors converted from {kind} to float32"
        for kind, count in kinds.items()
    )
    arrays = [
        np.asarray(array, np.float32) if _is_float(kind) else array
        for kind, array in typed.values()
    ]
    return dict(zip(_without_prefixes(list(typed)), arrays, strict=True)), notes


def _is_float(kind: str) -> bool:
    """Goes by the name: bfloat16 comes from a library, and numpy does not call it floating."""
    return "float" in kind


def _without_prefixes(names: list[str]) -> list[str]:
    """Returns ``names`` without the prefixes that all of them share, repeated ones included."""
    while names:
        shared = [prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in names)]
        if not shared:
            break
        names = [name.removeprefix(shared[0]) for name in names]
    return names


def _safetensors(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Returns dtype and values of every tensor."""
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependency.of("safetensors", "safetensors") from error
    why = "it is damaged, or has a type that numpy lacks"
    with refusing(InvalidModel, f"{path} is not a readable .safetensors file", otherwise=why):
        arrays: dict[str, np.ndarray] = load_file(path)
        return {name: (array.dtype.name, array) for name, array in arrays.items()}


def _tensors(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Returns the state dict in a pickle, as PyTorch tensors, and a note on the others in it."""
    checkpoint = _unpickle(path)
    keys, content = _unwrap(checkpoint)
    if not isinstance(content, Mapping) or not content:
        raise InvalidModel(f"{path} does not hold a state dict but a {type(content).__name__}")
    others = [str(name) for name, value in content.items() if not _is_tensor(value)]
    if others:
        raise InvalidModel(
            f"{path} does not hold a state dict: {', '.join(others[:3])} is not a tensor"
        )
    declared_bytes = sum(tensor.numel() * tensor.element_size() for tensor in content.values())
    check_declared_size(declared_bytes, path)
    tensors = {str(name): tensor for name, tensor in content.items()}
    return tensors, _other_state_dicts(checkpoint, keys, len(tensors))


def _unwrap(content: Any) -> tuple[list[str], Any]:
    """Returns the keys of up to two wrappers, and their content."""
    keys: list[str] = []
    while len(keys) < 2 and isinstance(content, Mapping):
        inner = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        keys.append(inner[0])
        content = content[inner[0]]
    return keys, content


def _other_state_dicts(content: Any, keys: list[str], tensors: int) -> tuple[str, ...]:
    """Returns a line on the state dicts beside the one under ``keys``, if there are any."""
    others = []
    for key in keys:
        for name, value in content.items():
            inner = _unwrap(value)[1] if name != key else None
            if isinstance(inner, Mapping) and inner and all(map(_is_tensor, inner.values())):
                others.append(f"{name!r} ({len(inner)} tensors)")
        content = content[key]
    if not others:
        return ()
    path = ".".join(keys)
    return (f"weights of {path!r} ({tensors} tensors), not of {', '.join(others)} beside it",)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _unpickle(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency.of("torch", "torch") from error
    if zipfile.is_zipfile(path):
        check_archive_size(path)
    try:
        # Training scripts save their options too; a Namespace holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # A broken pickle may raise any kind of exception.
    except Exception as error:
        raise InvalidModel(f"{path} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if match := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds Python objects that are not tensors ({match[1]}), which are never run"
    if "TorchScript" in text:
        return "it is a TorchScript program, not a state dict: save model.state_dict()"
    if "legacy .tar" in text:
        return "PyTorch before 0.1.10 wrote it, as a tar archive: load and save it again there"
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in text:
        return "it holds more than tensors, which is never run"
    # A KeyError's text is a number, and PyTorch appends long advice to other texts.
    detail = f" ({text.partition('. ')[0][:200]})" if " " in text else ""
    return f"it is not a complete PyTorch file{detail}"


def _array(tensor: Any, name: str, path: Path) -> tuple[str, np.ndarray]:
    """Returns dtype and values of a tensor."""
    import torch

    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex())
    if not plain or tensor.device.type != "cpu":
        raise InvalidModel(f"{path} cannot be used: {name} is not a plain tensor of numbers")
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_floating_point():  # numpy lacks some of these dtypes
        tensor = tensor.to(torch.float32)
    array: np.ndarray = tensor.detach().contiguous().numpy()
    return kind, array
