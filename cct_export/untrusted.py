"""Reading files that anyone may have written: one kind of error, and no more memory than honest.

Whatever a library raises for a damaged or malicious file becomes one of this package's errors, in
one place for each kind of file. Sizes that a file declares are compared with its own size before
memory is allocated for them.
"""

import io
import math
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cct_export.errors import CCTExportError
from cct_export.files import reason
from cct_export.text import one_line

# Weights and pixels hardly compress: no honest file expands sixteenfold.
_MAX_EXPANSION = 16
_ALWAYS_ALLOWED_BYTES = 64 << 20
_DAMAGED = "it is damaged, or of another format"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Malformed(ValueError):
    """What is wrong with a file, in words for its user."""


@contextmanager
def refusing(kind: type[CCTExportError], what: str, *, otherwise: str = _DAMAGED) -> Iterator[None]:
    """Turns whatever reading a file raises into one error; errors of this package pass.

    Args:
        kind: the error to raise.
        what: the beginning of its message: the file, and what cannot be done with it.
        otherwise: what is wrong with the file, unless a ``Malformed`` says it or the system, its
            memory or an encoding is the reason.

    Raises:
        CCTExportError: of that kind; the message ends with the reason.

    Example:
        >>> with refusing(InvalidData, "a.npz cannot be read"):
        ...     arrays = read_npz(Path("a.npz"))
    """
    try:
        yield
    except CCTExportError:
        raise
    except Malformed as error:
        raise kind(f"{what}: {one_line(error)}") from error
    # Readers of damaged files raise any kind of exception, from TokenError to SystemError.
    except Exception as error:
        raise kind(f"{what}: {reason(error, otherwise)}") from error


def check_size(
    declared_bytes: int, size_bytes: int, *, always_allowed_bytes: int = _ALWAYS_ALLOWED_BYTES
) -> None:
    """Refuses a file that would become far larger in memory than it is on disk.

    Args:
        declared_bytes: size of the contents according to the file.
        size_bytes: size of the file itself.
        always_allowed_bytes: what a file of any size may declare.

    Raises:
        Malformed: it declares more than sixteen times its size plus what is always allowed.
    """
    if declared_bytes > always_allowed_bytes + _MAX_EXPANSION * size_bytes:
        raise Malformed(f"it has {size_bytes:,} bytes and claims to hold {_amount(declared_bytes)}")


def size_on_disk(path: Path) -> int:
    """Returns the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def read_npz(file: Path | bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of an ``.npz``; Python objects in it are never loaded.

    Args:
        file: where it is, or its content.
        names: of the arrays to return, if they are there; all by default.

    Raises:
        Malformed: an array, or all of them, would be far larger than the file.
        Exception: anything, for a damaged file; see ``refusing``.
    """
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
        members = {
            entry.filename.removesuffix(".npy"): entry
            for entry in archive.infolist()
            if names is None or entry.filename.removesuffix(".npy") in names
        }
        check_size(sum(entry.file_size for entry in members.values()), size)
        return {name: _read_member(archive, entry) for name, entry in members.items()}


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Returns an array after comparing the size in its header with the bytes that follow."""
    with archive.open(entry) as member:
        header = _HEADERS[np.lib.format.read_magic(member)]
        shape, _, dtype = header(member)
        declared_bytes = math.prod(shape) * max(1, dtype.itemsize)
        stored_bytes = entry.file_size - member.tell()
    if declared_bytes != stored_bytes and not dtype.hasobject:
        raise Malformed(
            f"{entry.filename} has {stored_bytes:,} bytes and claims to hold "
            f"{_amount(declared_bytes)}"
        )
    with archive.open(entry) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _amount(size_bytes: int) -> str:
    """Returns a number of bytes; not the digits of one that no computer has."""
    return f"{size_bytes:,}" if size_bytes < 1 << 63 else "more than any computer"
