"""Latency, memory, accuracy: each measured in a pass of its own."""
