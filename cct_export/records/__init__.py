"""What was found out: frozen records, to JSON."""

from cct_export.records.architecture import Architecture, Cost, Layer
from cct_export.records.artifact import CONTRACT_KEY, Artifact
from cct_export.records.bench import Accuracy, BenchResult, OperatorProfile, OperatorTime, Sustained
from cct_export.records.diagnosis import Diagnosis
from cct_export.records.imported import Imported
from cct_export.records.inspection import Inspection, Operator, OperatorKind, Tensor
from cct_export.records.parity import ParityReport
from cct_export.records.prediction import Prediction
from cct_export.records.pushed import Pushed, SentFile
from cct_export.records.quantization import QuantizationReport, StepError

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
