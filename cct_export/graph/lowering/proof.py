"""Lowers a model, and takes the plan only if it computes what the model computes."""

from dataclasses import dataclass

import keras
import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.graph import steps
from cct_export.graph.lower import can_lower, lower
from cct_export.graph.lowering.builder import NotLowered, Tensor
from cct_export.graph.lowering.naming import named
from cct_export.graph.lowering.recognition import recognize
from cct_export.graph.lowering.walker import follow_model
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.graph.steps import Array
from cct_export.importers.equivalence import logits, logits_agree, probe_images
from cct_export.model.checkpoint import image_shape
from cct_export.text import plural

# Probabilities below are as good as 0 in float32.
_SMALLEST = 1e-30


@dataclass(frozen=True)
class Lowering:
    """A model as a plan, or the reason why it is none.

    Attributes:
        plan: unfolded; None if a step is missing, or the plan computes something else.
        reason: names the layer and what is not known of it; empty if there is a plan.
    """

    plan: Plan | None
    reason: str = ""


def lower_model(model: keras.Model, *, narrow: bool = False) -> Lowering:
    """Returns the plan of a model, if every operation of it is known.

    Args:
        model: an image classifier with one image as its input, built of any layers.
        narrow: whether weights stay float32, see ``Plan.narrowed``.
    """
    if can_lower(model):
        return Lowering(lower(model, narrow=narrow))
    try:
        plan = _plan(model)
    except NotLowered as error:
        return Lowering(None, str(error))
    difference = _difference(plan, model)
    if difference:
        return Lowering(None, difference)
    return Lowering(plan.narrowed() if narrow else plan)


def _plan(model: keras.Model) -> Plan:
    """Returns the plan of a model, unproven; raises ``NotLowered``."""
    if len(model.outputs) != 1:
        raise NotLowered(f"it has {plural(len(model.outputs), 'output')}")
    shape = image_shape(model)
    builder, output = follow_model(model, shape)
    if not isinstance(output, Tensor) or len(output.shape) not in (1, 2) or output.batch_axis:
        raise NotLowered("its output is not one vector for each image, or one for each slot")
    return named(recognize(builder.plan(output)))


def _images(shape: ImageShape) -> Array:
    """Returns the probe images and plain ones, of whose channels some or all are 0."""
    channels = shape[2]
    plain = np.zeros((channels + 1, *shape), np.float32)
    for channel in range(channels):
        plain[channel, ..., channel] = 255
    return np.concatenate([probe_images(shape), plain])


def _difference(plan: Plan, model: keras.Model) -> str:
    """Returns how a plan differs from its model; empty if only by rounding."""
    images = _images(plan.image_shape)
    size = model.inputs[0].shape[0] or len(images)
    images = np.resize(images, (-(-len(images) // size) * size, *plan.image_shape))
    if "int" in str(model.inputs[0].dtype):
        images = np.rint(images)
    expected = logits(model, images)
    last, scale = plan.steps[-1], 0.0

    def observe(name: str, x: Array) -> None:
        nonlocal scale
        if name in last.inputs and is_probability:
            scale = float(np.abs(x).max())

    is_probability = isinstance(last, steps.Softmax) or (
        isinstance(last, steps.Activation) and last.function == "sigmoid"
    )
    computed = evaluate(plan, images, observe).reshape(len(images), -1)
    if computed.shape != expected.shape:
        return f"it gives {len(expected)} answers for {len(images)} images"
    if is_probability:  # near 0 it hides what its logarithm shows
        expected, computed = (np.log(np.maximum(each, _SMALLEST)) for each in (expected, computed))
    if logits_agree(computed, expected, scale):
        return ""
    largest = float(np.abs(computed - expected).max())
    return f"the plan that was read from its graph is wrong: its logits differ by {largest:.2g}"
