"""Models from presets, ``.keras`` files, run directories and foreign checkpoints."""

from cct_export.importers.source import (
    LoadedModel,
    in_memory,
    load_foreign,
    load_model,
    open_dataset,
)

__all__ = ["LoadedModel", "in_memory", "load_foreign", "load_model", "open_dataset"]
