"""One far machine over the system's ssh: commands, and files that are sent once.

Keys, agents, known hosts, ports and jump hosts are those of the user's ``~/.ssh/config``. All
commands share one connection. ``CCT_EXPORT_SSH`` may name another ssh, with options.
"""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from cct_export.bench.hosts.channel import SSH_FAILED, Channel
from cct_export.bench.hosts.host import Say
from cct_export.errors import ConnectionLost, InvalidRequest, NotAvailable, OutputError

CONNECT_S = 15
COMMAND_S = 60.0
CHUNK_BYTES = 1 << 16
# A socket's path may have 103 bytes; ssh adds 17 to it while it makes one, and we add 15.
LONGEST_ROOM = 70

_OPTIONS = {
    "BatchMode": "yes",  # nobody is there to type a password
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": str(CONNECT_S),
    "ControlPersist": "no",  # a connection that outlives us would go on for whom nobody waits
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
# ./ before a name, because it may begin with a dash. An empty line first, because a login shell may
# have greeted without ending its own.
_SIZE = """
mkdir -p "$1" && cd "$1" || exit 1
echo
if [ -f "./$2" ]; then echo there
elif [ -f "./$2.part" ]; then wc -c < "./$2.part"
else echo 0; fi
"""
# A part that is too short is kept: the connection broke, and the next attempt goes on from there.
# Several commands may send one file at a time. Each writes at its own offset, and so the same bytes
# in the same places; who is done first names the file, and it is complete for all.
_WRITE = """
cd "$1" || exit 1
leave_if_complete() { if [ -f "$1" ]; then rm -f "$1.part"; exit 0; fi; }
{ if [ "$5" -gt 0 ]; then dd obs="$5" seek=1 count=0 conv=notrunc 2>/dev/null; fi; cat; } \\
    1<> "./$2.part" || { rm -f "./$2.part"; exit 1; }
leave_if_complete "./$2"
if [ "$(wc -c < "./$2.part")" -lt "$3" ]; then leave_if_complete "./$2"; exit 4; fi
if [ "$(sha256sum < "./$2.part" | cut -c 1-64)" = "$4" ] && mv -f "./$2.part" "./$2"; then
exit 0; fi
leave_if_complete "./$2"
rm -f "./$2.part"; echo "it was damaged on the way" >&2; exit 5
"""
_DAMAGED = "it was damaged on the way"


class Connection:
    """A far machine.

    Args:
        which: ``[USER@]HOST[:PORT]``, the host also as in the user's ssh configuration.

    Raises:
        InvalidRequest: it is not of that form.
    """

    def __init__(self, which: str) -> None:
        match = re.fullmatch(r"((?:[^@\s]+@)?(?:\[[^\]\s]+\]|[^:@\s]+))(?::(\d+))?", which)
        if not match or which.startswith("-"):
            raise InvalidRequest(
                f"no device 'ssh:{which}': say ssh:USER@HOST or ssh:USER@HOST:PORT"
            )
        self.name = f"ssh:{which}"
        self._destination = match[1].replace("[", "").replace("]", "")
        self._port = ["-p", match[2]] if match[2] else []
        self._master: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None

    @property
    def by_hand(self) -> str:
        """The command with which a person connects."""
        return shlex.join([*_ssh(), *self._port, self._destination])

    def connect(self) -> None:
        """Connects, if there is no connection.

        Raises:
            NotAvailable: it cannot be reached, is unknown, or refuses the keys.
        """
        if self._master is not None and self._master.poll() is None:
            return
        if shutil.which(_ssh()[0]) is None:
            raise NotAvailable(f"{self.name} needs {_ssh()[0]}, which is not installed")
        self.close()
        self._folder = tempfile.mkdtemp(prefix="cct-", dir=_short_room())
        with tempfile.TemporaryFile() as messages:
            self._master = subprocess.Popen(
                [*self._ssh("yes"), "-N", "--", self._destination],
                stdin=subprocess.DEVNULL, stdout=messages, stderr=messages,
            )  # fmt: skip
            limit = time.monotonic() + 2 * CONNECT_S
            while not Path(self._socket).exists():
                if self._master.poll() is not None or time.monotonic() > limit:
                    messages.seek(0)
                    said = messages.read().decode(errors="replace").strip()
                    if not said and self._master.poll() is not None:
                        said = f"{_ssh()[0]} ended with {self._master.poll()} and said nothing"
                    self.close()
                    raise self._refused(said)
                time.sleep(0.02)

    @property
    def _socket(self) -> str:
        return f"{self._folder}/s"

    def _ssh(self, master: str) -> list[str]:
        # In quotes, because a path may hold blanks; ssh puts something else for a single %.
        socket = '"{}"'.format(self._socket.replace("%", "%%"))
        options = _OPTIONS | {"ControlMaster": master, "ControlPath": socket}
        stated = [f"-o{key}={value}" for key, value in options.items()]
        return [*_ssh(), *stated, *self._port]

    def _refused(self, said: str) -> NotAvailable:
        """Returns the error for what ssh said instead of connecting."""
        if "HOST IDENTIFICATION HAS CHANGED" in said:
            return NotAvailable(
                f"{self.name} shows another host key than the known one: it was installed anew, or "
                "somebody listens; `ssh-keygen -R HOST` forgets the old key if you know which"
            )
        if "host key" in said.lower() and "verification failed" in said.lower():
            return NotAvailable(
                f"{self.name} is not a known host: run `{self.by_hand}` once, compare the "
                "fingerprint that it shows, and accept it"
            )
        if "Permission denied" in said:
            return NotAvailable(
                f"{self.name} accepts none of your keys: `ssh-copy-id` installs one, `ssh-add` "
                f"unlocks it; `{self.by_hand}` has to work without a password"
            )
        last = said.strip().rpartition("\n")[2] or f"no answer within {2 * CONNECT_S} s"
        return NotAvailable(f"cannot reach {self.name}: {last.strip()}")

    def command(self, script: str, *arguments: str) -> list[str]:
        """Returns the command that runs a shell script there.

        Args:
            script: for ``sh``.
            *arguments: ``$1``, ``$2``, … of the script; any text.
        """
        # ssh joins its arguments with spaces, and the far login shell parses what comes of it.
        far = shlex.join(["sh", "-c", script, "sh", *arguments])
        return [*self._ssh("no"), "--", self._destination, far]

    def run(
        self,
        script: str,
        *arguments: str,
        content: Iterable[bytes] = (),
        limit_s: float = COMMAND_S,
        say: Say | None = None,
    ) -> str:
        """Runs a shell script there, and returns what it printed.

        Args:
            script: for ``sh``.
            *arguments: ``$1``, ``$2``, … of the script; any text.
            content: what it reads.
            limit_s: seconds that it may take, from the end of ``content`` on.
            say: called with each line as it is printed.

        Raises:
            ConnectionLost: the connection broke, or there was no answer in time.
            OutputError: the script failed: with the last line that it said.
        """
        self.connect()
        with tempfile.TemporaryFile() as messages:
            process = subprocess.Popen(
                self.command(script, *arguments),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages,
            )  # fmt: skip
            try:
                printed = self._exchange(process, content, limit_s, say)
            finally:
                process.kill()
                code = process.wait()
            messages.seek(0)
            said = messages.read().decode(errors="replace").strip()
        if code == SSH_FAILED:
            raise self.lost(said)
        if code:
            last = (said or printed.strip()).rpartition("\n")[2]
            raise OutputError(f"{self.name}: {last or f'a command ended with {code}'}")
        return printed

    def _exchange(
        self,
        process: "subprocess.Popen[bytes]",
        content: Iterable[bytes],
        limit_s: float,
        say: Say | None,
    ) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stream:
            for piece in content:
                stream.write(piece)
        lines = []
        with _ended_after(limit_s, process) as late:
            for line in process.stdout:
                lines.append(line.decode(errors="replace"))
                if say is not None:
                    say(lines[-1].strip())
            process.wait()
        if late:
            raise ConnectionLost(f"{self.name}: no answer within {limit_s:g} s")
        return "".join(lines)

    def lost(self, said: str) -> ConnectionLost:
        """Returns the error for a connection that broke, with what ssh said."""
        last = said.strip().rpartition("\n")[2]
        reason = f": {last.strip()}" if last else ""
        return ConnectionLost(
            f"the connection to {self.name} was lost{reason}; what was sent is kept there: run "
            "the command again"
        )

    def channel(self, subject: str, script: str, *arguments: str) -> Channel:
        """Starts a worker there; its errors are about ``subject``."""
        self.connect()
        return Channel(self.command(script, *arguments), subject, lost=self.lost)

    def send(self, path: Path, folder: str, digest: str, say: Say) -> str:
        """Sends a file, or the rest of it, if it is not there.

        Args:
            path: the file.
            folder: where to, there; made when missing.
            digest: the file's SHA-256, hexadecimal.
            say: called with the progress of a large file.

        Returns:
            Its path there.

        Raises:
            ConnectionLost: what has arrived is kept, and the next attempt goes on from there.
            OutputError: it cannot be written there, such as on a full disk; nothing is left.
        """
        there = self.run(_SIZE, folder, path.name).strip().rpartition("\n")[2]
        size = path.stat().st_size
        if there != "there":
            begin = int(there) if int(there) <= size else 0
            if begin != int(there):
                self.run('rm -f "$1/$2.part"', folder, path.name)
            with path.open("rb") as file:
                self._append(file, begin, size, (folder, path.name, str(size), digest), say)
        return f"{folder}/{path.name}"

    def _append(
        self, file: IO[bytes], begin: int, size: int, target: tuple[str, ...], say: Say
    ) -> None:
        file.seek(begin)
        pieces = _pieces(file, begin, size, f"{self.name}: sending {target[1]}", say)
        try:
            self.run(_WRITE, *target, str(begin), content=pieces)
        except OutputError as error:
            # What was there from an earlier attempt may have been of another file.
            if not (begin and str(error).endswith(_DAMAGED)):
                raise
            self._append(file, 0, size, target, say)

    def close(self) -> None:
        """Ends the connection, and with it whatever runs there."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
            self._master = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _ssh() -> Sequence[str]:
    stated = os.environ.get("CCT_EXPORT_SSH", "")
    try:
        return shlex.split(stated) or ["ssh"]
    except ValueError as error:
        raise InvalidRequest(f"CCT_EXPORT_SSH is no command: {stated!r} ({error})") from None


def _short_room() -> str:
    """Returns a folder for temporary ones that leaves room for the path of a socket."""
    room = tempfile.gettempdir()
    return room if len(os.fsencode(room)) <= LONGEST_ROOM else "/tmp"


def _pieces(file: IO[bytes], done: int, size: int, what: str, say: Say) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece
        done += len(piece)
        say(f"{what}: {done / size:.0%}")


@contextlib.contextmanager
def _ended_after(limit_s: float, process: "subprocess.Popen[bytes]") -> Iterator[list[bool]]:
    """Kills ``process`` after ``limit_s``; what it gives is then no longer empty."""
    late: list[bool] = []

    def end() -> None:
        late.append(True)
        process.kill()

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def digest_of(*contents: bytes) -> str:
    """Returns one SHA-256 of several contents, hexadecimal."""
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()
