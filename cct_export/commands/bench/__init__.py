"""``cct-bench``: one module per command."""
