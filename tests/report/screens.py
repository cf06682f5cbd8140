"""What a terminal shows after a command."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from typing import NamedTuple

import pyte


class Screen(NamedTuple):
    """What a terminal shows after a command: its exit code, and the lines without the empty ones.

    ``shown`` has everything that was ever printed, with what was removed again.
    """

    code: int
    lines: list[str]
    shown: str


def screen_of(width, command, folder):
    """Returns the ``Screen`` of a command in ``folder`` on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    received = b""
    with contextlib.suppress(OSError):  # what Linux raises when the last program closes its end
        while chunk := os.read(ours, 65536):
            received += chunk
    os.close(ours)
    screen = pyte.Screen(width, 8000)
    pyte.ByteStream(screen).feed(received)
    lines = [line.rstrip() for line in screen.display]
    shown = received.decode(errors="replace")
    return Screen(process.wait(timeout=300), [line for line in lines if line], shown)
