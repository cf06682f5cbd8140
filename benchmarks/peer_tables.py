"""The figures of the peers' results.json as text: results.md, and views of blocks in pages.

Where nothing was measured yet, a view tells the command that measures.
"""

from pathlib import Path

import peer_picture
import peer_record
from markdown_table import table
from peer_record import PeerResults, PeerRow

HEAD = ("file", "kB", "min ms", "×", "median ms", "SQNR dB", "agreement", "top-1 %")
NOT_MEASURED = "Not measured yet: `python benchmarks/peers.py --data cifar10` does it."


def results_page(results: PeerResults) -> str:
    """Returns results.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    parts = [f"# {results.model}, other engines", setup(results), f"`{results.command}`", versions]
    return "\n\n".join([*parts, rows_table(results), *_errors(results)]) + "\n"


def setup(results: PeerResults) -> str:
    """Returns how the results were measured."""
    machine = results.machine
    counts = sorted({len(row.times_ns) for row in results.measured})
    runs = "/".join(f"{count:,}" for count in counts)
    return (
        f"Latency of {runs} runs of one image on 1 thread of an {machine.cpu} ({machine.cores} "
        f"cores, {machine.surroundings or machine.architecture}), each file in a process of its "
        "own, all in turn. `×` is the lowest latency, which other programs disturb least, over "
        "that of our TFLite file: its int8 file for int8, its float32 file for all others. SQNR "
        f"and agreement are with Keras on {results.parity_images:,} test images of "
        f"`{results.data}`, top-1 on {results.accuracy_images:,}."
    )


def rows_table(results: PeerResults) -> str:
    """Returns a row for every file, also for those that could not be made."""
    return table(HEAD, [_cells(results, row) for row in results.rows])


def _cells(results: PeerResults, row: PeerRow) -> list[str]:
    name = f"**{row.name}**" if row.ours else row.name
    if row.error or row.parity is None or row.top1 is None:
        return [name, *["–"] * (len(HEAD) - 2), "failed"]
    ratio = results.ratio(row)
    return [
        name,
        f"{(row.size_bytes or 0) / 1e3:,.0f}",
        f"{row.minimum_ms:.3f}",
        "–" if ratio is None else f"{ratio:.2f}",
        f"{row.median_ms:.3f}",
        f"{row.parity.sqnr_db:.1f}",
        f"{row.parity.top1_agreement:.3f}",
        f"{100 * row.top1:.2f}",
    ]


def _errors(results: PeerResults) -> list[str]:
    """Returns why rows have no figures: one list, none if all have."""
    lines = [f"- {row.name}: {row.error}" for row in results.rows if row.error]
    return ["\n".join(lines)] if lines else []


# Views of blocks


def peers(folder: str) -> str:
    """Every row of the results in a folder, and why some have no figures."""
    if not peer_record.exists(folder):
        return NOT_MEASURED
    results = peer_record.read(folder)
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    parts = [f"{setup(results)} {versions}.", rows_table(results), *_errors(results)]
    return "\n\n".join(parts)


def peers_picture(path: str, *folders: str) -> str:
    """The picture; its figures are in the tables, for who cannot see it too."""
    found = measured(folders)
    if not found:
        return NOT_MEASURED
    models = " and ".join(results.model for results in found)
    return f'<img src="{path}" width="640" alt="Latency and SQNR of {models} in each engine">'


def measured(folders: tuple[str, ...]) -> list[PeerResults]:
    """Returns the results of those folders that have any."""
    return [peer_record.read(folder) for folder in folders if peer_record.exists(folder)]


def refresh_picture(page: Path, path: str, *folders: str) -> None:
    """Draws the picture that a page shows, if anything was measured."""
    if found := measured(folders):
        peer_picture.draw(found, page.parent / path)
