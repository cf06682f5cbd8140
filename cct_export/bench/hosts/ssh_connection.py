"""A remote machine over the system's ssh: commands, and files that are sent once.

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

from cct_export.errors import ConnectionLost, InvalidRequest, NotAvailable, OutputError
from cct_export.specs.progress import StatusProgress, no_progress
from cct_export.workers import SSH_FAILED, Channel

CONNECT_S = 15
COMMAND_S = 60.0
CHUNK_BYTES = 1 << 16
# A socket's path may have 103 bytes; ssh adds 17 to it while it makes one, and we add 15.
LONGEST_FOLDER = 70

_OPTIONS = {
    "BatchMode": "yes",  # nobody can type a password
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": str(CONNECT_S),
    "ControlPersist": "no",  # the connection must not outlive us
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
if [ -f "./$2" ]; then echo complete
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
    """A remote machine.

    Args:
        address: ``[USER@]HOST[:PORT]``, the host also as in the user's ssh configuration.

    Raises:
        InvalidRequest: it is not of that form.
    """

    def __init__(self, address: str) -> None:
        match = re.fullmatch(r"((?:[^@\s]+@)?(?:\[[^\]\s]+\]|[^:@\s]+))(?::([0-9]{1,5}))?", address)
        port = int(match[2]) if match and match[2] else None
        if not match or address.startswith("-") or not (port is None or 1 <= port <= 65535):
            raise InvalidRequest(
                f"no device 'ssh:{address[:80]}': use ssh:USER@HOST or ssh:USER@HOST:PORT, "
                "with a port up to 65535"
            )
        self.name = f"ssh:{address}"
        self._destination = match[1].replace("[", "").replace("]", "")
        self._port = ["-p", match[2]] if match[2] else []
        self._master: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None

    @property
    def manual_command(self) -> str:
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
        self._folder = tempfile.mkdtemp(prefix="cct-", dir=_short_folder())
        with tempfile.TemporaryFile() as messages:
            self._master = subprocess.Popen(
                [*self._ssh("yes"), "-N", "--", self._destination],
                stdin=subprocess.DEVNULL, stdout=messages, stderr=messages,
            )  # fmt: skip
            limit = time.monotonic() + 2 * CONNECT_S
            while not Path(self._socket).exists():
                if self._master.poll() is not None or time.monotonic() > limit:
                    text = _read(messages)
                    if not text and self._master.poll() is not None:
                        text = f"{_ssh()[0]} ended with {self._master.poll()} and printed nothing"
                    self.close()
                    raise self._refused(text)
                time.sleep(0.02)

    @property
    def _socket(self) -> str:
        return f"{self._folder}/s"

    def _ssh(self, master: str) -> list[str]:
        # In quotes, because a path may hold blanks; ssh puts something else for a single %.
        socket = '"{}"'.format(self._socket.replace("%", "%%"))
        options = _OPTIONS | {"ControlMaster": master, "ControlPath": socket}
        flags = [f"-o{key}={value}" for key, value in options.items()]
        return [*_ssh(), *flags, *self._port]

    def _refused(self, messages: str) -> NotAvailable:
        """Returns the error for what ssh printed instead of connecting."""
        if "HOST IDENTIFICATION HAS CHANGED" in messages:
            return NotAvailable(
                f"{self.name} shows another host key than the known one: it was reinstalled, or "
                "the connection is intercepted; `ssh-keygen -R HOST` forgets the known key"
            )
        if "host key" in messages.lower() and "verification failed" in messages.lower():
            return NotAvailable(
                f"{self.name} is not a known host: run `{self.manual_command}` once, compare the "
                "fingerprint that it shows, and accept it"
            )
        if "Permission denied" in messages:
            return NotAvailable(
                f"{self.name} accepts none of your keys: `ssh-copy-id` installs one, `ssh-add` "
                f"unlocks it; `{self.manual_command}` has to work without a password"
            )
        reason = _last_line(messages) or f"no answer within {2 * CONNECT_S} s"
        return NotAvailable(f"cannot reach {self.name}: {reason}")

    def command(self, script: str, *arguments: str) -> list[str]:
        """Returns the command that runs a shell script on the machine.

        Args:
            script: for ``sh``.
            *arguments: ``$1``, ``$2``, … of the script; any text.
        """
        # ssh joins its arguments with spaces, and the remote login shell parses the result.
        remote = shlex.join(["sh", "-c", script, "sh", *arguments])
        return [*self._ssh("no"), "--", self._destination, remote]

    def run(
        self,
        script: str,
        *arguments: str,
        content: Iterable[bytes] = (),
        limit_s: float = COMMAND_S,
        progress: StatusProgress = no_progress,
    ) -> str:
        """Runs a shell script on the machine, and returns what it printed.

        Args:
            script: for ``sh``.
            *arguments: ``$1``, ``$2``, … of the script; any text.
            content: its standard input.
            limit_s: seconds that it may take, from the end of ``content`` on.
            progress: called with each line as it is printed.

        Raises:
            ConnectionLost: the connection broke, or there was no answer in time.
            OutputError: the script failed: with the last line that it printed.
        """
        self.connect()
        with tempfile.TemporaryFile() as messages:
            process = subprocess.Popen(
                self.command(script, *arguments),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages,
            )  # fmt: skip
            try:
                output = self._exchange(process, content, limit_s, progress)
            finally:
                process.kill()
                code = process.wait()
            text = _read(messages)
        if code == SSH_FAILED:
            raise self.lost(text)
        if code:
            reason = _last_line(text or output) or f"a command ended with {code}"
            raise OutputError(f"{self.name}: {reason}")
        return output

    def _exchange(
        self,
        process: "subprocess.Popen[bytes]",
        content: Iterable[bytes],
        limit_s: float,
        progress: StatusProgress,
    ) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stream:
            for piece in content:
                stream.write(piece)
        lines = []
        with _killed_after(limit_s, process) as timed_out:
            for line in process.stdout:
                lines.append(line.decode(errors="replace"))
                progress(lines[-1].strip())
            process.wait()
        if timed_out.is_set():
            raise ConnectionLost(f"{self.name}: no answer within {limit_s:g} s")
        return "".join(lines)

    def lost(self, messages: str) -> ConnectionLost:
        """Returns the error for a connection that broke, with the last message of ssh."""
        last = _last_line(messages)
        reason = f": {last}" if last else ""
        return ConnectionLost(
            f"the connection to {self.name} was lost{reason}; what was sent is kept: run "
            "the command again"
        )

    def channel(self, subject: str, script: str, *arguments: str) -> Channel:
        """Starts a worker on the machine; its errors are about ``subject``."""
        self.connect()
        command = self.command(script, *arguments)
        return Channel(command, subject, connection_lost=self.lost)

    def send(self, path: Path, folder: str, digest: str, progress: StatusProgress) -> str:
        """Sends a file, or the rest of it, unless the machine has it.

        Args:
            path: the file.
            folder: on the machine; made when missing.
            digest: the file's SHA-256, hexadecimal.
            progress: called with the share of the file that was sent.

        Returns:
            Its path on the machine.

        Raises:
            ConnectionLost: what has arrived is kept, and the next attempt goes on from there.
            OutputError: it cannot be written, as on a full disk; nothing is left.
        """
        state = _last_line(self.run(_SIZE, folder, path.name))
        if state != "complete":
            size, arrived = path.stat().st_size, int(state)
            if arrived > size:
                self.run('rm -f "$1/$2.part"', folder, path.name)
                arrived = 0
            with path.open("rb") as file:
                arguments = (folder, path.name, str(size), digest)
                self._append(file, arrived, size, arguments, progress)
        return f"{folder}/{path.name}"

    def _append(
        self,
        file: IO[bytes],
        offset: int,
        size: int,
        arguments: tuple[str, ...],
        progress: StatusProgress,
    ) -> None:
        file.seek(offset)
        pieces = _pieces(file, offset, size, f"{self.name}: sending {arguments[1]}", progress)
        try:
            self.run(_WRITE, *arguments, str(offset), content=pieces)
        except OutputError as error:
            # What an earlier attempt left may be of another file.
            if not (offset and str(error).endswith(_DAMAGED)):
                raise
            self._append(file, 0, size, arguments, progress)

    def close(self) -> None:
        """Ends the connection, and with it whatever runs on the machine."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
            self._master = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _ssh() -> Sequence[str]:
    command = os.environ.get("CCT_EXPORT_SSH", "")
    try:
        return shlex.split(command) or ["ssh"]
    except ValueError as error:
        raise InvalidRequest(f"CCT_EXPORT_SSH is no command: {command!r} ({error})") from None


def _short_folder() -> str:
    """Returns a folder for temporary files whose path leaves room for that of a socket."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= LONGEST_FOLDER else "/tmp"


def _read(messages: IO[bytes]) -> str:
    messages.seek(0)
    return messages.read().decode(errors="replace").strip()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()


def _pieces(
    file: IO[bytes], done: int, size: int, label: str, progress: StatusProgress
) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece
        done += len(piece)
        progress(f"{label}: {done / size:.0%}")


@contextlib.contextmanager
def _killed_after(limit_s: float, process: "subprocess.Popen[bytes]") -> Iterator[threading.Event]:
    """Kills ``process`` after ``limit_s``, and sets the event that it yields."""
    timed_out = threading.Event()

    def kill() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(limit_s, kill)
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()


def digest_of(*contents: bytes) -> str:
    """Returns one SHA-256 of several contents, hexadecimal."""
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()
