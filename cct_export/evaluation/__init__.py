"""Numerical parity with the Keras model, accuracy, latency and predictions of exported files."""
