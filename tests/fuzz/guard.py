"""Watches what a command does that no output shows: connections, programs, files elsewhere."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CONNECTS = (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
    "urllib.Request",
)  # fmt: skip
# What libraries ask the system: Python's ``platform`` and matplotlib, by their fixed names.
_ASKED = ("uname", "fc-list")
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_MAKES = {"os.mkdir": 0, "os.symlink": 1, "os.link": 1, "os.rename": 1, "os.truncate": 0}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Forbidden(OSError):
    """Raised in place of a connection or a program's start."""


class Guard:
    """An audit hook, which cannot be removed: for processes that do nothing else.

    Args:
        root: the folder below which files may be written.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root.resolve())
        # Where a library lies that a file names.
        self._named = (self._root, "/nonexistent")
        self._seen: list[str] | None = None
        sys.addaudithook(self._hook)

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """Watches a block; yields the list of what it did."""
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        seen = self._seen
        if seen is None:
            return
        if event in _CONNECTS:
            # Sockets between a process and its children are no contact.
            if event == "socket.connect" and isinstance(arguments[1], str | bytes):
                return
            seen.append(f"{event} {arguments[-1 if event == 'socket.connect' else 0]}"[:200])
            raise Forbidden(f"{event} is blocked while fuzzing")
        if event == "subprocess.Popen" and str(arguments[0]) not in (sys.executable, *_ASKED):
            seen.append(f"ran {arguments[0]}"[:200])
            raise Forbidden("programs are blocked while fuzzing")
        if event in _RUNS:
            seen.append(f"{event} {arguments[0]}"[:200])
        elif event == "pickle.find_class":
            seen.append(f"unpickled {arguments[0]}.{arguments[1]}"[:200])
        elif event == "ctypes.dlopen" and str(arguments[0]).startswith(self._named):
            seen.append(f"loaded {arguments[0]}"[:200])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self._check_place(arguments[0], seen)
        elif event in _MAKES:
            self._check_place(arguments[_MAKES[event]], seen)

    def _check_place(self, path: Any, seen: list[str]) -> None:
        if isinstance(path, int) or path is None:
            return
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100, which resolves no links
        if not place.startswith((self._root, "/dev/null", "/proc/self/")):
            seen.append(f"wrote {place}"[:200])
