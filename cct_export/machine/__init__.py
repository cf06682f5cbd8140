"""The machine and the library versions a measurement or conversion was made with."""

from cct_export.machine.facts import (
    cpu_model,
    describe,
    governor,
    isa_of,
    usable_cores,
    versions,
)
from cct_export.machine.watching import Watch, conditions, worst

__all__ = [
    "Watch",
    "conditions",
    "cpu_model",
    "describe",
    "governor",
    "isa_of",
    "usable_cores",
    "versions",
    "worst",
]
