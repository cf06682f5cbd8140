"""The program ``adb``, a device that it reaches, and a temporary folder on that device.

Not through adbutils: that would replace the calls of the program only, not what the errors say or
which device is chosen; it transfers files without a time limit, and brings an adb of its own.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cct_export.errors import CCTExportError, ConnectionLost, EngineFailed, NotAvailable

CALL_LIMIT_S = 30.0
# USB 2 does thirty times as much.
SLOWEST_BYTES_PER_S = 1e6
# Where adb's user may write, and run what it wrote.
TEMPORARY = "/data/local/tmp"
# ONNX Runtime's tool sends no telemetry.
_QUIET = "ORT_DISABLE_TELEMETRY=1"
# Precedes the exit code of a command: without it the command did not come to an end.
_END = "cct-export ended with "
_FIRST_SIGNAL_CODE = 128
_SDK_VARIABLES = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
_REFUSALS = {
    "unauthorized": "it does not trust this machine: unlock it and confirm `Allow USB debugging`",
    "authorizing": "it is asking whether to trust this machine: unlock it and confirm",
    "offline": "it is connected, but does not answer: plug it in again, or `adb reconnect offline`",
    "connecting": "it is connected, but does not answer yet: wait, or `adb reconnect offline`",
}


class Ended(NamedTuple):
    """How a command on the device ended.

    Attributes:
        code: exit code, as the device's shell tells it.
        text: standard output and standard error together.
    """

    code: int
    text: str

    @property
    def last_line(self) -> str:
        """The last line of the text that is not empty."""
        return self.text.strip().rpartition("\n")[2].strip() or "it printed nothing"

    @property
    def signal(self) -> str:
        """The signal that ended the command, as ``SIGSEGV``; empty if none did."""
        number = self.code - _FIRST_SIGNAL_CODE
        try:
            return signal.Signals(number).name if number > 0 else ""
        except ValueError:
            return ""


def find_adb() -> str:
    """Returns the path of ``adb``: ``$ADB``, on the ``PATH``, or in the Android SDK.

    Raises:
        NotAvailable: it is in none of these.
    """
    program = os.environ.get("ADB") or shutil.which("adb")
    for variable in _SDK_VARIABLES:
        sdk = os.environ.get(variable)
        if not program and sdk:
            program = shutil.which("adb", path=str(Path(sdk) / "platform-tools"))
    if not program:
        raise NotAvailable(
            "there is no adb here: `apt install adb`, or Google's SDK Platform Tools, on the PATH, "
            "in $ADB or in $ANDROID_HOME/platform-tools"
        )
    return program


def parse_devices(text: str) -> dict[str, str]:
    """Returns the state of every device by serial number, from the output of ``adb devices``."""
    rows = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return {serial.strip(): state.strip() for serial, state in rows}


def choose_device(serial: str, states: Mapping[str, str]) -> str:
    """Returns the serial number of the device to use.

    Args:
        serial: of the requested device; empty for the only one.
        states: see ``parse_devices``.

    Raises:
        NotAvailable: there is none, several, or only others, or its state does not allow its use.
    """
    if not states:
        raise NotAvailable(
            "adb sees no device: switch on USB debugging in its developer options and plug it in, "
            "or `adb connect HOST:PORT`"
        )
    if serial and serial not in states:
        raise NotAvailable(f"adb sees no device {serial!r}, only {', '.join(states)}")
    if not serial and len(states) > 1:
        names = " or ".join(f"adb:{name}" for name in states)
        raise NotAvailable(f"adb sees {len(states)} devices: say which, {names}")
    serial = serial or next(iter(states))
    state = states[serial]
    if state.startswith("no permissions"):
        raise NotAvailable(
            f"device {serial} is not for this user ({state}): `apt install "
            "android-sdk-platform-tools-common` brings the udev rules"
        )
    if state != "device":
        reason = _REFUSALS.get(state, f"it is in the state {state!r}: start Android on it")
        raise NotAvailable(f"device {serial} cannot be used: {reason}")
    return serial


class Client:
    """One device, through ``adb``.

    Args:
        serial: its serial number, empty for the only one.

    Attributes:
        serial: of the device.

    Raises:
        NotAvailable: there is no ``adb``, or it cannot reach the device.
    """

    def __init__(self, serial: str = "") -> None:
        self._program = find_adb()
        self.serial = choose_device(serial, self._states())

    def shell(self, command: str, limit_s: float | None = None) -> Ended:
        """Runs a command of the device's ``sh``.

        Args:
            command: with its arguments quoted.
            limit_s: seconds that it may take, ``CALL_LIMIT_S`` by default.

        Raises:
            ConnectionLost: the device is not there any more.
            EngineFailed: it took longer than ``limit_s``.
        """
        script = f"({command}) 2>&1; ended=$?; echo; echo {shlex.quote(_END)}$ended"
        done = self._run("shell", script, limit_s=limit_s)
        text, mark, code = done.stdout.replace("\r\n", "\n").rpartition(f"\n{_END}")
        if not mark or not code.strip().isdecimal():
            self.check_connected(_reason(done.stderr))
            raise EngineFailed(
                f"the shell of {self.serial} ended early: {_reason(done.stderr or done.stdout)}"
            )
        return Ended(int(code), text)

    def push(self, local: Path, remote: str) -> None:
        """Copies a file to the device.

        Raises:
            ConnectionLost: the device is not there any more.
            NotAvailable: the device does not take it.
        """
        limit_s = CALL_LIMIT_S + local.stat().st_size / SLOWEST_BYTES_PER_S
        done = self._run("push", str(local.resolve()), remote, limit_s=limit_s)
        if done.returncode:
            reason = _reason(f"{done.stdout}\n{done.stderr}")
            self.check_connected(reason)
            hint = "; make room on it" if "No space" in reason else ""
            raise NotAvailable(f"{local} cannot be copied to {self.serial}: {reason}{hint}")

    def pull(self, remote: str, local: Path) -> bool:
        """Copies a file from the device; returns whether there was one.

        Raises:
            ConnectionLost: the device is not there any more.
        """
        done = self._run("pull", remote, str(local.resolve()))
        if done.returncode:
            self.check_connected(_reason(done.stderr or done.stdout))
        return done.returncode == 0

    def check_connected(self, reason: str = "") -> None:
        """Raises ``ConnectionLost`` if the device does not answer; ``reason`` is adb's message."""
        if self._states().get(self.serial) != "device":
            why = f" ({reason})" if reason else ""
            raise ConnectionLost(f"device {self.serial} is not there any more{why}: connect it")

    def _states(self) -> dict[str, str]:
        try:
            done = self._call(["devices"], CALL_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise NotAvailable(
                f"adb does not answer within {CALL_LIMIT_S:g} s: `adb kill-server`, then again"
            ) from None
        if done.returncode:
            raise NotAvailable(f"adb does not work: {_reason(done.stderr or done.stdout)}")
        return parse_devices(done.stdout)

    def _run(
        self, *arguments: str, limit_s: float | None = None
    ) -> "subprocess.CompletedProcess[str]":
        limit_s = CALL_LIMIT_S if limit_s is None else limit_s
        try:
            return self._call(["-s", self.serial, *arguments], limit_s)
        except subprocess.TimeoutExpired:
            self.check_connected()
            raise EngineFailed(
                f"device {self.serial}: no end of `adb {arguments[0]}` within {limit_s:g} s"
            ) from None

    def _call(self, arguments: list[str], limit_s: float) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit_s,
            )
        except OSError as error:
            raise NotAvailable(f"{self._program} cannot be started: {error.strerror}") from error


