"""Kills real commands at random moments, and checks what is left of their files."""

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fuzz import remains
from fuzz.starter import Starter

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# How long a command may take to end after a signal.
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
        ("m.onnx", "m-int8.onnx", "0.png"), ("out.json",),
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
        self._root, self._folder = root, root / "files"
        self._trains = "train" in scenario.words
        self._old = self._whole(scenario.old) if scenario.old else {}
        started = time.monotonic()
        self._new = self._whole(scenario.words)
        self._duration = time.monotonic() - started

    def kill(self, number: signal.Signals, moment: float, mark: str) -> list[str]:
        """Kills the command at ``moment``, 0 to 1 of its usual duration; returns what is wrong."""
        self._lay()
        for name, content in self._old.items():
            (self._folder / name).write_bytes(content)
        pid = self._starter.start(self._scenario.words, self._folder, mark)
        code = self._starter.ended(pid, max(0.01, moment * self._duration))
        wrong = []
        if code is None:
            os.kill(pid, number)
            code = self._starter.ended(pid, END_S)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                self._starter.ended(pid, END_S)
                wrong.append(f"still ran {END_S:.0f} s after {number.name}")
            elif number != signal.SIGKILL:
                wrong += remains.ending(code, number, self._said())
        wrong += [f"left the process {name}" for name in remains.processes(mark)]
        left = remains.temporary(self._folder)
        if left and number != signal.SIGKILL:
            wrong.append(f"left {left[0].name}")
        if self._trains:
            return wrong + self._resume()
        wrong += remains.torn(self._folder, self._old, self._new)
        if len(self._scenario.outputs) == 2:
            wrong += remains.mixed(self._folder / self._scenario.outputs[0])
        return wrong + (self._cleared() if left else [])

    def _said(self) -> str:
        return (self._root / "err").read_text(errors="replace")

    def _lay(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for name in self._scenario.inputs:
            source, target = self._seeds / name, self._folder / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)

    def _whole(self, words: tuple[str, ...]) -> dict[str, bytes]:
        """Returns the outputs of a command that nobody kills."""
        self._lay()
        self._finish(words)
        files = (path for path in self._folder.rglob("*") if path.is_file())
        names = (str(path.relative_to(self._folder)) for path in files)
        return {
            name: (self._folder / name).read_bytes()
            for name in names
            if name.partition("/")[0] in self._scenario.outputs
        }

    def _finish(self, words: tuple[str, ...]) -> None:
        """Runs a command to its end; raises ``RuntimeError`` if it fails."""
        code = self._starter.ended(self._starter.start(words, self._folder, "whole"), LIMIT_S)
        if code != 0:
            raise RuntimeError(f"{' '.join(words)}: {code}, {self._said()[-200:]}")

    def _resume(self) -> list[str]:
        """Resumes a run, or starts it again, and compares weights bit by bit."""
        self._age()
        resumed = ("export", "train", "--resume", "-o", "new")
        has_record = (self._folder / "new/run.json").exists()
        try:
            self._finish(resumed if has_record else self._scenario.words)
        except RuntimeError as error:
            return [f"not resumed: {error}"]
        wrong = [
            f"{name} differs from that of a run that nobody killed"
            for name in ("new/state.npz", "new/best.keras")
            if remains.differing(self._new[name], (self._folder / name).read_bytes())
        ]
        return wrong + [
            f"{path.name} stays after --resume" for path in remains.temporary(self._folder)
        ]

    def _age(self) -> None:
        past = time.time() - 7200
        for path in remains.temporary(self._folder):
            os.utime(path, (past, past))

    def _cleared(self) -> list[str]:
        """Checks that the next command removes temporary files that are two hours old."""
        self._age()
        self._finish(self._scenario.words)
        stays = remains.temporary(self._folder)
        return [f"{stays[0].name} stays after the next run"] if stays else []


def work(tally: Tally, seeds: Path, seed: list[int], end: float) -> None:
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
                wrong = killers[scenario.name].kill(number, moment, f"{seed[0]}-{seed[1]}-{count}")
            except RuntimeError as error:
                wrong, moment = [str(error)[-300:]], 0.0
            tally.counts[scenario.name, number.name] += 1
            for each in wrong:
                tally.failures.append(f"{scenario.name}, {number.name} at {moment:.2f}: {each}")
                print(tally.failures[-1], flush=True)
