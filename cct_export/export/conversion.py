"""From a Keras model to a plan in a format's steps where it is a CCT, else to a traced file."""

import logging

import keras

from cct_export.errors import InvalidRequest
from cct_export.formats import FORMATS
from cct_export.formats.traced import CONVERTERS
from cct_export.graph.fold import fold
from cct_export.graph.lower import can_lower, lower
from cct_export.graph.plan import Plan
from cct_export.importers.lookalike import recognize
from cct_export.specs import ExportSpec

log = logging.getLogger(__name__)


def plan_of(model: keras.Model, spec: ExportSpec) -> Plan | None:
    """Returns ``model`` as a folded plan in the steps that the format has; None if it is no CCT.

    Args:
        model: an image classifier.
        spec: ``format``, what the format reads of it, and ``no_fold``.

    Raises:
        InvalidRequest: a fold is to be left out that there is not, or the opset is unknown.
    """
    cct = model if can_lower(model) else recognize(model)
    if cct is None:
        return None
    format = FORMATS[spec.format]
    plan = fold(lower(cct), {*spec.no_fold, *format.WITHOUT_GAIN})
    log.debug("%s", plan)
    return format.primitives(plan, spec)


def trace(model: keras.Model, spec: ExportSpec) -> bytes:
    """Returns a model that is no CCT as a float32 file.

    Raises:
        ConversionError: the model cannot be written in this format.
        InvalidRequest: a fold is to be left out.
    """
    kind = type(model).__name__
    if spec.no_fold:
        raise InvalidRequest(
            f"nothing is folded in {model.name}, a {kind}: leave --no-fold {spec.no_fold[0]} out"
        )
    log.info("not folded: %s is a %s, no CCT; it is traced as it is", model.name, kind)
    return CONVERTERS[spec.format](model, spec)


def convert(model: keras.Model, spec: ExportSpec) -> bytes:
    """Returns ``model`` as a float32 file.

    Args:
        model: an image classifier.
        spec: ``format``, what the format reads of it, and ``no_fold``.

    Returns:
        The file: ``image`` ``(batch, H, W, C)``, 0–255, to ``logits`` float32 ``(batch, classes)``.

    Raises:
        ConversionError: the model cannot be written in this format.
        InvalidRequest: a fold is to be left out that there is not, or of a model without folds.
    """
    plan = plan_of(model, spec)
    if plan is None:
        return trace(model, spec)
    return FORMATS[spec.format].emit(plan, spec)
