"""A folder of its own on a phone, which is gone afterwards."""

import contextlib
import secrets
import shlex
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cct_export.bench.hosts.adb.client import Client, Ended
from cct_export.errors import CCTExportError

# Where adb's user may write, and run what it wrote.
ROOM = "/data/local/tmp"
_FIRST_SIGNAL_CODE = 128


class Workplace:
    """A folder on the device.

    Args:
        client: the device.

    Attributes:
        path: of the folder, there.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.path = f"{ROOM}/cct-export-{secrets.token_hex(6)}"
        self._at_work = False
        self._placed: dict[Path, str] = {}
        self._users = 0

    def prefix(self) -> str:
        """Returns what the names of files begin with that are of one artifact only."""
        self._users += 1
        return f"of-{self._users}-"

    def open(self) -> None:
        """Makes the folder; raises ``CCTExportError``."""
        made = self.client.shell(f"mkdir {self.path}")
        if made.code:
            raise CCTExportError(f"{self.client.serial} has no {ROOM}: {last_line(made.text)}")

    def close(self) -> None:
        """Ends what still runs there and removes the folder, if the device still answers."""
        ending = f"kill -9 $(cat {self.path}/pid) 2>/dev/null; " if self._at_work else ""
        with contextlib.suppress(CCTExportError):
            self.client.shell(f"{ending}rm -rf {self.path}")

    def place(self, here: Path, suffix: str = "") -> str:
        """Copies a file there, once; returns its path there, which says nothing of its name."""
        if here not in self._placed:
            there = f"{self.path}/{len(self._placed)}{suffix}"
            self.client.push(here, there)
            self._placed[here] = there
        return self._placed[here]

    def place_beside(self, here: Path) -> None:
        """Copies a file there under its own name: a library, which others ask for by that."""
        if here not in self._placed:
            self.client.push(here, f"{self.path}/{here.name}")
            self._placed[here] = f"{self.path}/{here.name}"

    def allow_running(self, there: str) -> None:
        """Makes a file a program."""
        self.client.shell(f"chmod 755 {shlex.quote(there)}")

    def write(self, content: bytes, name: str) -> str:
        """Makes a file of ``content`` there; returns its path there."""
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder) / "content"
            here.write_bytes(content)
            self.client.push(here, f"{self.path}/{name}")
        return f"{self.path}/{name}"

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file there, None if there is none."""
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder) / "content"
            if not self.client.pull(f"{self.path}/{name}", here):
                return None
            return here.read_bytes()

    def remove(self, name: str) -> None:
        """Removes a file there, if there is one."""
        self.client.shell(f"rm -f {self.path}/{name}")

    def run(self, command: Sequence[str], limit_s: float) -> Ended:
        """Runs a program in the folder, with the libraries that are there.

        Args:
            command: path there and arguments, not quoted.
            limit_s: seconds that it may take.

        Raises:
            ConnectionLost: the device is not there any more.
            EngineFailed: it took longer than ``limit_s``.
        """
        line = shlex.join(command)
        inner = f"echo $$ >pid; export LD_LIBRARY_PATH=.; exec {line}"
        self._at_work = True
        ended = self.client.shell(f"cd {self.path} && sh -c {shlex.quote(inner)}", limit_s)
        self._at_work = False
        return ended


def last_line(text: str) -> str:
    """Returns the last line that is not empty."""
    return text.strip().rpartition("\n")[2].strip() or "it says nothing"


def crash(ended: Ended) -> str:
    """Returns the signal that ended a program, as ``SIGSEGV``; empty if none did."""
    number = ended.code - _FIRST_SIGNAL_CODE
    try:
        return signal.Signals(number).name if number > 0 else ""
    except ValueError:
        return ""
