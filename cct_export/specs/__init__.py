"""Requests: frozen records of what to export, measure, import and train; standard library only."""

from cct_export.specs.bench import (
    DEFAULT_DELEGATION,
    PROFILES,
    BenchJob,
    BenchPasses,
    BenchPlan,
    BenchSpec,
    Delegation,
    Timing,
)
from cct_export.specs.export import (
    AUTO,
    BEST,
    CALIBRATION_SAMPLES,
    FOLDS,
    INPUT_TYPES,
    METHODS,
    OPSETS,
    PARITY_SAMPLES,
    ROUNDINGS,
    TARGETS,
    CalibrationSpec,
    Constraints,
    ExportRequest,
    ExportSpec,
    QuantScheme,
    choose_opset,
    opset_of,
)
from cct_export.specs.model import (
    BLOCKS,
    DATA_SETS,
    DEFAULT_MODEL,
    GELUS,
    NORM_EPSILON,
    NORMALIZATIONS,
    POSITIONALS,
    SAVED_MODEL_FILE,
    STOCHASTIC_DEPTH_MODES,
    ImportSpec,
    JSONObject,
    ModelSpec,
)
from cct_export.specs.train import TrainSpec
