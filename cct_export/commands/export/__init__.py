"""``cct-export``: one module per command."""
