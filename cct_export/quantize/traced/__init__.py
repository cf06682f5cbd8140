"""Quantizing files of models that are no CCT with the libraries' own tools."""
