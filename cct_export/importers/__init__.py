"""Models from presets, ``.keras`` files, run directories and checkpoints of other code."""
