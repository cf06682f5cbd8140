"""A session over one artifact, one module per engine."""

from types import ModuleType

from cct_export import registry

# Which engine runs a format; each is a module of this room.
ENGINES = {"tflite": "litert", "onnx": "onnxruntime", "keras": "keras"}


def engine_of(format: str) -> ModuleType:
    """Imports the engine that runs ``format``, a key of ``ENGINES``."""
    return registry.load(__name__, ENGINES[format])
