"""How many numbers a CCT has, told from its architecture without building it."""

from itertools import pairwise

from cct_export.model.resize import token_grid
from cct_export.specs import ModelSpec


def parameters(spec: ModelSpec) -> int:
    """Returns the numbers in all weights, a fixed table of positions among them.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    width, inner = spec.width, spec.heads * spec.head_dim
    rows, columns = token_grid(spec)
    channels = (spec.channels, *spec.filters)
    tokenizer = spec.kernel**2 * sum(into * out for into, out in pairwise(channels))
    positions = rows * columns * width if spec.positional != "none" else 0
    biases = 3 * inner if spec.block == "keras" else 0
    attention = 4 * width * inner + biases + width
    mlp = sum((into + 1) * out for into, out in pairwise((width, *spec.mlp_units)))
    block = attention + mlp + 4 * width  # and two norms
    head = 2 * width + (width + 1) + (width + 1) * spec.classes  # norm, pooling, classifier
    return tokenizer + positions + spec.layers * block + head
