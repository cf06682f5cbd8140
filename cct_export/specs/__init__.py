"""What is asked for: frozen records, standard library only."""

from cct_export.specs.bench import (
    DEFAULT_DELEGATION,
    PROFILES,
    BenchJob,
    BenchPasses,
    BenchSpec,
    Delegation,
    Timing,
)
from cct_export.specs.export import (
    AUTO,
    BEST,
    METHODS,
    ROUNDINGS,
    TARGETS,
    CalibrationSpec,
    ExportSpec,
    QuantScheme,
    TuningSpec,
)
from cct_export.specs.model import (
    BLOCKS,
    DEFAULT_MODEL,
    GELUS,
    NORMALIZATIONS,
    POSITIONALS,
    STOCHASTIC_DEPTHS,
    ImportSpec,
    ModelSpec,
)
from cct_export.specs.train import TrainSpec

__all__ = [
    "AUTO",
    "BEST",
    "BLOCKS",
    "DEFAULT_DELEGATION",
    "DEFAULT_MODEL",
    "GELUS",
    "METHODS",
    "NORMALIZATIONS",
    "POSITIONALS",
    "PROFILES",
    "ROUNDINGS",
    "STOCHASTIC_DEPTHS",
    "TARGETS",
    "BenchJob",
    "BenchPasses",
    "BenchSpec",
    "CalibrationSpec",
    "Delegation",
    "ExportSpec",
    "ImportSpec",
    "ModelSpec",
    "QuantScheme",
    "Timing",
    "TrainSpec",
    "TuningSpec",
]
