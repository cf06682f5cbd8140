"""The program ``adb``, and one device that it reaches."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cct_export.errors import ConnectionLost, EngineFailed, NotAvailable

CALL_LIMIT_S = 30.0
# USB 2 does thirty times as much.
SLOWEST_BYTES_PER_S = 1e6
# Behind it the exit code of a command: its absence tells that the command did not come to an end.
_END = "cct-export ended with "
_PLATFORM_TOOLS = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
_REFUSALS = {
    "unauthorized": "it does not trust this machine: unlock it and confirm `Allow USB debugging`",
    "authorizing": "it is still being asked whether it trusts this machine: unlock it and confirm",
    "offline": "it is connected, but does not answer: plug it in anew, or `adb reconnect offline`",
    "connecting": "it is connected, but does not answer yet: wait, or `adb reconnect offline`",
}


class Ended(NamedTuple):
    """How a command on the device ended.

    Attributes:
        code: exit code, as its shell tells it.
        text: what it said, standard output and standard error together.
    """

    code: int
    text: str


def program() -> str:
    """Returns where ``adb`` is: ``$ADB``, on the path, or in the Android SDK.

    Raises:
        NotAvailable: nowhere.
    """
    found = os.environ.get("ADB") or shutil.which("adb")
    for variable in _PLATFORM_TOOLS:
        tools = os.environ.get(variable)
        if not found and tools:
            found = shutil.which("adb", path=str(Path(tools) / "platform-tools"))
    if not found:
        raise NotAvailable(
            "there is no adb here: `apt install adb`, or Google's SDK Platform Tools, on the PATH, "
            "in $ADB or in $ANDROID_HOME/platform-tools"
        )
    return found


def listed(text: str) -> dict[str, str]:
    """Returns the state of every device by serial number, of what ``adb devices`` says."""
    rows = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return {serial.strip(): state.strip() for serial, state in rows}


def chosen(wanted: str, states: Mapping[str, str]) -> str:
    """Returns the serial number of the device to use.

    Args:
        wanted: serial number, empty for the only device.
        states: see ``listed``.

    Raises:
        NotAvailable: none, several, another one, or not in a state to be used.
    """
    if not states:
        raise NotAvailable(
            "adb sees no device: switch on USB debugging in its developer options and plug it in, "
            "or `adb connect HOST:PORT`"
        )
    if wanted and wanted not in states:
        raise NotAvailable(f"adb sees no device {wanted!r}, only {', '.join(states)}")
    if not wanted and len(states) > 1:
        names = " or ".join(f"adb:{serial}" for serial in states)
        raise NotAvailable(f"adb sees {len(states)} devices: say which, {names}")
    serial = wanted or next(iter(states))
    if states[serial] != "device":
        raise NotAvailable(_refused(serial, states[serial]))
    return serial


def _refused(serial: str, state: str) -> str:
    if state.startswith("no permissions"):
        return (
            f"device {serial} is not for this user ({state}): `apt install "
            "android-sdk-platform-tools-common` brings the udev rules"
        )
    what = _REFUSALS.get(state, f"it is in the state {state!r}: start Android on it")
    return f"device {serial} cannot be used: {what}"


class Client:
    """One device, through ``adb``.

    Args:
        wanted: its serial number, empty for the only one.

    Attributes:
        serial: of the device.

    Raises:
        NotAvailable: there is no ``adb``, or it cannot reach the device.
    """

    def __init__(self, wanted: str = "") -> None:
        self._program = program()
        self.serial = chosen(wanted, self._states())

    def shell(self, command: str, limit_s: float | None = None) -> Ended:
        """Runs a command of the device's ``sh``.

        Args:
            command: all that is in it must be quoted already.
            limit_s: seconds that it may take, ``CALL_LIMIT_S`` by default.

        Raises:
            ConnectionLost: the device is not there any more.
            EngineFailed: it took longer than ``limit_s``.
        """
        whole = f"({command}) 2>&1; ended=$?; echo; echo {shlex.quote(_END)}$ended"
        done = self._run("shell", whole, limit_s=limit_s)
        text, mark, code = done.stdout.replace("\r\n", "\n").rpartition(f"\n{_END}")
        if not mark or not code.strip().isdecimal():
            self.check_there(_last(done.stderr))
            raise EngineFailed(
                f"the shell of {self.serial} ended early: {_last(done.stderr or done.stdout)}"
            )
        return Ended(int(code), text)

    def push(self, here: Path, there: str) -> None:
        """Copies a file to the device.

        Raises:
            ConnectionLost: the device is not there any more.
            NotAvailable: the device does not take it.
        """
        limit_s = CALL_LIMIT_S + here.stat().st_size / SLOWEST_BYTES_PER_S
        done = self._run("push", str(here.resolve()), there, limit_s=limit_s)
        if done.returncode:
            said = _last(f"{done.stdout}\n{done.stderr}")
            self.check_there(said)
            hint = "; make room there" if "No space" in said else ""
            raise NotAvailable(f"{here} cannot be copied to {self.serial}: {said}{hint}")

    def pull(self, there: str, here: Path) -> bool:
        """Copies a file from the device; returns whether there was one.

        Raises:
            ConnectionLost: the device is not there any more.
        """
        done = self._run("pull", there, str(here.resolve()))
        if done.returncode:
            self.check_there(_last(done.stderr or done.stdout))
        return done.returncode == 0

    def check_there(self, said: str = "") -> None:
        """Raises ``ConnectionLost`` if the device does not answer; ``said`` is what adb said."""
        if self._states().get(self.serial) != "device":
            why = f" ({said})" if said else ""
            raise ConnectionLost(f"device {self.serial} is not there any more{why}: connect it")

    def _states(self) -> dict[str, str]:
        try:
            done = self._call(["devices"], CALL_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise NotAvailable(
                f"adb says nothing within {CALL_LIMIT_S:g} s: `adb kill-server`, then again"
            ) from None
        if done.returncode:
            raise NotAvailable(f"adb does not work: {_last(done.stderr or done.stdout)}")
        return listed(done.stdout)

    def _run(
        self, *arguments: str, limit_s: float | None = None
    ) -> "subprocess.CompletedProcess[str]":
        limit_s = CALL_LIMIT_S if limit_s is None else limit_s
        try:
            return self._call(["-s", self.serial, *arguments], limit_s)
        except subprocess.TimeoutExpired:
            self.check_there()
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


def _last(text: str) -> str:
    """Returns the last error, or the last line, without adb's own words before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    line = (errors or lines or ["it says nothing"])[-1]
    return line.rpartition("error: ")[2]
