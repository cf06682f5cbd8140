"""What a file of weights says of itself, checked before memory is taken for it."""

import zipfile
from pathlib import Path

from cct_export.errors import InvalidModel

# Weights hardly shrink, and are written as they are: nothing honest packs them to a sixteenth.
_PACKED = 16
_ALWAYS_ALLOWED = 64 << 20


def check_declared(declared: int, path: Path) -> None:
    """Refuses a file that would become far larger in memory than it is.

    Args:
        declared: bytes that its contents would take by what it says of them.
        path: the file, or the folder that holds it.

    Raises:
        InvalidModel: it claims sixteen times its size, and more than 64 MiB.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    if declared > _ALWAYS_ALLOWED + _PACKED * size:
        raise InvalidModel(
            f"{path} is refused: it is {size:,} bytes and claims to hold {declared:,}"
        )


def check_archive(path: Path) -> None:
    """Refuses a zip archive that would unpack to far more than it is.

    Raises:
        InvalidModel: it would, or its directory cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidModel(f"{path} is not a readable archive: {error}") from error
    check_declared(declared, path)
