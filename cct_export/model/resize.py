"""A CCT for images of another size: its tokens, and what it learned of where they are."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cct_export.errors import InvalidModel
from cct_export.specs import ModelSpec

Grid = tuple[int, int]


def stage_sides(spec: ModelSpec) -> list[int]:
    """Returns the height, which is the width, of what each stage of the tokenizer makes.

    Raises:
        InvalidModel: the image is too small for a stage of it.
    """
    sides = [spec.image_size]
    for stage in range(len(spec.filters)):
        framed = sides[-1] + 2 * spec.padding
        if sides[-1] < 1 or framed < spec.kernel:
            raise InvalidModel(
                f"images of {spec.image_size}×{spec.image_size} are too small for {spec.name}: "
                f"convolution {stage + 1} of {len(spec.filters)} looks at {spec.kernel} pixels "
                f"each way and gets {max(0, framed)}"
            )
        convolved = (framed - spec.kernel) // spec.stride + 1
        # The pool's window of 3 moves by 2 over one more pixel on each side; SAME rounds up.
        sides.append((convolved + 3) // 2 if spec.block == "keras" else (convolved + 1) // 2)
    return sides[1:]


def token_grid(spec: ModelSpec) -> Grid:
    """Returns the rows and columns of tokens that the tokenizer makes of an image.

    Raises:
        InvalidModel: the image is too small for a stage of it.
    """
    side = stage_sides(spec)[-1]
    return side, side


def at_size(spec: ModelSpec, image_size: int) -> ModelSpec:
    """Returns the architecture for images of ``image_size``×``image_size``.

    Raises:
        InvalidModel: too small for the tokenizer.
    """
    if image_size < 1:
        raise InvalidModel(f"images of {image_size} pixels: give a size of 1 or more")
    resized = replace(spec, image_size=image_size)
    token_grid(resized)
    return resized


def positions(table: NDArray[np.floating], old_grid: Grid, new_grid: Grid) -> NDArray[np.float64]:
    """Returns a learned position embedding for another grid of tokens.

    Bilinear between the centres of the tokens, as if both grids covered the same picture; beyond
    the outermost centres the outermost value. That is what the paper's code does (in PyTorch's
    words, ``bilinear`` with ``align_corners=False``), here in float64.

    Args:
        table: ``(old rows · old columns, width)``, row by row.
        old_grid: rows and columns of the table.
        new_grid: rows and columns wanted.

    Returns:
        float64 ``(new rows · new columns, width)``; of equal grids the table itself.

    Raises:
        InvalidModel: the table has another number of rows than the old grid.
    """
    rows, columns = old_grid
    if table.ndim != 2 or len(table) != rows * columns:
        raise InvalidModel(
            f"a position embedding of shape {table.shape} is not one of {rows}×{columns} tokens"
        )
    if old_grid == new_grid:
        return table.astype(np.float64)
    grid = table.astype(np.float64).reshape(rows, columns, -1)
    down, across = _weights(rows, new_grid[0]), _weights(columns, new_grid[1])
    resized: NDArray[np.float64] = np.einsum("ar,bc,rcw->abw", down, across, grid)
    return resized.reshape(new_grid[0] * new_grid[1], -1)


def _weights(old: int, new: int) -> NDArray[np.float64]:
    """Returns how much of each old place is in each new one, ``(new, old)``; rows sum to 1."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = np.floor(centres).astype(int)
    share = centres - below
    weights = np.zeros((new, old))
    weights[np.arange(new), below] = 1 - share
    # Where nothing is above, nothing of it is taken.
    weights[np.arange(new), np.minimum(below + 1, old - 1)] += share
    return weights
