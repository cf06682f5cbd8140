"""From a Keras model to a float32 file: by a folded plan where the model is a CCT, else traced."""

import logging

import keras

from cct_export import registry
from cct_export.errors import InvalidRequest
from cct_export.graph.fold import fold
from cct_export.graph.lower import can_lower, lower
from cct_export.importers.lookalike import recognize
from cct_export.specs import ExportSpec

log = logging.getLogger(__name__)


def convert(model: keras.Model, spec: ExportSpec) -> bytes:
    """Returns ``model`` as a float32 file.

    Args:
        model: an image classifier.
        spec: ``format``, what the format reads of it, and ``no_fold``.

    Returns:
        The file: ``image`` float32 ``(batch, H, W, C)``, 0–255, to ``logits`` float32
        ``(batch, classes)``.

    Raises:
        ConversionError: the model cannot be written in this format.
        InvalidRequest: a fold is to be left out that there is not, or of a model without folds.
    """
    cct = model if can_lower(model) else recognize(model)
    if cct is not None:
        plan = fold(lower(cct), spec.no_fold)
        log.debug("%s", plan)
        content: bytes = registry.load("cct_export.formats", spec.format).emit(plan, spec)
        return content
    kind = type(model).__name__
    if spec.no_fold:
        raise InvalidRequest(
            f"nothing is folded in {model.name}, a {kind}: leave --no-fold {spec.no_fold[0]} out"
        )
    log.info("not folded: %s is a %s, no CCT; it is traced as it is", model.name, kind)
    content = registry.load("cct_export.formats.traced", spec.format).convert(model, spec)
    return content
