"""cct-export: Keras Compact Convolutional Transformers as TFLite and ONNX files, verified.

The Python API is the functions of ``cct_export.api``, available here too, loaded when first used::

    import cct_export

    exported = cct_export.export_tflite("model.keras", output="model.tflite", scheme="int8")
    print(exported.parity.sqnr_db)
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cct_export.api import *  # noqa: F403

__version__ = "0.1.0"

# ONNX Runtime keeps a device ID and sends telemetry unless this is set before it starts: nothing is
# contacted that the user did not name. Processes that are started from here inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # While the API itself is imported, its list of names is not there yet.
    api = importlib.import_module("cct_export.api")
    if name in getattr(api, "__all__", ()):
        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *importlib.import_module("cct_export.api").__all__])
