"""Tells which models go through which format and scheme: `python benchmarks/model_cases.py`.

Every model of tests/cases is exported to both formats in every scheme. A cell tells what became of
it: the SQNR of a file that passed parity, ``rejected`` with the SQNR of one that did not, or the
first words of a refusal. ``--json`` writes the outcomes; with ``--before``, the outcomes of an
earlier version, a cell has both.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import cct_export  # noqa: E402
from cct_export.errors import CCTExportError  # noqa: E402
from cct_export.model import start  # noqa: E402

SAMPLES = 100
SCHEMES = {
    "tflite": ("none", "fp16", "int8-dynamic", "int8", "int8-full", "int16x8", "int4-weight"),
    "onnx": ("none", "fp16", "int8-dynamic", "int8", "int4-weight"),
}


def models(folder: Path) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Yields group, name and builder of every model; a builder returns a model or a path."""
    from cases.changed_ccts import CHANGED_CCTS
    from cases.other_classifiers import OTHER_CLASSIFIERS, SAVED_MODELS

    for name, build in CHANGED_CCTS.items():
        yield "changed CCT", name, build
    for name, build in OTHER_CLASSIFIERS.items():
        yield "other classifier", name, build
    for name, write in SAVED_MODELS.items():
        yield "saved model", name, lambda write=write: write(folder)


def outcome(model: object, format: str, scheme: str, folder: Path) -> str:
    """Exports a model; returns what became of it in a few words."""
    export = {"tflite": cct_export.export_tflite, "onnx": cct_export.export_onnx}[format]
    path = folder / f"m.{format}"
    options = {"calibration_samples": SAMPLES, "parity_samples": SAMPLES}
    try:
        exported = export(model, scheme=scheme, output=path, **options)
    except CCTExportError as error:
        return f"refused: {' '.join(str(error).split())[:100]}"
    except Exception as error:  # what nobody foresaw is an outcome too
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    parity = exported.parity
    return f"{parity.sqnr_db:.1f} dB" if parity.passed else f"rejected at {parity.sqnr_db:.1f} dB"


def outcomes(build: Callable[[], object], format: str, folder: Path) -> dict[str, str]:
    """Returns the outcomes of a model in a format, by their schemes."""
    try:
        model = build()
    except Exception as error:  # a version that cannot build a case tells so
        return dict.fromkeys(SCHEMES[format], f"not built: {error}")
    return {scheme: outcome(model, format, scheme, folder) for scheme in SCHEMES[format]}


def row(group: str, name: str, format: str, now: dict[str, str], before: dict[str, str]) -> str:
    """Returns a line of the table; ``before`` may be empty."""
    cells = [
        f"{scheme}: {f'{before[scheme]} → ' if scheme in before else ''}{text}"
        for scheme, text in now.items()
    ]
    return f"| {group} | {name} | {format} | {' | '.join(cells)} |"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    parser.add_argument("--before", type=Path, help="outcomes of an earlier version")
    parser.add_argument("--only", default="", help="only models whose name has these words")
    parser.add_argument("--format", choices=SCHEMES, help="only this format")
    arguments = parser.parse_args()
    before = json.loads(arguments.before.read_text("utf-8")) if arguments.before else {}
    start()
    logging.disable(logging.WARNING)
    results: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for group, case, build in models(folder):
            for format in SCHEMES:
                if arguments.only not in case or arguments.format not in (None, format):
                    continue
                key = f"{group} | {case} | {format}"
                results[key] = outcomes(build, format, folder)
                print(row(group, case, format, results[key], before.get(key, {})), flush=True)
                if arguments.json:
                    text = json.dumps(results, indent=1, ensure_ascii=False)
                    arguments.json.write_text(text + "\n", "utf-8")
    cells = [text for cases in results.values() for text in cases.values()]
    passed = sum(text.endswith("dB") and "rejected" not in text for text in cells)
    print(f"{passed} of {len(cells)} passed")


if __name__ == "__main__":
    main()
