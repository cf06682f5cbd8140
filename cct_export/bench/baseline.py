"""How the rows of a baseline are measured again.

A record may come from anyone. What it names beyond this machine and its files is contacted, loaded
or downloaded only where the user names the same.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cct_export import data
from cct_export.errors import InvalidRequest
from cct_export.importers.location import is_hub_id
from cct_export.records import BenchResult
from cct_export.specs import BenchJob, BenchSpec, Delegation
from cct_export.text import plural


@dataclass(frozen=True)
class UserChoice:
    """What the user names on the command line, or in the API's arguments, beside a baseline.

    Attributes:
        paths: what to measure, row by row; empty for the paths of the baseline.
        device: as ``--device`` names it; None if it is not named.
        delegates: of the rows, in any order.
        options: names and values of the delegates' options, in any order.
        data: labelled images; None for those of the baseline.
    """

    paths: tuple[Path, ...] = ()
    device: str | None = None
    delegates: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    data: str | None = None


@dataclass(frozen=True)
class Remeasurement:
    """How the rows of a baseline are measured again.

    Attributes:
        device: as ``--device`` names it.
        jobs: one per row.
        data: labelled images that accuracy is measured on; None for no accuracy.
    """

    device: str
    jobs: tuple[BenchJob, ...]
    data: str | None


def remeasurement(before: Sequence[BenchResult], choice: UserChoice, *, name: str) -> Remeasurement:
    """Returns how the rows of a baseline are measured again.

    Args:
        before: the baseline.
        choice: what the user names.
        name: the file of the baseline, for messages.

    Raises:
        InvalidRequest: another number of paths, rows of several devices, something that the user
            names and the baseline has not, or something that the user has to name.
    """
    paths = choice.paths or tuple(Path(row.artifact.path) for row in before)
    if len(paths) != len(before):
        raise InvalidRequest(
            f"the baseline has {plural(len(before), 'row')}: "
            f"name as many artifacts, not {len(paths)}"
        )
    devices = sorted({row.device for row in before})
    if len(devices) > 1:
        raise InvalidRequest(
            f"the baseline is of {len(devices)} devices ({', '.join(devices)}): "
            "check a record of each by itself"
        )
    recorded = next((row.accuracy.data for row in before if row.accuracy), None)
    images = recorded if recorded is None else choice.data or data.find_data(recorded)
    _check_same(before, choice)
    if missing := _missing_words(before, choice, images):
        raise InvalidRequest.of_unnamed(name, missing)
    jobs = (BenchJob(path, _spec(row)) for path, row in zip(paths, before, strict=True))
    return Remeasurement(devices[0], tuple(jobs), images)


def _check_same(before: Sequence[BenchResult], choice: UserChoice) -> None:
    """Refuses what the user names and no row was measured with."""
    device = before[0].device
    if choice.device not in (None, device):
        raise InvalidRequest(
            f"the baseline was measured with --device {shlex.quote(device)}, not {choice.device}"
        )
    for delegate in choice.delegates:
        if delegate not in {row.runtime.requested for row in before}:
            raise InvalidRequest(
                f"the baseline was not measured with the delegate {delegate}: leave it out"
            )
    for option in choice.options:
        if option not in _options(before):
            raise InvalidRequest(
                f"the baseline was not measured with the option {'='.join(option)}: leave it out"
            )


def _missing_words(
    before: Sequence[BenchResult], choice: UserChoice, images: str | None
) -> list[str]:
    """Returns what the user has to add to the command line, see the top of this module."""
    words: list[str] = []
    paths = [row.artifact.path for row in before]
    if not choice.paths and any(map(is_hub_id, paths)):
        # A path must not be read as an option.
        words += [f"./{path}" if path.startswith("-") else path for path in paths]
    if before[0].device not in ("local", choice.device):
        words += ["--device", before[0].device]
    requested = dict.fromkeys(row.runtime.requested for row in before)
    # With a colon it is a library's path, see ``runtimes.session.chosen_delegate``.
    for delegate in requested:
        if ":" in delegate and delegate not in choice.delegates:
            words += ["--delegate", delegate]
    # Those of many providers are paths of libraries too.
    for option in _options(before):
        if option not in choice.options:
            words += ["--delegate-option", "=".join(option)]
    if images is not None and choice.data is None and data.is_downloaded(images):
        words += ["--data", images]
    return words


def _options(before: Sequence[BenchResult]) -> dict[tuple[str, str], None]:
    """Returns the options of all delegates, each once, in their order."""
    return dict.fromkeys(option for row in before for option in row.runtime.options.items())


def _spec(row: BenchResult) -> BenchSpec:
    runtime = row.runtime
    engine = "keras" if runtime.name.startswith("keras") else runtime.name
    delegation = Delegation(
        runtime.requested, tuple(runtime.options.items()), runtime.allow_fallback
    )
    return BenchSpec(engine, runtime.threads, row.batch, delegation)
