"""cct-export: puts a Compact Convolutional Transformer in Keras on a phone, a Pi or a server.

The Python API is the functions of ``cct_export.api``, available here too, loaded when first used::

    import cct_export

    report = cct_export.export_tflite("model.keras", "model.tflite", scheme="int8")
"""

from typing import Any

__version__ = "0.1.0"

_API = (
    "bench",
    "bundle",
    "check",
    "compare",
    "doctor",
    "export_onnx",
    "export_tflite",
    "import_model",
    "inspect",
    "inspect_model",
    "load",
    "predict",
    "push",
    "quantize_report",
    "recipe",
    "remove_device",
    "setup_device",
    "time_together",
    "train",
    "verify",
)
__all__ = [*_API, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _API:
        from cct_export import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
