"""Models from presets, ``.keras`` files, run directories and checkpoints of other code."""

from cct_export.importers.source import (
    LoadedModel,
    import_checkpoint,
    in_memory,
    load_model,
    open_dataset,
)
