"""Compares files of cct-export with what other engines make of the same model, in one run.

``python benchmarks/peers.py --data DATA`` makes an environment for each engine, and writes
results.json and results.md below results/MACHINE/peers/; ``--write README.md`` refreshes the
figures that stand between markers in a page.
"""

import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import peer_candidates
import peer_environments
import record
from peer_candidates import Candidate
from peer_record import PeerResults, PeerRow
from run import slug, without_folders

from cct_export.errors import CCTExportError
from cct_export.specs import CALIBRATION_SAMPLES, DEFAULT_MODEL, PARITY_SAMPLES
from cct_export.text import one_line
from cct_export.workers import Channel

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("benchmarks")
WORKER = Path(__file__).with_name("peer_worker.py")
BURST, WARMUP = 20, 5
# Lowering and quantizing a model in PyTorch takes minutes on a busy machine.
LIMIT_S = 1800.0
LONGEST_REASON = 200
LIBRARIES = (
    "tensorflow", "keras", "ai-edge-litert", "onnx", "onnxruntime", "tf2onnx", "numpy",
)  # fmt: skip


class Groups(click.ParamType):
    """Names of groups of files with commas between."""

    name = "engines"

    def convert(self, value: object, param: object, ctx: object) -> tuple[str, ...]:
        """Returns the groups."""
        names = value if isinstance(value, tuple) else tuple(str(value).split(","))
        for name in names:
            if name not in peer_candidates.GROUPS:
                known = ", ".join(peer_candidates.GROUPS)
                self.fail(f"no engine {name!r}: choose from {known}", param, ctx)
        return names


@dataclass(frozen=True)
class Converted:
    """What a worker's ``convert`` returns: its file, the size, and the seconds it took."""

    path: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True)
class Times:
    """What a worker's ``burst`` returns."""

    times_ns: tuple[int, ...]


@dataclass(frozen=True)
class Images:
    """The images of a run, in files that workers read, and what Keras makes of them.

    Attributes:
        calibration: .npy of training images.
        test: .npy of test images, those of parity first.
        logits: of Keras for the first ``len(logits)`` of them.
        labels: of all of them.
    """

    calibration: Path
    test: Path
    logits: "np.ndarray"
    labels: "np.ndarray"


@dataclass
class Running:
    """A candidate whose worker is ready to be timed."""

    row: PeerRow
    channel: Channel
    times_ns: list[int] = field(default_factory=list)


