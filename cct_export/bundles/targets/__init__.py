"""What a bundle may be for: one module per target.

Each has ``files(contents)``, which returns the bundle's files by path below its folder, what every
bundle has among them (``Contents.common``). Their texts are in ``cct_export/bundles/texts``.
"""
