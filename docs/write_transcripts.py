"""Runs the commands that the pages show and writes what they print.

`python docs/write_transcripts.py [PAGE...]`, by default for README.md and every page of docs/.

A transcript is a block of the language `console`: commands after `$ `, and below each what it
prints. The comment above it says how it is made, and which commands have to run first:

    <!-- transcript: fast, exit 6
    cct-export onnx -o cct.onnx
    -->
    ```console
    $ cct-bench onnx cct.onnx --delegate cuda
    error: …
    ```

- `fast` takes seconds: tests/test_transcripts.py compares it with what the program prints.
- `slow` takes longer or needs a download: only this program runs it.
- `slow, needs torch` is run where the module torch is installed.
- `elsewhere` needs another machine, a phone or the Hub, and is written by hand.

`exit 6` is the exit code of the last command; without it every command has to end with 0. The
commands of a page run in one temporary folder, in order; each starts in that folder. A line `…`
stands for any number of lines: those above it are the first ones that the command prints; those
below it begin with a line that differs in numbers only or, if there is none, has the same first
word.
"""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
ELLIPSIS = "…"
# A reader has none of these, and the tests set some.
OWN_SETTINGS = ("CCT_EXPORT_", "KERAS_", "TF_")
TRANSCRIPT = re.compile(
    r"^<!-- transcript: (?P<made>fast|slow|elsewhere)(?:, needs (?P<needs>\w+))?"
    r"(?:, exit (?P<exit>\d+))?\s(?P<setup>.*?)-->\n"
    r"```console\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
# Numbers that depend on the machine. Counts of these things and sizes do not.
COUNTED = "bytes|classes|crops|files|images|layers|operators|parameters|steps|tensors"
MEASURED = re.compile(
    r"(?<![\w/.,-])[-+]?\d[\d.,]*+(?:e[-+]\d+)?+(?![\w/])(?! (?:\w+ )?(?:" + COUNTED + r")\b)"
)


@dataclass(frozen=True)
class Shown:
    """A command of a transcript, and the lines below it."""

    command: str
    lines: tuple[str, ...]


def rewritten(text: str, made: Collection[str]) -> str:
    """Returns a page with the output of today's program.

    Args:
        text: the page.
        made: which transcripts are run: "fast", "slow".

    Raises:
        ValueError: a command ends with another exit code than the page says, or prints no line
            like the one that follows a `…`.
    """
    with tempfile.TemporaryDirectory() as folder:

        def run(match: re.Match[str]) -> str:
            if match["made"] not in made or not _is_installed(match["needs"]):
                return match[0]
            if match["setup"].strip():
                printed(match["setup"], Path(folder), 0)
            commands = tuple(shown(match["body"]))
            codes = [0] * (len(commands) - 1) + [int(match["exit"] or 0)]
            body = "".join(
                _block(old, printed(old.command, Path(folder), code))
                for old, code in zip(commands, codes, strict=True)
            )
            return match[0].replace(match["body"], body)

        return TRANSCRIPT.sub(run, text)


def _is_installed(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


def shown(body: str) -> Iterator[Shown]:
    """Yields the commands of a transcript; a backslash at its end continues it."""
    if not body.startswith("$ "):
        raise ValueError(f"a transcript begins with a command after '$ ', not with {body[:40]!r}")
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, output = re.fullmatch(r"((?:.*\\\n)*.*)\n((?:.*\n)*)", part).groups()
        yield Shown(command, tuple(output.splitlines()))


def printed(command: str, folder: Path, code: int) -> list[str]:
    """Returns what a command prints in ``folder``: both streams, in the order they appear."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(OWN_SETTINGS)},
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != code:
        raise ValueError(f"{command!r} ends with {done.returncode}, not {code}:\n{done.stdout}")
    return [line.rstrip() for line in done.stdout.rstrip().splitlines()]


def _block(old: Shown, lines: Sequence[str]) -> str:
    """Returns a command with the lines that it prints, without those that the page leaves out."""
    return "\n".join([f"$ {old.command}", *kept(lines, old.lines)]) + "\n"


def kept(lines: Sequence[str], former: Sequence[str]) -> list[str]:
    """Returns the lines that stay in a page.

    Args:
        lines: what a command prints.
        former: what the page shows; a line `…` stands for any number of lines.
    """
    first, *others = _parts(former)
    if not others:
        return list(lines)
    result, rest = list(lines[: len(first)]), lines[len(first) :]
    for number, part in enumerate(others, start=1):
        result.append(ELLIPSIS)
        if part:
            start = _find(rest, part[0])
            end = len(rest) if number == len(others) else start + len(part)
            result += rest[start:end]
            rest = rest[end:]
    return result


def _parts(lines: Sequence[str]) -> list[list[str]]:
    """Returns lines in the parts between which there is a line `…`."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line == ELLIPSIS:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _find(lines: Sequence[str], wanted: str) -> int:
    """Returns the number of the line that is like ``wanted`` up to numbers, or begins like it."""
    for like in (masked, _first_word):
        for number, line in enumerate(lines):
            if like(line) == like(wanted):
                return number
    raise ValueError(f"no line of the output is like the one after {ELLIPSIS}: {wanted!r}")


def _first_word(line: str) -> str:
    return line.split(maxsplit=1)[0] if line.strip() else ""


def masked(text: str) -> str:
    """Returns text without the numbers that depend on the machine, and with single blanks."""
    return re.sub(" +", " ", MEASURED.sub("#", text))


def main(pages: Sequence[Path]) -> None:
    """Rewrites the pages."""
    for page in pages:
        print(page, flush=True)
        try:
            text = rewritten(page.read_text(), ("fast", "slow"))
        except ValueError as error:
            sys.exit(f"error: {page}: {error}")
        page.write_text(text)


if __name__ == "__main__":
    main([Path(page) for page in sys.argv[1:]] or PAGES)
