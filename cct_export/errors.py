"""The errors a caller may see, each one line that says what is wrong and what to do.

CCTExportError
├── MissingDependency     a library of an optional extra is not installed
├── InvalidRequest        a name or file does not exist, a number is out of range, or options
│                         contradict each other
├── UnsupportedScheme     the format has no such quantization scheme
├── InvalidModel          the file is not a usable model
├── InvalidArtifact       the .tflite or .onnx file is not usable
├── InvalidData           images or labels are not usable
├── OutputError           the output cannot be written
├── ConversionError       a converter refused the model
├── ParityFailed          the file that a command needs failed parity
├── EngineFailed          the engine failed while it ran the artifact
└── NotAvailable          the delegate or device is not available, or does not take the artifact
    └── ConnectionLost    the connection to the device was lost

A failed check (parity, accuracy) is a result, not an error: commands turn it into an exit code.
"""

import shlex
from collections.abc import Iterable


class CCTExportError(Exception):
    """Root of the tree; ``exit_code`` is the exit code of a command that raises it."""

    exit_code = 1


class MissingDependency(CCTExportError):
    """A library of an optional extra is not installed."""

    exit_code = 6

    @classmethod
    def of(cls, library: str, extra: str) -> "MissingDependency":
        """Returns the error for ``library``, which the extra ``extra`` of this package brings."""
        return cls(f"{library} is not installed: pip install 'cct-export[{extra}]' brings it")


class InvalidRequest(CCTExportError, ValueError):
    """A name or file does not exist, a number is out of range, or options contradict each other.

    It is a ``ValueError`` too, so that a record with such a number, read from a file, is refused.
    """

    exit_code = 2

    @classmethod
    def of_unnamed(cls, file: object, words: Iterable[str]) -> "InvalidRequest":
        """Returns the error for what a file names and the user does not.

        Args:
            file: which names what would be contacted, loaded or downloaded.
            words: arguments and options that name the same.
        """
        return cls(
            f"{file} may come from anyone, and what it names is contacted, loaded or downloaded "
            f"only if you name it too: if that is what you want, add {shlex.join(words)}"
        )


class UnsupportedScheme(CCTExportError):
    """The quantization scheme does not exist, or not in this format or with these options.

    Args:
        message: the error.
        needs: the option or kind of model without which there is no such scheme; empty if nothing
            helps.
    """

    exit_code = 2

    def __init__(self, message: str, *, needs: str = "") -> None:
        super().__init__(message)
        self.needs = needs


class InvalidModel(CCTExportError):
    """The model cannot be read, is unsafe, or is not an image classifier."""


class InvalidArtifact(CCTExportError):
    """The exported file cannot be read by its engine."""


class InvalidData(CCTExportError):
    """Images or labels are unreadable or of the wrong kind."""


class OutputError(CCTExportError):
    """The output cannot be written; nothing was left half-written."""


class ConversionError(CCTExportError):
    """A converter refused the model; the message lists the operators where it knows them."""


class ParityFailed(CCTExportError):
    """The file that a command needs failed parity."""

    exit_code = 3


class EngineFailed(CCTExportError):
    """The engine failed or crashed while it ran the artifact."""


class NotAvailable(CCTExportError):
    """The delegate or device is not available, or would not really run the artifact."""

    exit_code = 6


class ConnectionLost(NotAvailable):
    """The connection to a device was lost; the files that were sent to it are still there."""


def kind_of(name: str) -> type[CCTExportError] | None:
    """Returns the error of this name in a record or a reply of anyone, None if there is none."""
    kind = globals().get(name)
    return kind if isinstance(kind, type) and issubclass(kind, CCTExportError) else None
