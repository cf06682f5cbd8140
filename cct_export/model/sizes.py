"""Numbers of tokens and parameters of a CCT, computed from its architecture without building it."""

from itertools import pairwise

from cct_export.errors import InvalidModel
from cct_export.specs import ModelSpec

# Rows and columns of tokens.
TokenGrid = tuple[int, int]


def stage_sides(spec: ModelSpec, image_size: int | None = None) -> list[int]:
    """Returns the height (equal to the width) of the output of each stage of the tokenizer.

    Args:
        spec: the architecture.
        image_size: height and width of the image; None for the architecture's own.

    Raises:
        InvalidModel: the image is too small for a stage.
    """
    size = spec.image_size if image_size is None else image_size
    sides = [size]
    for stage in range(len(spec.filters)):
        padded = sides[-1] + 2 * spec.padding
        if sides[-1] < 1 or padded < spec.kernel:
            raise InvalidModel(
                f"images of {size}×{size} are too small for {spec.name}: convolution {stage + 1} "
                f"of {len(spec.filters)} looks at {spec.kernel} pixels each way and gets "
                f"{max(0, padded)}"
            )
        convolved = (padded - spec.kernel) // spec.stride + 1
        # The pool's window of 3 moves by 2 over one more pixel on each side; SAME rounds up.
        sides.append((convolved + 3) // 2 if spec.block == "keras" else (convolved + 1) // 2)
    return sides[1:]


def token_grid(spec: ModelSpec) -> TokenGrid:
    """Returns the rows and columns of tokens of an image.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    side = stage_sides(spec)[-1]
    return side, side


def parameters_by_part(spec: ModelSpec) -> dict[str, int]:
    """Returns the number of parameters of each part, in the order of the computation.

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


def parameter_count(spec: ModelSpec) -> int:
    """Returns the number of all parameters, a fixed table of positions included.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    parts = parameters_by_part(spec)
    block = parts["attention"] + parts["mlp"]
    return sum(parts.values()) + (spec.layers - 1) * block
