"""Atomic writes: a reader sees the old file or the new one, never half of one.

Links are followed, and what is no regular file is written through: nothing but a regular file is
ever replaced.
"""

import contextlib
import fnmatch
import hashlib
import itertools
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cct_export.errors import InvalidRequest, OutputError
from cct_export.names import closest

log = logging.getLogger(__name__)

# Prefix of files and folders that are still being written.
TEMPORARY = ".tmp-cct-export-"
LEFTOVER_AGE_S = 3600.0
_LOCK_INTERVAL_S = 0.02
# Files of a folder among which the one that was meant is looked for.
_NEIGHBOURS = 1000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces ``path`` if the block succeeds.

    A link is followed: it stays, and the file that it leads to is replaced. What is no regular
    file, such as a device or a pipe, and a standard stream of this process cannot be replaced:
    the content is written to it when the block has succeeded.

    Args:
        path: the file to create or replace, whose permissions stay; its folder is created when
            missing.

    Yields:
        A path with the same suffix to write to, in the folder of the file. On any error it is
        removed and the file is as it was before.

    Raises:
        OutputError: the folder or file cannot be written, or the disk is full.
    """
    temporary = None
    check_writable(path)
    try:
        target = followed(path)
        is_written_through = _is_special(path) or _descriptor(path) is not None
        folder = Path(tempfile.gettempdir()) if is_written_through else target.parent
        # By the name that the user gave, unless a link leads elsewhere.
        make_folder(folder if path.is_symlink() else path.parent)
        remove_leftovers(folder)
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=TEMPORARY, dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if is_written_through:
            _write_through(temporary, path)
        else:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # mkstemp makes files private.
            temporary.chmod(permissions(target, new=0o666))
            temporary.replace(target)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _descriptor(path) is not None:
            raise  # as when a reader, such as head, closes what is printed
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def expand_user(path: str | Path) -> Path:
    """Returns a path with the user's folder for a leading ``~``; with ``~`` if there is none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, which raises for an unknown user


def cache_folder() -> Path:
    """Returns where this program keeps what can be made again (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expand_user("~/.cache")) / "cct-export"


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, unless it is there; raises ``OSError``."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        log.info("made the folder %s", folder)


def followed(path: Path) -> Path:
    """Returns the absolute path that ``path`` leads to, which need not exist.

    Raises:
        OSError: links lead in a circle, or a folder may not be entered.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.stat()
    return Path(os.path.realpath(path))


def permissions(path: Path, *, new: int) -> int:
    """Returns the permissions of a file or folder, or what the umask leaves of ``new``."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return new & ~umask


def _is_special(path: Path) -> bool:
    """Whether there is something that is neither a regular file nor a folder, such as a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _descriptor(path: Path) -> int | None:
    """Returns the open descriptor that a path stands for, None if it stands for none.

    That is a standard stream of this process, whatever its path, or one by the name /dev/fd/N.
    """
    number = _descriptor_number(path)
    for standard, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):  # closed, or no file in a notebook
            own = stream.fileno()  # not always the standard one, see streams.native_stderr_hidden
            if number == standard or os.path.samestat(path.stat(), os.fstat(own)):
                return own
    return number


def _descriptor_number(path: Path) -> int | None:
    """Returns N if a path is, or is a link to, the descriptor /dev/fd/N of this process."""
    descriptors = os.path.realpath("/dev/fd")
    if not path.exists():
        return None
    while os.path.realpath(path.parent) != descriptors:
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return int(path.name) if path.name.isdecimal() else None


def _write_through(content: Path, path: Path) -> None:
    """Copies the content of a file to a device, a pipe or an open descriptor."""
    descriptor = _descriptor(path)
    if descriptor is not None:
        sys.stdout.flush()
        sys.stderr.flush()
    opened = os.open(path, os.O_WRONLY | os.O_NOCTTY) if descriptor is None else os.dup(descriptor)
    with content.open("rb") as source, os.fdopen(opened, "wb") as sink:
        shutil.copyfileobj(source, sink)


def remove_leftovers(
    folder: Path, *, pattern: str = f"{TEMPORARY}*", age_s: float = LEFTOVER_AGE_S
) -> None:
    """Removes what processes of this user that were killed left in a folder.

    Args:
        folder: where they wrote.
        pattern: of the names of temporary files; folders have to begin with ``TEMPORARY`` too.
        age_s: seconds since the last change, from which on nobody writes it any more.
    """
    user = getattr(os, "geteuid", int)()  # Windows has none: there every file is of user 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not fnmatch.fnmatchcase(entry.name, pattern):
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid != user or time.time() - status.st_mtime < age_s:
                    continue
                if stat.S_ISREG(status.st_mode):
                    Path(entry.path).unlink()
                elif stat.S_ISDIR(status.st_mode) and entry.name.startswith(TEMPORARY):
                    shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def locked(folder: Path, *, wait_s: float) -> Iterator[None]:
    """Keeps other processes of this package from changing files of a folder that go together.

    Nothing is left behind. Where the file system has no locks, or another program keeps the folder
    locked for longer than ``wait_s`` seconds, the block runs without the lock.

    Args:
        folder: which exists.
        wait_s: seconds to wait for the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOCK_INTERVAL_S)
        yield
    finally:
        os.close(descriptor)


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
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
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


def check_writable(path: Path, *, is_folder: bool = False) -> None:
    """Refuses, before any work, what cannot be written; creates nothing.

    Args:
        path: the file to write, or the folder that is to appear there as a whole.
        is_folder: whether it is to be a folder.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        obstacle = _obstacle_above(path) if is_folder else _obstacle(path)
    except OSError as error:  # links in a circle, or a folder that may not be entered
        obstacle = error.strerror or str(error)
    if obstacle:
        raise OutputError(f"cannot write {path}: {obstacle}")


def _obstacle(path: Path) -> str:
    """Returns why a path cannot be written, empty if it can; raises ``OSError``."""
    if path.is_dir():
        return "it is a folder; name a file"
    if _descriptor(path) is not None:
        return ""
    if _is_special(path):
        if path.is_socket() or path.is_block_device():
            return f"it is a {'socket' if path.is_socket() else 'disk'}; name a file"
        return "" if os.access(path, os.W_OK) else "no permission to write to it"
    return _obstacle_above(path)


def _obstacle_above(path: Path) -> str:
    """Returns why nothing can appear at a path, empty if it can; raises ``OSError``."""
    ancestor = followed(path).parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        return f"{ancestor} is not a folder"
    return "" if os.access(ancestor, os.W_OK) else f"no permission to write in {ancestor}"


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
