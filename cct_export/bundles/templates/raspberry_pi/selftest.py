"""Verifies on this device that the folder is complete and that the model has parity with Keras.

    python selftest.py           a line per check, and PASSED or FAILED at the end
    python selftest.py --json    the same as JSON

It compares every file with SHA256SUMS, runs the golden inputs in golden.npz, compares their logits
with those of Keras by the bounds in model.json, and measures latency. It exits with 0 if all checks
pass, else with 1. Files that do not belong to the folder are noted; where Python could run one in
place of what the scripts import, that is a failure.
"""

import argparse
import hashlib
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

sys.dont_write_bytecode = True  # Python runs the bytecode in __pycache__, which is not checked

FOLDER = Path(__file__).resolve().parent
CHECKSUMS = "SHA256SUMS"
UNCHECKED = (CHECKSUMS, ".venv")
CODE = (".py", ".pyc", ".so", ".pth")
NOTES_SHOWN = 5
WARMUP, RUNS = 5, 50


def check_files() -> tuple[int, list[str], list[str]]:
    """Compares this folder with SHA256SUMS.

    Returns:
        The number of files in SHA256SUMS, what is wrong, and what else is in the folder.
    """
    lines = (FOLDER / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    digests = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    failures, notes = [], []
    for path in sorted(digests):
        if not (FOLDER / path).is_file():
            failures.append(f"{path} is missing")
        elif hashlib.sha256((FOLDER / path).read_bytes()).hexdigest() != digests[path]:
            failures.append(f"{path} has another SHA-256 than in {CHECKSUMS}: copy it again")
    for entry in sorted(FOLDER.iterdir()):
        if entry.name in digests or entry.name in UNCHECKED:
            continue
        if can_be_imported(entry):
            failures.append(
                f"{entry.name} does not belong to this folder, and Python may run it in place of "
                "what these scripts import: move it away"
            )
        else:
            notes.append(f"{entry.name} does not belong to this folder and was not checked")
    return len(digests), failures, notes


def can_be_imported(entry: Path) -> bool:
    """Returns whether an import could run ``entry``, which is in the folder of the scripts.

    Python looks there first. A folder without ``__init__`` is the last that it takes.
    """
    if entry.is_dir():
        return entry.name == "__pycache__" or any(entry.glob("__init__.*"))
    return entry.suffix in CODE


def check_labels(description: dict, classes: int) -> list[str]:
    """Returns what is wrong with the labels."""
    labels = (FOLDER / "labels.txt").read_text(encoding="utf-8").splitlines()
    if labels != description["labels"]:
        return ["labels.txt and model.json have different labels"]
    # A single value tells two classes apart.
    return [] if len(labels) == max(classes, 2) else [f"{len(labels)} labels for {classes} logits"]


def threshold_of(output: dict) -> float | None:
    """Returns what a value has to exceed for a yes; None where the largest value is the class."""
    if output["activation"] == "sigmoid" or output["classes"] == 1:
        return 0.0 if output["activation"] == "none" else 0.5
    return None


def signal_of(logits, threshold: float | None):
    """Returns what decides: logits minus the threshold, or their mean, which a softmax ignores."""
    return logits - (logits.mean(axis=1, keepdims=True) if threshold is None else threshold)


def classes_of(logits, threshold: float | None):
    """Returns the decisions about each image, ``(N, 1)`` or one for each logit."""
    return logits.argmax(axis=1)[:, None] if threshold is None else logits > threshold


def decided_images(reference, sqnr_db: float, threshold: float | None):
    """Returns which decisions an error within the SQNR bound cannot change.

    The two best logits differ by more than the root mean square of such an error.
    """
    import numpy as np

    signal = signal_of(reference, threshold)
    allowed_error = np.sqrt(np.mean(signal**2)) * 10 ** (-sqnr_db / 20)
    if threshold is not None:
        return 2 * np.abs(signal) > allowed_error
    top2 = np.sort(reference, axis=1)[:, -2:]
    return top2[:, 1:] - top2[:, :1] > allowed_error


def check_parity(
    reference, candidate, bounds: dict, threshold: float | None = None
) -> tuple[dict, list[str]]:
    """Compares a model's logits with those of Keras, both float64 ``(N, classes)``.

    The SQNR is of what decides, see ``signal_of``.

    Returns:
        The figures, and the ``bounds`` ("golden" in model.json) that they miss.
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        signal, measured = (signal_of(x, threshold) for x in (reference, candidate))
        sqnr_db = float(10 * np.log10(np.sum(signal**2) / np.sum((signal - measured) ** 2)))
    is_decided = decided_images(reference, bounds["sqnr_db"], threshold)
    decided = int(is_decided.sum())
    expected, found = (classes_of(x, threshold) for x in (reference, candidate))
    flips = int((expected != found)[is_decided].sum())
    max_abs = float(np.abs(reference - candidate).max())
    limit = bounds["max_abs"] and bounds["max_abs"] * max(1.0, float(np.abs(reference).max()))
    decisions = zip(expected.T, is_decided.T, strict=True)
    several = any(len(np.unique(classes[counts])) > 1 for classes, counts in decisions)
    constant = several and (found == found[0]).all()
    too_noisy = not sqnr_db >= bounds["sqnr_db"]  # not "<": a NaN has to fail
    allowed_flips = max(bounds["flips"], (1 - bounds["agreement"]) * decided)
    failures = {
        "the logits hold NaN or infinity": not np.isfinite(candidate).all(),
        "the model predicts one class for every image": constant,
        f"SQNR {sqnr_db:.1f} dB is below {bounds['sqnr_db']:.0f} dB": too_noisy,
        "no image is decided": not decided and limit is None,
        f"{flips} of {decided} decided images have another top-1 class": flips > allowed_flips,
        f"a logit differs by {max_abs:.2e}, too much": limit and not max_abs <= limit,
    }
    figures = {
        "images": len(reference),
        "sqnr_db": _finite(sqnr_db),
        "sqnr_db_bound": bounds["sqnr_db"],
        "max_abs": _finite(max_abs),
        "decided": decided,
        "flips": flips,
    }
    return figures, [text for text, failed in failures.items() if failed]


def run_golden(model, golden) -> tuple[dict, list[str]]:
    """Runs the golden inputs; returns the figures, and the checks that fail.

    The difference from the outputs of the machine that made this folder is reported and not
    checked: float arithmetic depends on the processor.
    """
    import numpy as np

    bounds = model.description["golden"]
    outputs = np.concatenate([model.run(image[np.newaxis]) for image in golden["inputs"]])
    logits, recorded = (
        model.dequantize(x).astype(np.float64) for x in (outputs, golden["outputs"])
    )
    threshold = threshold_of(model.description["output"])
    figures, failures = check_parity(golden["logits"].astype(np.float64), logits, bounds, threshold)
    figures["outputs"] = {
        "computed_by": bounds["computed_by"],
        "computed_on": bounds["computed_on"],
        "bit_equal": bool(np.array_equal(outputs, golden["outputs"])),
        "max_abs": _finite(float(np.abs(logits - recorded).max())),
        "same_top1": np.array_equal(classes_of(logits, threshold), classes_of(recorded, threshold)),
    }
    return figures, failures + check_labels(model.description, logits.shape[1])


def measure_latency(model, inputs) -> dict | None:
    """Returns the latency of one image from input to logits; None on an emulated processor."""
    import numpy as np

    if is_emulated():
        return None
    times_ns = []
    for run in range(WARMUP + RUNS):
        image = inputs[run % len(inputs)][np.newaxis]
        start = time.perf_counter_ns()
        model.run(image)
        times_ns.append(time.perf_counter_ns() - start)
    median, p90 = np.percentile(times_ns[WARMUP:], [50, 90]) / 1e6
    return {"p50": float(median), "p90": float(p90), "count": RUNS, "threads": 1}


def is_emulated() -> bool:
    """Returns whether QEMU emulates the processor.

    In user mode QEMU writes its own /proc/cpuinfo, with 100 BogoMIPS and a model name, which Linux
    on arm64 gives to 32-bit programs only.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = dict(line.split("\t: ", 1) for line in text.splitlines() if "\t: " in line)
    arm = "CPU implementer" in fields
    return arm and "model name" in fields and fields.get("BogoMIPS") == "100.00"


def run_checks(verbose: bool) -> dict:
    """Returns the result of every check; ``failures`` is empty if all pass."""
    result: dict = {"passed": False, "machine": platform.machine()}
    result["python"] = platform.python_version()
    result["files"], result["failures"], result["notes"] = check_files()
    if result["failures"]:
        return result  # a corrupt model may crash the engine
    import numpy as np
    from model import Model

    model = Model(threads=1, verbose=verbose)
    result["engine"] = " ".join(model.engine)
    result["numpy"] = metadata.version("numpy")
    with np.load(FOLDER / "golden.npz") as golden:
        result["parity"], result["failures"] = run_golden(model, golden)
        result["latency_ms"] = measure_latency(model, golden["inputs"])
    result["passed"] = not result["failures"]
    return result


def print_result(result: dict) -> None:
    """Prints the result of every check as text."""
    if "parity" in result:
        parity, latency, outputs = (
            result["parity"],
            result["latency_ms"],
            result["parity"]["outputs"],
        )
        difference = f"max |difference| {_text(outputs['max_abs'])}"
        difference = "bit-equal" if outputs["bit_equal"] else difference
        sqnr, agreeing = _text(parity["sqnr_db"], ".1f"), parity["decided"] - parity["flips"]
        _show(f"files    {result['files']} match {CHECKSUMS}")
        _show(f"engine   {result['engine']} on {result['machine']}, Python {result['python']}")
        _show(
            f"parity   SQNR {sqnr} dB (bound {parity['sqnr_db_bound']:.0f} dB), max |difference| "
            f"{_text(parity['max_abs'])}, top-1 agrees on {agreeing} of {parity['decided']} "
            "decided images"
        )
        machine = f"{outputs['computed_by']} on {outputs['computed_on']}"
        _show(f"outputs  {difference}, compared with {machine}")
        if latency is None:
            _show("latency  not measured: the processor is emulated")
        else:
            _show(
                f"latency  median {latency['p50']:.2f} ms, p90 {latency['p90']:.2f} ms: "
                f"{latency['count']} runs of one image, 1 thread"
            )
    notes = result.get("notes", [])
    for note in notes[:NOTES_SHOWN]:
        _show(f"note     {note}")
    if len(notes) > NOTES_SHOWN:
        _show(f"note     nor do {len(notes) - NOTES_SHOWN} others; --json names all")
    verdict = "PASSED" if result["passed"] else f"FAILED: {'; '.join(result['failures'])}"
    _show(verdict)


def main() -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(description="Verify the model in this folder on this device.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show what the engine says when it starts"
    )
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # whatever its encoding is
    try:
        result = run_checks(options.verbose)
    except ModuleNotFoundError as error:
        failure = f"{error.name} is not installed: .venv/bin/pip install -r requirements.txt"
        result = {"passed": False, "failures": [failure]}
    except Exception as error:  # any error means that this device is not verified
        result = {"passed": False, "failures": [f"{type(error).__name__}: {error}"]}
    if options.json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        print_result(result)
    return 0 if result["passed"] else 1


def _finite(value: float) -> float | None:
    """Returns ``value``, or None for infinity and NaN, which JSON does not have."""
    return value if abs(value) < float("inf") else None


def _text(value: float | None, form: str = ".1e") -> str:
    return "NaN or infinite" if value is None else format(value, form)


def _show(text: str) -> None:
    """Prints a line, such as names of files, with ? for what controls a terminal."""
    print("".join(letter if letter.isprintable() else "?" for letter in text))


if __name__ == "__main__":
    sys.exit(main())
