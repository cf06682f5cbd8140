"""``python -m cct_export``: the same as ``cct-export``."""

from cct_export.commands.program import export_main

export_main()
