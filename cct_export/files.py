"""Atomic writes: a reader sees the old file or the new one, never half of one."""

import contextlib
import hashlib
import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cct_export.errors import InvalidRequest, OutputError
from cct_export.names import closest

log = logging.getLogger(__name__)

# Prefix of files that are still being written.
TEMPORARY = ".tmp-"
# Files of a folder among which the one that was meant is looked for.
_NEIGHBOURS = 1000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces ``path`` if the block succeeds.

    Args:
        path: the file to create or replace; its folder is created when missing.

    Yields:
        A path with the same suffix to write to. On any error it is removed and ``path`` is as it
        was before.

    Raises:
        OutputError: the folder or file cannot be written, or the disk is full.
    """
    temporary = None
    check_writable(path)
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            log.info("made the folder %s", path.parent)
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=TEMPORARY, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes files private; the result gets the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def expand_user(path: str | Path) -> Path:
    """Returns a path with the user's folder for a leading ``~``; with ``~`` if there is none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, which raises for an unknown user


def reason(error: Exception, otherwise: str) -> str:
    """Returns why a file cannot be read, in words that say nothing of the library that read it.

    Args:
        error: what was raised.
        otherwise: what is wrong with the file, unless the system or its memory is the reason.
    """
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8"
    return getattr(error, "strerror", None) or otherwise


def check_file(path: Path, what: str = "file") -> None:
    """Refuses a path at which there is nothing to read.

    Args:
        path: where a file should be.
        what: the kind of file, for the message.

    Raises:
        InvalidRequest: it is a folder or a pipe, or there is nothing; then the closest name is
            suggested.
    """
    if path.is_file():
        return
    if path.exists():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise InvalidRequest(f"{path} is {kind}: name a file")
    close = similar(path)
    hint = f": did you mean {close}?" if close else ""
    raise InvalidRequest(f"no such {what}: {path}{hint}")


def similar(path: Path) -> Path | None:
    """Returns the file or folder whose name is closest to that of ``path``, in the same folder."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in itertools.islice(entries, _NEIGHBOURS)]
        if close := closest(path.name, names):
            return path.with_name(close)
    return None


def check_writable(path: Path) -> None:
    """Raises ``OutputError`` if ``path`` cannot be written; creates nothing."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    ancestor = path.absolute().parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise OutputError(f"cannot write {path}: {ancestor} is not a folder")
    if not os.access(ancestor, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {ancestor}")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` atomically; raises ``OutputError``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 ``content`` to ``path`` atomically; raises ``OutputError``."""
    write_bytes(path, content.encode())


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
