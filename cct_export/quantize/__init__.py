"""Schemes as data, and one module per format that applies them."""
