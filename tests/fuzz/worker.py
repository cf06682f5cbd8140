"""A process that runs commands one after the other, with TensorFlow loaded once."""

import contextlib
import dataclasses
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fuzz.cases import Case, build, original
from fuzz.guard import Guard
from fuzz.kinds import KINDS
from fuzz.oracle import VERDICTS, Ended, failures

# Words of a command line after which stands a file or folder that it makes.
_OUTPUTS = ("--html", "--csv", "--markdown", "--json", "-o", "--plot")
# ONNX Runtime makes this file in the temporary folder when it is loaded.
_SESSION = ".ses"


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker is asked for.

    Attributes:
        kind: key of ``KINDS``.
        number: of the input.
        kept: which of its mutations it gets; None for all.
        case: the input itself, in place of the one that follows from kind and number.
    """

    kind: str
    number: int = 0
    kept: tuple[int, ...] | None = None
    case: Case | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """How an input ended, and what is wrong with it."""

    ended: Ended
    failures: tuple[str, ...]


class Commands:
    """Runs commands in this process.

    Args:
        root: a folder of its own.
        seeds: folder with the seeds.
    """

    def __init__(self, root: Path, seeds: Path) -> None:
        self._folder, self._temporary = root / "case", root / "tmp"
        self._seeds = seeds
        self._guard = Guard(root)
        self._expected: dict[tuple[str, ...], str] = {}
        self._warm: set[str] = set()
        self._streams = [_kept(number, root) for number in (1, 2)]

    def answer(self, task: Task) -> Result:
        """Runs an input and judges it."""
        if task.kind not in self._warm:
            self._warm.add(task.kind)
            self._warm_up(task.kind)
        case = task.case or build(self._seeds, task.kind, task.number, task.kept)
        expected = self._promised(case)
        ended = self.run(case)
        limit_s = KINDS[task.kind].limit_s
        return Result(ended, tuple(failures(ended, limit_s=limit_s, expected=expected)))

    def _warm_up(self, kind: str) -> None:
        """Runs a command on a seed, so that no input pays for the libraries that are loaded."""
        form = KINDS[kind].forms[0]
        self.run(Case(kind, 0, form.words, original(self._seeds, form), form.target, 0))

    def run(self, case: Case) -> Ended:
        """Runs a command on the files of a case."""
        for folder in (self._folder, self._temporary):
            if any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(exist_ok=True)
        case.lay(self._folder)
        os.chdir(self._folder)
        before = _tree(self._folder)
        for stream in self._streams:
            _drained(stream)  # what the mutators printed
        _peak(reset=True)
        resident, seconds = _resident(), _seconds()
        with self._guard.watching() as contacts:
            code, out, err = invoke(case.words)
        return Ended(
            code,
            out,
            err,
            "".join(_drained(stream) for stream in self._streams),
            seconds=_seconds() - seconds,
            memory_bytes=max(0, _peak() - resident),
            left=tuple(_left(before, _tree(self._folder), case.words, code))
            + tuple(f"temporary {name}" for name in _tree(self._temporary) if name != _SESSION),
            contacts=tuple(contacts),
        )

    def _promised(self, case: Case) -> str | None:
        """Returns the predictions that the seed of a case gives, if the file promises them."""
        kind = KINDS[case.kind]
        if not kind.answers or "predict" not in case.words or "--json" not in case.words:
            return None
        form = next(form for form in kind.forms if form.words == case.words)
        content = original(self._seeds, form)
        promises = (
            case.target.endswith(".json")  # of an artifact that is whole
            or f"{case.target}.json" in case.files
            or _carries_digest(content[case.target], case.files[case.target])
        )
        if not promises:
            return None
        if case.words not in self._expected:
            whole = dataclasses.replace(case, files=content)
            self._expected[case.words] = self.run(whole).out
        return self._expected[case.words]


def _carries_digest(whole: Any, mutated: Any) -> bool:
    """Whether a mutated artifact still names the checksum of its content."""
    start = whole.find(b"content_sha256")
    return start >= 0 and whole[start : start + 84] in mutated


def invoke(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Runs a command line in this process; returns exit code, standard output and error."""
    from click.testing import CliRunner

    from cct_export.commands import program
    from fuzz.readers import READERS

    groups = {"export": program.export, "bench": program.bench, "read": READERS}
    group = groups[words[0]]
    logger = logging.getLogger("cct_export")
    before = logger.handlers, logger.propagate, logger.level
    try:
        result = CliRunner().invoke(group, list(words[1:]), prog_name=f"cct-{words[0]}")
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
    return result.exit_code, result.stdout, result.stderr


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Returns kind, size and time of everything below a folder."""
    entries = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            state = path.lstat()
            size, time = (0, 0) if name in folders else (state.st_size, state.st_mtime_ns)
            entries[str(path.relative_to(folder))] = (state.st_mode, size, time)
    return entries


def _left(before: Any, after: Any, words: tuple[str, ...], code: int) -> Iterator[str]:
    """Yields files that are new, gone or changed, apart from the outputs of a success."""
    outputs = {words[index + 1] for index, word in enumerate(words[:-1]) if word in _OUTPUTS}
    for name in sorted(before.keys() | after.keys()):
        top = name.partition("/")[0]
        is_output = code in (0, *VERDICTS) and (name in outputs or top in outputs)
        # The lock of a run directory stays.
        if before.get(name) != after.get(name) and not is_output and not name.endswith("/.lock"):
            yield name


def _kept(number: int, root: Path) -> int:
    """Sends a standard stream into a file; returns the file's descriptor."""
    file = os.open(root / f"native-{number}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(file, number)
    return file


def _drained(file: int) -> str:
    content = os.pread(file, 2**16, 0)
    os.ftruncate(file, 0)
    return content.decode("utf-8", "replace")


def _seconds() -> float:
    """Returns the processor time of this process and its children that ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _resident() -> int:
    return _status("VmRSS:")


def _peak(reset: bool = False) -> int:
    """Returns the most memory since the last reset, in bytes."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return _status("VmHWM:")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {name} in /proc/self/status")


def serve(connection: Connection, root: Path, seeds: Path) -> None:
    """Answers tasks until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("case", "tmp", "home"):
        (root / name).mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HOME": str(root / "home"), "MPLCONFIGDIR": str(root / "home"), "TMPDIR": str(root / "tmp"),
        "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1",
        "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    sys.dont_write_bytecode = True
    tempfile.tempdir = None
    # A file that grows without end is a failure, not a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, 2**31))
    commands = Commands(root, seeds)
    from cct_export import model

    # Keras takes seconds to load, which are no input's.
    model.start()
    # It warns of many models in one process, which no command has.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            task = connection.recv()
            try:
                answer: object = commands.answer(task)
            except Exception:  # of the fuzzer itself: a command's are results
                answer = f"{task}: {traceback.format_exc()}"[-3000:]
            connection.send(answer)
