"""The file formats: each writes an inference plan as the bytes of a TFLite, ONNX or ncnn file.

``tflite``, ``onnx`` and ``ncnn`` write plans, on ``tflite_graph`` and so on. ``traced`` runs the
stock converters on models that cannot be lowered.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from cct_export.formats import ncnn, onnx, tflite
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.specs import ExportSpec


class Format(Protocol):
    """The interface of a format's module."""

    def skipped_folds(self, spec: ExportSpec) -> Sequence[str]:
        """Returns the names of the folds that make such a file neither faster nor closer."""
        ...

    def legalize(self, plan: Plan, spec: ExportSpec) -> Plan:
        """Returns the plan in steps that the format has as operators."""
        ...

    def emit(
        self, plan: Plan | QuantizedPlan, spec: ExportSpec, metadata: Mapping[str, str | bytes] = {}
    ) -> bytes:
        """Returns the plan as the content of a file, with metadata: names and texts."""
        ...


FORMATS: dict[str, Format] = {"tflite": tflite, "onnx": onnx, "ncnn": ncnn}


def weights_of(quantized: QuantizedPlan, spec: ExportSpec) -> bytes:
    """Returns the weights, where the format has them in another file; else nothing."""
    return ncnn.weights(quantized, spec) if spec.format == "ncnn" else b""
