"""Changes to a trained CCT: other classes, another image size, another normalization."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model.cct import CCT
from cct_export.model.presets import CIFAR, CIFAR100, IMAGENET
from cct_export.model.sizes import TokenGrid, token_grid
from cct_export.specs import ImportSpec, ModelSpec

NORMALIZATIONS = {"cifar10": CIFAR, "cifar100": CIFAR100, "imagenet": IMAGENET, "none": ((), ())}


def adapt(model: CCT, options: ImportSpec) -> tuple[CCT, tuple[str, ...]]:
    """Returns ``model`` with the sizes, labels and normalization of ``options``.

    Learnable positions are interpolated as in the paper's code; the sine table is computed for the
    new number of tokens. If the number of classes changes, the classifier gets new weights.

    Args:
        model: the trained model, which stays unchanged.
        options: ``image_size``, ``classes``, ``labels`` and ``normalize`` change the model;
            labels also set the number of classes.

    Returns:
        The adapted model, and a line for each change of its weights.

    Raises:
        InvalidRequest: labels and classes differ in number, the image is too small for the
            tokenizer, or the normalization has three channels and the model has not.
    """
    spec = model.spec
    classes = options.classes or len(options.labels) or spec.classes
    mean, std = spec.mean, spec.std
    if options.normalize is not None:
        mean, std = NORMALIZATIONS[options.normalize]
    try:
        adapted_spec = replace(
            spec,
            image_size=options.image_size or spec.image_size,
            classes=classes,
            labels=options.labels or (spec.labels if classes == spec.classes else ()),
            mean=mean,
            std=std,
        )
        if adapted_spec == spec:
            return model, ()
        adapted = CCT(replace(adapted_spec, name=_name(spec, adapted_spec)))
    except ValueError as error:
        raise InvalidRequest(f"the model cannot be adapted: {error}") from error
    new_head = spec.classes != classes
    notes = copy_weights(model, adapted, new_head)
    if new_head:
        notes.append("the new head has random weights: fine-tune the model before you use it")
    if (spec.mean, spec.std) != (mean, std):
        notes.append("normalization replaced: the weights were trained with another")
    return adapted, tuple(notes)


def _name(spec: ModelSpec, adapted: ModelSpec) -> str:
    """Returns a name that differs from that of the preset which the model was."""
    name = spec.name
    if adapted.image_size != spec.image_size:
        name += f"_{adapted.image_size}px"
    if adapted.classes != spec.classes:
        name += f"_c{adapted.classes}"
    return name


def copy_weights(source: CCT, target: CCT, new_head: bool) -> list[str]:
    """Copies the weights of ``source`` into ``target``.

    Learned positions are interpolated where the grid of tokens differs; a sine table is that of the
    new grid.

    Args:
        source: a trained model.
        target: of the same architecture but for image size, classes and activation; changed in
            place.
        new_head: leave the classification head of ``target`` as it is.

    Returns:
        A line for every change of the weights.
    """
    changes = []
    for layer in target.layers:
        weights = source.get_layer(layer.name).get_weights()
        if layer.name == "logits" and new_head:
            changes.append(
                f"a new head for {target.spec.classes} classes in place of {source.spec.classes}"
            )
            continue
        if layer.name == "position_embedding":
            old, new = token_grid(source.spec), token_grid(target.spec)
            if old != new and target.spec.positional == "sine":
                continue
            if old != new:
                weights = [interpolate_positions(weights[0], old, new)]
                changes.append(
                    f"positions of {old[0]}×{old[1]} tokens interpolated to {new[0]}×{new[1]}"
                )
        layer.set_weights(weights)
    return changes


def with_image_size(spec: ModelSpec, image_size: int) -> ModelSpec:
    """Returns the architecture for images of ``image_size``×``image_size`` pixels.

    Raises:
        InvalidModel: too small for the tokenizer.
    """
    if image_size < 1:
        raise InvalidModel(f"images of {image_size} pixels: give a size of 1 or more")
    resized = replace(spec, image_size=image_size)
    token_grid(resized)
    return resized


def interpolate_positions(
    table: NDArray[np.floating], old_grid: TokenGrid, new_grid: TokenGrid
) -> NDArray[np.float64]:
    """Returns a learned position embedding for another grid of tokens.

    Bilinear between the centres of the tokens, both grids covering the same image; beyond the
    outermost centres the outermost value. The paper's code does the same (in PyTorch ``bilinear``
    with ``align_corners=False``), here in float64.

    Args:
        table: ``(old rows · old columns, width)``, row by row.
        old_grid: rows and columns of the table.
        new_grid: rows and columns of the result.

    Returns:
        float64 ``(new rows · new columns, width)``; the table itself if the grids are equal.

    Raises:
        InvalidModel: the table does not have the rows of the old grid.
    """
    rows, columns = old_grid
    if table.ndim != 2 or len(table) != rows * columns:
        raise InvalidModel(
            f"a position embedding of shape {table.shape} is not one of {rows}×{columns} tokens"
        )
    if old_grid == new_grid:
        return table.astype(np.float64)
    grid = table.astype(np.float64).reshape(rows, columns, -1)
    by_row, by_column = _bilinear_matrix(rows, new_grid[0]), _bilinear_matrix(columns, new_grid[1])
    resized: NDArray[np.float64] = np.einsum("ar,bc,rcw->abw", by_row, by_column, grid)
    return resized.reshape(new_grid[0] * new_grid[1], -1)


def _bilinear_matrix(old: int, new: int) -> NDArray[np.float64]:
    """Returns the weight of each old position in each new one, ``(new, old)``; rows sum to 1."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = np.floor(centres).astype(int)
    fraction = centres - below
    matrix = np.zeros((new, old))
    matrix[np.arange(new), below] = 1 - fraction
    # At the last position the fraction is 0.
    matrix[np.arange(new), np.minimum(below + 1, old - 1)] += fraction
    return matrix
