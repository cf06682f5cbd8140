"""Kills real commands at random moments, and checks what is left of their files."""

import io
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from fuzz.oracle import documented_codes
from fuzz.starter import MARK, Starter

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# How long a command may take to end after a signal, and its processes after it.
END_S = 20.0
LIMIT_S = 300.0


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: of the row in the table.
        words: program and arguments.
        inputs: seeds that it reads.
        outputs: files that it writes.
        old: the command that wrote these files before; empty if there are none.
    """

    name: str
    words: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    old: tuple[str, ...] = ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_BENCH = "bench tflite m.tflite --min-runs 100 --min-seconds 1 --warmup-seconds 0 --json out.json"
SCENARIOS = (
    Scenario(
        "export tflite", _words("export tflite run -o x.tflite --quantize int8 --samples 12"),
        ("run", "data.npz"), ("x.tflite", "x.tflite.json"),
        _words("export tflite run -o x.tflite --samples 12"),
    ),
    Scenario(
        "export onnx", _words("export onnx run -o x.onnx --samples 12"),
        ("run", "data.npz"), ("x.onnx", "x.onnx.json"),
        _words("export onnx run -o x.onnx --quantize int8 --samples 12"),
    ),
    Scenario(
        "train --resume",
        _words("export train --recipe short.toml --epochs 3 --data data.npz -o new"),
        ("data.npz", "short.toml"), ("new",),
    ),
    Scenario("bench", _words(_BENCH), ("m.tflite", "m.tflite.json"), ("out.json",), _words(_BENCH)),
    Scenario(
        "predict", _words("export predict m.onnx 0.png --json out.json"),
        ("m.onnx", "m.onnx.json", "0.png"), ("out.json",),
        _words("export predict m-int8.onnx 0.png --json out.json"),
    ),
)  # fmt: skip


@dataclass
class Tally:
    """The figures of the kills.

    Attributes:
        counts: kills by scenario and signal.
        failures: what did not hold, a line each.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Returns a Markdown table; empty if nothing was killed."""
        if not self.counts:
            return ""
        names = [each.name for each in SIGNALS]
        lines = [f"| killed | {' | '.join(names)} | failures |", f"| --- |{' ---: |' * 5}"]
        for name in dict.fromkeys(name for name, _ in self.counts):
            kills = [str(self.counts[name, signal_name]) for signal_name in names]
            failed = sum(line.startswith(f"{name},") for line in self.failures)
            lines.append(f"| {' | '.join([name, *kills, str(failed)])} |")
        kills = [str(sum(n for (_, s), n in self.counts.items() if s == name)) for name in names]
        lines.append(f"| {' | '.join(['all', *kills, str(len(self.failures))])} |")
        return "\n".join(lines) + "\n"


class Killer:
    """Kills one command again and again.

    Args:
        scenario: the command.
        seeds: folder with the seeds.
        starter: starts commands.
        root: folder to work in.
    """

    def __init__(self, scenario: Scenario, seeds: Path, starter: Starter, root: Path) -> None:
        self._scenario, self._seeds, self._starter = scenario, seeds, starter
        self._folder = root / "files"
        self._root = root
        self._old = self._whole(scenario.old) if scenario.old else {}
        started = time.monotonic()
        self._new = self._whole(scenario.words)
        self._duration = time.monotonic() - started

    def kill(self, number: signal.Signals, moment: float, mark: str) -> list[str]:
        """Kills the command at ``moment``, 0 to 1 of its usual duration; returns what is wrong."""
        self._lay()
        for name, content in self._old.items():
            (self._folder / name).write_bytes(content)
        before = set(_files(self._folder))
        pid = self._starter.start(self._scenario.words, self._folder, mark)
        code = self._starter.ended(pid, max(0.01, moment * self._duration))
        killed = code is None
        if killed:
            os.kill(pid, number)
            code = self._starter.ended(pid, END_S)
        wrong = []
        if code is None:
            os.kill(pid, signal.SIGKILL)
            self._starter.ended(pid, END_S)
            wrong.append(f"still ran {END_S:.0f} s after {number.name}")
        elif killed and number != signal.SIGKILL:
            wrong += self._ending(code, number)
        wrong += [f"left the process {name}" for name in _left_processes(mark)]
        temporary = [name for name in _files(self._folder) if ".tmp-" in name]
        if temporary and number != signal.SIGKILL:
            wrong.append(f"left {temporary[0]}")
        wrong += self._torn(before)
        if self._scenario.name.startswith("train"):
            wrong += self._resume()
        elif temporary:
            wrong += self._cleared()
        return wrong

    def _ending(self, code: int, number: signal.Signals) -> list[str]:
        wrong = []
        if code not in (0, 128 + number) or 128 + number not in documented_codes():
            wrong.append(f"ended with {code} after {number.name}, which is not documented")
        said = (self._root / "err").read_text(errors="replace")
        if "Traceback" in said or "this is a bug" in said:
            wrong.append(f"said {said.strip()[-100:]!r}")
        return wrong

    def _lay(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for name in self._scenario.inputs:
            source, target = self._seeds / name, self._folder / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)

    def _whole(self, words: tuple[str, ...]) -> dict[str, bytes]:
        """Returns the outputs of a command that nobody kills."""
        self._lay()
        if "m-int8.onnx" in words:
            shutil.copy(self._seeds / "m-int8.onnx", self._folder)
        self._finish(words)
        return {name: (self._folder / name).read_bytes() for name in self._outputs()}

    def _finish(self, words: tuple[str, ...]) -> None:
        code = self._starter.ended(self._starter.start(words, self._folder, "whole"), LIMIT_S)
        if code != 0:
            raise RuntimeError(f"{words}: {code}, {(self._root / 'err').read_text()}")

    def _outputs(self) -> list[str]:
        outputs = self._scenario.outputs
        return [name for name in _files(self._folder) if name.partition("/")[0] in outputs]

    def _torn(self, before: set[str]) -> list[str]:
        """Checks that every output is the old file or the new one, and no pair is mixed."""
        if self._scenario.name.startswith("train"):
            return []
        wrong = []
        for name in self._outputs():
            content = (self._folder / name).read_bytes()
            whole = (self._old.get(name), self._new[name])
            # Times differ from run to run: such a record has to be whole.
            if content not in whole and not (name == "out.json" and content.endswith(b"}\n")):
                wrong.append(f"{name} is neither the old file nor the new one")
        return wrong + self._mixed() if len(self._scenario.outputs) == 2 else wrong

    def _mixed(self) -> list[str]:
        """Checks that a sidecar of another file counts as absent."""
        from cct_export.files import sha256
        from cct_export.records import sidecar
        from cct_export.runtimes import litert_file, onnxruntime

        path = self._folder / self._scenario.outputs[0]
        module = litert_file if path.suffix == ".tflite" else onnxruntime
        beside = sidecar.read(path, module.contract_of(path))
        if beside is not None and beside.artifact.sha256 != sha256(path):
            return ["the new sidecar counts as that of the old file"]
        return []

    def _resume(self) -> list[str]:
        """Resumes a run, or starts it again, and compares weights bit by bit."""
        record = self._folder / "new/run.json"
        resumed = ("export", "train", "--resume", "-o", "new")
        try:
            self._finish(resumed if record.exists() else self._scenario.words)
        except RuntimeError as error:
            return [f"not resumed: {str(error)[-200:]}"]
        wrong = []
        for name in ("new/state.npz", "new/best.keras"):
            if _members(self._new[name]) != _members((self._folder / name).read_bytes()):
                wrong.append(f"{name} differs from that of a run that nobody killed")
        return wrong + [f"left {name}" for name in _files(self._folder) if ".tmp-" in name]

    def _cleared(self) -> list[str]:
        """Checks that the next command removes temporary files that are two hours old."""
        past = time.time() - 7200
        for name in _files(self._folder):
            if ".tmp-" in name:
                os.utime(self._folder / name, (past, past))
        self._finish(self._scenario.words)
        left = [name for name in _files(self._folder) if ".tmp-" in name]
        return [f"{left[0]} stays after the next run"] if left else []


def _members(content: bytes) -> dict[str, bytes]:
    """Returns the arrays of an archive: its dates, and what names the machine, may differ."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.endswith((".npy", ".h5"))]
        return {name: archive.read(name) for name in names}


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def _left_processes(mark: str) -> list[str]:
    """Returns the programs that a command started and that outlive it by some seconds."""
    end = time.monotonic() + 10
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


def work(tally: Tally, seeds: Path, seed: int, end: float) -> None:
    """Kills commands until ``end``, one scenario after the other."""
    random = np.random.default_rng(seed)
    with Starter() as starter, tempfile.TemporaryDirectory(prefix="cct-fuzz-") as root:
        killers: dict[str, Killer] = {}
        count = 0
        while time.monotonic() < end:
            scenario = SCENARIOS[count % len(SCENARIOS)]
            number = SIGNALS[count // len(SCENARIOS) % len(SIGNALS)]
            count += 1
            try:
                if scenario.name not in killers:
                    place = Path(root, scenario.name.replace(" ", "-"))
                    killers[scenario.name] = Killer(scenario, seeds, starter, place)
                moment = float(random.uniform(0, 1.05))
                wrong = killers[scenario.name].kill(number, moment, f"{seed}-{count}")
            except RuntimeError as error:
                wrong, moment = [str(error)[-300:]], 0.0
            tally.counts[scenario.name, number.name] += 1
            for each in wrong:
                tally.failures.append(f"{scenario.name}, {number.name} at {moment:.2f}: {each}")
                print(tally.failures[-1], file=sys.stdout, flush=True)
