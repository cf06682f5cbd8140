"""Training a CCT into a run directory."""
