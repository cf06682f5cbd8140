"""From an inference plan to the bytes of a file, one module per format."""

from collections.abc import Sequence
from typing import Protocol

from cct_export.formats import onnx, tflite
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.specs import ExportSpec


class Format(Protocol):
    """What each module of a format provides.

    Attributes:
        WITHOUT_GAIN: names of the folds that make nothing faster in this format.
    """

    @property
    def WITHOUT_GAIN(self) -> Sequence[str]: ...  # noqa: D102, N802

    def primitives(self, plan: Plan, spec: ExportSpec) -> Plan:
        """Returns the plan in steps that the format has as operators."""
        ...

    def emit(self, plan: Plan | QuantizedPlan, spec: ExportSpec) -> bytes:
        """Returns the plan as the content of a file."""
        ...


FORMATS: dict[str, Format] = {"tflite": tflite, "onnx": onnx}
