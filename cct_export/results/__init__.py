"""What was found out: frozen records, to JSON."""

from cct_export.results.architecture import Architecture, Cost, Layer
from cct_export.results.artifact import CONTRACT_KEY, Artifact
from cct_export.results.diagnosis import Diagnosis
from cct_export.results.imported import Imported
from cct_export.results.inspection import Inspection, Operator, OperatorKind, Tensor
from cct_export.results.measured import (
    Accuracy,
    BenchResult,
    OperatorProfile,
    OperatorTime,
    Sustained,
)
from cct_export.results.parity import ParityReport
from cct_export.results.prediction import Prediction
from cct_export.results.pushed import Pushed, SentFile
from cct_export.results.quantization import QuantizationReport, StepError

__all__ = [
    "CONTRACT_KEY",
    "Accuracy",
    "Architecture",
    "Artifact",
    "BenchResult",
    "Cost",
    "Diagnosis",
    "Imported",
    "Inspection",
    "Layer",
    "Operator",
    "OperatorKind",
    "OperatorProfile",
    "OperatorTime",
    "ParityReport",
    "Prediction",
    "Pushed",
    "QuantizationReport",
    "SentFile",
    "StepError",
    "Sustained",
    "Tensor",
]