def _reason(text: str) -> str:
    """Returns the last error, or the last line, without adb's own words before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    line = (errors or lines or ["it printed nothing"])[-1]
    return line.rpartition("error: ")[2]


class RemoteFolder:
    """A temporary folder on the device.

    Args:
        client: the device.

    Attributes:
        path: of the folder, on the device.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.path = f"{TEMPORARY}/cct-export-{secrets.token_hex(6)}"
        self._program_runs = False
        self._copies: dict[Path, str] = {}
        self._prefixes = 0

    def prefix(self) -> str:
        """Returns a prefix for the names of files that belong to one artifact only."""
        self._prefixes += 1
        return f"of-{self._prefixes}-"

    def open(self) -> None:
        """Makes the folder; raises ``CCTExportError``."""
        ended = self.client.shell(f"mkdir {self.path}")
        if ended.code:
            raise CCTExportError(f"{self.client.serial} has no {TEMPORARY}: {ended.last_line}")

    def close(self) -> None:
        """Ends the program that runs in it and removes it, if the device still answers."""
        kill = f"kill -9 $(cat {self.path}/pid) 2>/dev/null; " if self._program_runs else ""
        with contextlib.suppress(CCTExportError):
            self.client.shell(f"{kill}rm -rf {self.path}")

    def copy(self, local: Path, suffix: str = "") -> str:
        """Copies a file, once, under a name of its own; returns its path on the device."""
        if local not in self._copies:
            remote = f"{self.path}/{len(self._copies)}{suffix}"
            self.client.push(local, remote)
            self._copies[local] = remote
        return self._copies[local]

    def copy_library(self, local: Path) -> None:
        """Copies a library, once, under its own name, which programs load it by."""
        if local not in self._copies:
            remote = f"{self.path}/{local.name}"
            self.client.push(local, remote)
            self._copies[local] = remote

    def copy_program(self, local: Path) -> str:
        """Copies a program, once, and makes it executable; returns its path on the device."""
        remote = self.copy(local)
        self.client.shell(f"chmod 755 {shlex.quote(remote)}")
        return remote

    def write(self, content: bytes, name: str) -> str:
        """Writes a file; returns its path on the device."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "content"
            local.write_bytes(content)
            self.client.push(local, f"{self.path}/{name}")
        return f"{self.path}/{name}"

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, None if there is none."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "content"
            if not self.client.pull(f"{self.path}/{name}", local):
                return None
            return local.read_bytes()

    def remove(self, name: str) -> None:
        """Removes a file, if there is one."""
        self.client.shell(f"rm -f {self.path}/{name}")

    def run(self, command: Sequence[str], limit_s: float) -> Ended:
        """Runs a program in the folder, with the libraries that are in it.

        Args:
            command: path on the device and arguments, not quoted.
            limit_s: seconds that it may take.

        Raises:
            ConnectionLost: the device is not there any more.
            EngineFailed: it took longer than ``limit_s``.
        """
        script = f"echo $$ >pid; export LD_LIBRARY_PATH=. {_QUIET}; exec {shlex.join(command)}"
        self._program_runs = True
        ended = self.client.shell(f"cd {self.path} && sh -c {shlex.quote(script)}", limit_s)
        self._program_runs = False
        return ended
