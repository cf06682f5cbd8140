"""Folders that someone who never saw this project can put on a device and run."""

from cct_export.bundles.making import make

__all__ = ["make"]
