"""Tensors by name from PyTorch's files, without running anything that is in them.

``.safetensors`` needs no PyTorch. ``.pth``, ``.pt``, ``.bin`` and ``.ckpt`` are pickles, in effect
programs: PyTorch reads them with ``weights_only``, which makes tensors and plain containers and
calls nothing else.
"""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cct_export.errors import InvalidModel, MissingDependency
from cct_export.model.untrusted import check_archive, check_declared

SAFETENSORS = (".safetensors",)
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
# What training scripts put around the weights, and before every name.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict, float32, in the order of the file.

    A wrapper (``{"state_dict": …}``) and a prefix of all names (``module.``) are taken off.

    Raises:
        InvalidModel: missing, truncated, no state dict, or it holds Python code.
        MissingDependency: the library that reads such a file is not installed.
    """
    if not path.is_file():
        raise InvalidModel(f"no such model file: {path}")
    if path.suffix in SAFETENSORS:
        named: Mapping[str, Any] = _safetensors(path)
    else:
        named = {name: _array(tensor, name, path) for name, tensor in _tensors(path).items()}
    for prefix in _PREFIXES:
        if named and all(name.startswith(prefix) for name in named):
            named = {name.removeprefix(prefix): array for name, array in named.items()}
    return {name: np.asarray(array, np.float32) for name, array in named.items()}


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependency.of("safetensors", "safetensors") from error
    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModel(f"{path} is not a readable .safetensors file: {error}") from error
    return arrays


def _tensors(path: Path) -> dict[str, Any]:
    """Returns the state dict in a pickle, its tensors still PyTorch's."""
    content = _unpickled(path)
    for _ in range(2):
        inner = [key for key in _WRAPPERS if isinstance(_entry(content, key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content:
        raise InvalidModel(f"{path} holds no state dict but a {type(content).__name__}")
    import torch

    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise InvalidModel(f"{path} holds no state dict: {', '.join(others[:3])} is no tensor")
    declared = sum(tensor.numel() * tensor.element_size() for tensor in content.values())
    check_declared(declared, path)
    return {str(name): tensor for name, tensor in content.items()}


def _entry(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def _unpickled(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency.of("torch", "torch") from error
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        # Training scripts save their options too: a Namespace holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # What a broken pickle raises is as manifold as pickles are.
    except Exception as error:
        raise InvalidModel(f"{path} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", text)
    if named:
        return f"it holds Python objects that are no tensors ({named[1]}), which are never run"
    if "TorchScript" in text:
        return "it is a TorchScript program, not a state dict: save model.state_dict()"
    if "legacy .tar" in text:
        return "PyTorch wrote it before 0.1.10, as a tar archive: load and save it again there"
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in text:
        return "it holds more than tensors, which is never run"
    # A KeyError's text is a number, and PyTorch appends a page of advice to others.
    detail = f" ({text.partition('. ')[0][:200]})" if " " in text else ""
    return f"it is no whole PyTorch file{detail}"


def _array(tensor: Any, name: str, path: Path) -> np.ndarray:
    import torch

    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex())
    if not plain or tensor.device.type != "cpu":
        raise InvalidModel(f"{path} cannot be used: {name} is no plain tensor of numbers")
    array: np.ndarray = tensor.detach().to(torch.float32).contiguous().numpy()
    return array
