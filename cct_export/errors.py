"""The errors a caller may see, each one line that says what is wrong and what to do.

CCTExportError
├── MissingDependency     a library that an extra installs is not here
├── InvalidRequest        what was asked for does not fit together
├── UnsupportedScheme     the format has no such quantization scheme
├── InvalidModel          the file is not a model that can be used
├── InvalidArtifact       the .tflite or .onnx file cannot be used
├── InvalidData           images or labels cannot be used
├── OutputError           the result cannot be written where it was asked for
├── ConversionError       the converter refused the model
├── ParityFailed          a step needs a file that passed parity, and it did not
├── EngineFailed          the engine broke while running the artifact
└── NotAvailable          the delegate or device is not here, or does not take the artifact
    └── ConnectionLost    the device was there, and is no longer

A failed check (parity, accuracy) is a result, not an error: commands turn it into an exit code.
"""


class CCTExportError(Exception):
    """Root of the tree; ``exit_code`` is what a command ends with."""

    exit_code = 1


class MissingDependency(CCTExportError):
    """A library of an optional extra is not installed."""

    exit_code = 6

    @classmethod
    def of(cls, library: str, extra: str) -> "MissingDependency":
        """Returns the error for ``library``, which the extra ``extra`` of this package brings."""
        return cls(f"{library} is not installed: pip install 'cct-export[{extra}]' brings it")


class InvalidRequest(CCTExportError):
    """What was asked for does not fit together."""

    exit_code = 2


class UnsupportedScheme(CCTExportError):
    """The quantization scheme does not exist, or not for the format asked for."""

    exit_code = 2


class InvalidModel(CCTExportError):
    """The model cannot be read, is unsafe, or is not an image classifier."""


class InvalidArtifact(CCTExportError):
    """The exported file cannot be read by its engine."""


class InvalidData(CCTExportError):
    """Images or labels are missing, unreadable or of the wrong kind."""


class OutputError(CCTExportError):
    """The output cannot be written; nothing was left half-written."""


class ConversionError(CCTExportError):
    """A converter refused the model; the message lists the operators where it knows them."""


class ParityFailed(CCTExportError):
    """A step needs a file that passed parity, and it did not."""

    exit_code = 3


class EngineFailed(CCTExportError):
    """The engine failed or crashed while it ran the artifact."""


class NotAvailable(CCTExportError):
    """The delegate or device asked for is not here, or would not really run the artifact."""

    exit_code = 6


class ConnectionLost(NotAvailable):
    """The connection to a device broke; what was sent to it is still there."""
