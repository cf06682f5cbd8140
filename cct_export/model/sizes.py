"""How many numbers a CCT has, told from its architecture without building it."""

from itertools import pairwise

from cct_export.model.resize import token_grid
from cct_export.specs import ModelSpec


def parts(spec: ModelSpec) -> dict[str, int]:
    """Returns the numbers in the weights of each part, in the order of the computation.

    Args:
        spec: the architecture.

    Returns:
        ``convolution 1`` and so on, ``positions`` (a fixed table counts), then of one block
        ``attention`` and ``mlp`` with a norm each, and ``norm``, ``pooling`` and ``logits``.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    width, inner = spec.width, spec.heads * spec.head_dim
    rows, columns = token_grid(spec)
    channels = pairwise((spec.channels, *spec.filters))
    norm = 2 * width
    biases = 3 * inner if spec.block == "keras" else 0
    return {
        f"convolution {stage}": spec.kernel**2 * into * out
        for stage, (into, out) in enumerate(channels, 1)
    } | {
        "positions": rows * columns * width if spec.positional != "none" else 0,
        "attention": norm + 4 * width * inner + biases + width,
        "mlp": norm + sum((into + 1) * out for into, out in pairwise((width, *spec.mlp_units))),
        "norm": norm,
        "pooling": width + 1,
        "logits": (width + 1) * spec.classes,
    }


def parameters(spec: ModelSpec) -> int:
    """Returns the numbers in all weights, a fixed table of positions among them.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    found = parts(spec)
    block = found["attention"] + found["mlp"]
    return sum(found.values()) + (spec.layers - 1) * block
