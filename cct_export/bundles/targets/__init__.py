"""What a bundle may be for: one module per target.

Each has ``files(contents)``, which returns the bundle's files by path below its folder, those that
every bundle has among them, see ``Contents.common``. Their texts are in ``cct_export/bundles/texts``.
"""