@click.command()
@click.option("--data", help="Images: cifar10, digits, a folder or an .npz.")
@click.option(
    "--model", "models", multiple=True, default=(DEFAULT_MODEL,),
    help="A preset, .keras, .weights.h5 or run; several times for several.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="By default results/MACHINE/peers.")
@click.option(
    "--engines", type=Groups(), default=",".join(peer_candidates.GROUPS), show_default=True,
    help="Only these; ours are what ratios are over.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=60, help="Rounds of 20 runs each.")
@click.option(
    "--images", type=click.IntRange(1), default=PARITY_SAMPLES, help="Test images for parity."
)
@click.option("--accuracy-images", type=click.IntRange(1), help="Only so many, for top-1.")
@click.option(
    "--write", "pages", multiple=True, metavar="PAGE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Refresh the figures of this page; without --data nothing is measured.",
)  # fmt: skip
def main(
    data: str | None, models: tuple[str, ...], out: Path | None, pages: tuple[Path, ...],
    **options: object,
) -> None:  # fmt: skip
    """Compare cct-export with other engines, from the same weights, in one run."""
    import peer_tables
    import tables

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if data is None and not pages:
        raise click.UsageError("name the images with --data, or a page with --write")
    try:
        for model in models if data is not None else ():
            results = measure(data, model, **options)
            above = out or record.RESULTS / slug(results.machine.cpu) / "peers"
            folder = above / results.model
            folder.mkdir(parents=True, exist_ok=True)
            record.write(results, folder)
            (folder / "results.md").write_text(peer_tables.results_page(results))
            click.echo(f"wrote {folder}")
        for page in pages:
            tables.refresh(page)
            click.echo(f"wrote {page}")
    except CCTExportError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


def measure(
    data: str,
    model: str,
    *,
    engines: tuple[str, ...],
    rounds: int,
    images: int,
    accuracy_images: int | None,
) -> PeerResults:
    """Makes, verifies and times every file.

    Args:
        data: images, as the commands take them.
        model: what the commands take as MODEL.
        engines: groups of files.
        rounds: rounds of every file.
        images: test images for parity.
        accuracy_images: test images for top-1; None for all.
    """
    from cct_export import machine

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        written = write_images(model, data, folder, images, accuracy_images)
        rows: dict[str, PeerRow] = {}
        running: list[Running] = []
        for candidate in peer_candidates.candidates(model, data, folder, engines):
            row, channel = ready(candidate, written, folder)
            rows[row.name] = row
            if channel is not None:
                stack.callback(channel.kill)
                running.append(Running(row, channel))
        for row in time_interleaved(running, rounds):
            rows[row.name] = row
        return PeerResults(
            command=shlex.join(["python", "benchmarks/peers.py", *without_folders(sys.argv[1:])]),
            model=Path(model).name,
            data=Path(data).name,
            machine=machine.describe(),
            versions=machine.versions(*LIBRARIES) | pinned(engines),
            parity_images=len(written.logits),
            accuracy_images=len(written.labels),
            rows=tuple(rows.values()),
        )


def pinned(engines: Sequence[str]) -> dict[str, str]:
    """Returns the versions in the environments of the peers, but for libraries of ours."""
    peers = [peer for name, peer in peer_environments.PEERS.items() if name in engines]
    pins = [pin.split("==") for peer in peers for pin in (*peer.pins, *peer.alone)]
    return {name: version for name, version in pins if name not in LIBRARIES}


def write_images(model: str, data: str, folder: Path, parity: int, accuracy: int | None) -> Images:
    """Writes calibration and test images to files, and computes the reference with Keras."""
    import numpy as np

    import cct_export
    from cct_export.data import read, sampling
    from cct_export.runtimes.keras import KerasSession
    from cct_export.runtimes.session import run

    loaded = cct_export.load(model)
    dataset = read(data, loaded.image_shape)
    calibration = sampling.calibration(dataset, loaded.image_shape, CALIBRATION_SAMPLES).images
    first = sampling.sample_indices(dataset.test, parity, sampling.PARITY_SEED)
    # The images of parity come first, as verify samples them; top-1 is of them and the others.
    others = np.setdiff1d(np.arange(len(dataset.test.labels)), first)
    indices = np.concatenate([first, others])[
        : max(len(first), accuracy or len(first) + len(others))
    ]
    test = dataset.test.images(indices)
    np.save(folder / "calibration.npy", calibration)
    np.save(folder / "test.npy", test)
    logits = run(KerasSession(loaded), test[: len(first)])
    labels = dataset.test.labels[indices]
    return Images(folder / "calibration.npy", folder / "test.npy", logits, labels)


def ready(candidate: Candidate, images: Images, folder: Path) -> tuple[PeerRow, Channel | None]:
    """Makes the file of a candidate and verifies it.

    Returns:
        The row, and the worker to time it with; None if anything failed: the row says what.
    """
    log.info("%s", candidate.name)
    row = PeerRow(candidate.name, candidate.engine, candidate.precision)
    channel = None
    try:
        python = candidate.python()
        if not candidate.source.is_file():
            candidate.make(candidate.source)
        converted = convert(candidate, python, images, folder)
        row = replace(row, seconds=converted.seconds, size_bytes=converted.size_bytes)
        channel = start(candidate, python)
        options = {"precision": candidate.precision, "images": str(images.test)}
        channel.tell("open", path=converted.path, **options)
        return verified(row, channel, images, folder), channel
    except Exception as error:  # whatever an engine or a converter raises is its result
        if channel is not None:
            channel.kill()
        log.info("%s: %s", candidate.name, reason(error))
        return replace(row, error=reason(error)), None


def reason(error: Exception) -> str:
    """Returns an error in one line."""
    return (one_line(str(error)) or type(error).__name__)[:LONGEST_REASON]


def start(candidate: Candidate, python: Path) -> Channel:
    """Starts a worker in the environment of a candidate's engine, and in no other's."""
    # -I: neither PYTHONPATH nor the user's packages reach a peer.
    command = [str(python), "-I", str(WORKER), candidate.engine]
    return Channel(command, candidate.engine, LIMIT_S)


def convert(candidate: Candidate, python: Path, images: Images, folder: Path) -> Converted:
    """Converts in a process that ends: what converters hold or start is not there when timing."""
    target = folder / candidate.name.replace(" ", "-")
    target.mkdir()
    with start(candidate, python) as channel:
        return channel.ask(
            "convert", Converted, source=str(candidate.source), precision=candidate.precision,
            calibration=str(images.calibration), folder=str(target),
        )  # fmt: skip


def verified(row: PeerRow, channel: Channel, images: Images, folder: Path) -> PeerRow:
    """Adds parity and top-1."""
    import numpy as np

    from cct_export.evaluation import parity

    path = folder / "logits.npy"
    channel.tell("logits", images=str(images.test), output=str(path))
    logits, reference = np.load(path), images.logits
    if logits.shape != (len(images.labels), reference.shape[1]):
        raise ValueError(f"its logits are {logits.shape[1:]}, not {reference.shape[1:]}")
    if not np.isfinite(logits).all():
        raise ValueError(f"{np.isnan(logits).any(axis=1).mean():.0%} of its logits are not numbers")
    same = logits[: len(reference)]
    agreement = float(np.mean(same.argmax(axis=1) == reference.argmax(axis=1)))
    figures = record.Parity(
        parity.logits_sqnr_db(reference, same), float(np.abs(same - reference).max()),
        agreement, len(reference),
    )  # fmt: skip
    top1 = float(np.mean(logits.argmax(axis=1) == images.labels))
    return replace(row, parity=figures, top1=top1)


def time_interleaved(running: Sequence[Running], rounds: int) -> list[PeerRow]:
    """Times all candidates in turn, another one first in every round, so that noise meets all.

    Returns:
        The rows with their times. One whose worker fails says so, and the others go on.
    """
    log.info("timing %d files", len(running))
    errors: dict[str, str] = {}
    for turn in range(rounds):
        for each in rotated(running, turn):
            if each.row.name in errors:
                continue
            try:
                times = each.channel.ask("burst", Times, runs=BURST, warmup=WARMUP)
                each.times_ns.extend(times.times_ns)
            except CCTExportError as error:
                errors[each.row.name] = reason(error)
    return [_timed(each, errors) for each in running]


def rotated(running: Sequence[Running], turn: int) -> list[Running]:
    """Returns the candidates in the order of a round."""
    start_at = turn % len(running) if running else 0
    return [*running[start_at:], *running[:start_at]]


def _timed(each: Running, errors: Mapping[str, str]) -> PeerRow:
    error = errors.get(each.row.name, "")
    return replace(each.row, error=error, times_ns=() if error else tuple(each.times_ns))


if __name__ == "__main__":
    main()
