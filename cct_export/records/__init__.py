"""Results: typed, frozen records that are written as JSON and read back."""

from cct_export.records.artifact import (
    CONTRACT_KEY,
    Artifact,
    Contract,
    InputContract,
    QuantizationSummary,
)
from cct_export.records.bench import (
    Accuracy,
    BenchResult,
    MeasuredFile,
    OperatorProfile,
    OperatorTime,
    PairedAccuracy,
    ReportedLatency,
    Runtime,
    Sustained,
)
from cct_export.records.export import Exported, MixedPrecision, TriedScheme
from cct_export.records.inspection import Inspection, Operator, OperatorKind, Tensor
from cct_export.records.machine import Conditions, Diagnosis, MachineInfo, RunConditions
from cct_export.records.micro import MicroReport
from cct_export.records.model import Architecture, Cost, Imported, Layer, Pushed, SentFile
from cct_export.records.output import OutputContract
from cct_export.records.parity import ParityReport
from cct_export.records.prediction import Answer, Prediction
from cct_export.records.quantization import QuantizationReport, StepError
