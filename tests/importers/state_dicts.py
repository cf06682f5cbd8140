"""Random state dicts of the paper's architecture as numpy arrays, and files of them.

They are written byte by byte, without PyTorch.
"""

import itertools
import json
import struct

import numpy as np

from cct_export.importers.source import import_checkpoint
from cct_export.specs import ImportSpec


def state_dict(
    width=64, layers=1, kernel=3, filters=(), side=8, classes=10, ratio=1, positional=True
):
    """Returns arrays by the authors' names; ``side``² tokens."""
    random = np.random.default_rng(0)
    arrays = {}

    def add(name, *shape):
        scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        arrays[name] = (random.normal(0, scale, shape) + (len(shape) == 1)).astype(np.float32)

    channels = (3, *filters, width)
    for index, (inside, outside) in enumerate(itertools.pairwise(channels)):
        add(f"tokenizer.conv_layers.{index}.0.weight", outside, inside, kernel, kernel)
    if positional:
        add("classifier.positional_emb", 1, side**2, width)
    for index in range(layers):
        block = f"classifier.blocks.{index}"
        add(f"{block}.self_attn.qkv.weight", 3 * width, width)
        for name, out, into in (
            ("self_attn.proj", width, width),
            ("linear1", ratio * width, width),
            ("linear2", width, ratio * width),
        ):
            add(f"{block}.{name}.weight", out, into)
            add(f"{block}.{name}.bias", out)
        for name in ("pre_norm", "norm1"):
            add(f"{block}.{name}.weight", width)
            add(f"{block}.{name}.bias", width)
    add("classifier.norm.weight", width)
    add("classifier.norm.bias", width)
    for name, out in (("attention_pool", 1), ("fc", classes)):
        add(f"classifier.{name}.weight", out, width)
        add(f"classifier.{name}.bias", out)
    return arrays


TYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "complex64": "C64", "bool": "BOOL",
}  # fmt: skip


def write_safetensors(path, arrays):
    """Writes arrays in the format of https://github.com/huggingface/safetensors."""
    header, start = {}, 0
    for name, array in arrays.items():
        end = start + array.nbytes
        shape = list(array.shape)
        header[name] = {
            "dtype": TYPES[array.dtype.name],
            "shape": shape,
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def load(path, **options):
    """Returns the account of an import with the options of ``ImportSpec``."""
    return import_checkpoint(str(path), ImportSpec(**options))[0]
