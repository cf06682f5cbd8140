"""Thin click commands: they read options, call ``cct_export.api`` and print what it returns."""
