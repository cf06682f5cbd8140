"""Measures latency, memory, accuracy and operators of artifacts, on this and other machines."""
