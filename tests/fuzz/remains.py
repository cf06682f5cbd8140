"""What must hold after a kill: the list of what does not."""

import io
import signal
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from fuzz.oracle import documented_codes
from fuzz.starter import MARK

# How long the processes of a killed command may outlive it.
PROCESSES_S = 10.0


def ending(code: int, number: signal.Signals, said: str) -> list[str]:
    """Checks how a command ended after a signal that it can handle.

    Args:
        code: exit code; 0 where it was done already.
        number: the signal.
        said: what it wrote to standard error.
    """
    wrong = []
    if code not in (0, 128 + number):
        wrong.append(f"ended with {code} after {number.name}")
    elif code not in documented_codes():
        wrong.append(f"exit code {code} is not documented")
    for mark in ("Traceback", "this is a bug"):
        if mark in said:
            wrong.append(f"said {said[said.index(mark) :][-300:]!r}")
    return wrong


def torn(folder: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[str]:
    """Checks that every output is the old file or the new one, as a whole.

    Args:
        folder: with the outputs.
        old: content of the outputs before the command, by name.
        new: what a command that nobody kills writes.
    """
    wrong = []
    for name, whole in new.items():
        path = folder / name
        if not path.exists():
            wrong += [f"{name} is gone"] * (name in old)
            continue
        content = path.read_bytes()
        # Measured times differ from run to run: such a record has to be whole.
        is_record = name == "out.json" and content.endswith(b"}\n")
        if content not in (old.get(name), whole) and not is_record:
            wrong.append(f"{name} is neither the old file nor the new one")
    return wrong


def mixed(artifact: Path) -> list[str]:
    """Checks that a sidecar of another file counts as absent."""
    from cct_export.files import sha256
    from cct_export.records import sidecar
    from cct_export.runtimes import engine_of, format_of

    session = engine_of(format_of(artifact)).open_session(artifact, trusted=True)
    beside = sidecar.read(artifact, session.contract)
    if beside is not None and beside.artifact.sha256 != sha256(artifact):
        return ["the new sidecar counts as that of the old file"]
    return []


def temporary(folder: Path) -> list[Path]:
    """Returns files and folders that are still being written."""
    return sorted(path for path in folder.rglob("*") if path.name.startswith(".tmp-"))


def differing(first: bytes, second: bytes) -> bool:
    """Whether two archives hold other arrays: dates, and what names the machine, may differ."""
    return _arrays(first) != _arrays(second)


def _arrays(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.endswith((".npy", ".h5"))]
        return {name: archive.read(name) for name in names}


def processes(mark: str, limit_s: float = PROCESSES_S) -> list[str]:
    """Returns the programs that a command started and that outlive it by ``limit_s``."""
    end = time.monotonic() + limit_s
    while True:
        left = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == mark:
                    left.append(" ".join(process.cmdline())[:100])
            except psutil.Error:
                continue
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)
