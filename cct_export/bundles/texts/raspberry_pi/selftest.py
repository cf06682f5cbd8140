"""Proves on this device that the folder is complete and that its model answers as it should.

    python selftest.py           a line per finding, at last PASSED or FAILED
    python selftest.py --json    the same for machines

Every file is compared with SHA256SUMS. Then the images of golden.npz are run, the logits judged by
the bounds in model.json, and runs are timed. It ends with 0 if all is well and with 1 otherwise.
"""

import argparse
import hashlib
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

sys.dont_write_bytecode = True  # a cache would be a file that does not belong here

HERE = Path(__file__).resolve().parent
SUMS = "SHA256SUMS"
UNCHECKED = (SUMS, ".venv")
WARMUP, RUNS = 5, 50


def check_files() -> tuple[int, list[str]]:
    """Returns how many files there have to be, and what is wrong with them."""
    lines = (HERE / SUMS).read_text(encoding="utf-8").splitlines()
    wanted = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    roots = [entry for entry in HERE.iterdir() if entry.name not in UNCHECKED]
    paths = [path for root in roots for path in (root, *root.rglob("*")) if not path.is_dir()]
    there = {path.relative_to(HERE).as_posix() for path in paths}
    wrong = [f"{path} is missing" for path in sorted(wanted.keys() - there)]
    wrong += [f"{path} is not of this folder: move it away" for path in sorted(there - {*wanted})]
    for path in sorted(wanted.keys() & there):
        if hashlib.sha256((HERE / path).read_bytes()).hexdigest() != wanted[path]:
            wrong.append(f"{path} is not the file that was made: copy it again")
    return len(wanted), wrong


def check_labels(contract: dict, classes: int) -> list[str]:
    """Returns what is wrong with the labels."""
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()
    if labels != contract["labels"]:
        return ["labels.txt and model.json name other classes"]
    return [] if len(labels) == classes else [f"{len(labels)} labels for {classes} logits"]


def judge(keras, logits, bounds: dict) -> tuple[dict, list[str]]:
    """Compares logits with those of Keras, both float64 ``(N, classes)``.

    The noise ratio is that of logits minus their mean over the classes, which a softmax does not
    see. An image is decided where its two best classes lie further apart than the error that the
    bound on the noise ratio allows: of the others any of the two may come out.

    Returns:
        The figures, and what is wrong with them.
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        signal, noise = (x - x.mean(axis=1, keepdims=True) for x in (keras, keras - logits))
        ratio = float(10 * np.log10(np.sum(signal**2) / np.sum(noise**2)))
    allowed = np.sqrt(np.mean(signal**2)) * 10 ** (-bounds["sqnr_db"] / 20)
    best = np.sort(keras, axis=1)[:, -2:]
    decided = best[:, 1] - best[:, 0] > allowed
    count = int(decided.sum())
    flips = int((keras.argmax(1) != logits.argmax(1))[decided].sum())
    largest = float(np.abs(keras - logits).max())
    limit = bounds["max_abs"] and bounds["max_abs"] * max(1.0, float(np.abs(keras).max()))
    one_class = len({*logits.argmax(1)}) == 1 < len({*keras.argmax(1)})
    # Written as "not good", so that NaN is wrong.
    wrong = {
        "the logits hold NaN or infinity": not np.isfinite(logits).all(),
        "it answers one class for every image": one_class,
        f"SQNR {ratio:.1f} dB is below {bounds['sqnr_db']:.0f} dB": not ratio >= bounds["sqnr_db"],
        "no image has a best class that stands out": not count and limit is None,
        f"{flips} of {count} decided images have another best class": not (
            flips <= max(bounds["flips"], (1 - bounds["agreement"]) * count)
        ),
        f"a logit differs by {largest:.2e}, too much": limit and not largest <= limit,
    }
    figures = {
        "images": len(keras),
        "sqnr_db": _finite(ratio),
        "sqnr_db_bound": bounds["sqnr_db"],
        "max_abs": _finite(largest),
        "decided": count,
        "flips": flips,
    }
    return figures, [text for text, found in wrong.items() if found]


def compare(model, golden) -> tuple[dict, list[str]]:
    """Runs the golden images; returns the figures, and what is wrong with them.

    Against Keras it judges. How far the answers are from those of the machine that made this folder
    it only tells: float arithmetic depends on the processor.
    """
    import numpy as np

    bounds = model.contract["golden"]
    answers = np.concatenate([model.answer(one[np.newaxis]) for one in golden["inputs"]])
    logits, there = (model.logits(x).astype(np.float64) for x in (answers, golden["outputs"]))
    figures, wrong = judge(golden["logits"].astype(np.float64), logits, bounds)
    figures["outputs"] = {
        "computed_by": bounds["computed_by"],
        "computed_on": bounds["computed_on"],
        "bit_equal": bool(np.array_equal(answers, golden["outputs"])),
        "max_abs": _finite(float(np.abs(logits - there).max())),
        "same_top1": bool((logits.argmax(1) == there.argmax(1)).all()),
    }
    return figures, wrong + check_labels(model.contract, logits.shape[1])


def measure(model, inputs) -> dict | None:
    """Returns the latency of one image, from input to logits; None where that would say nothing."""
    import numpy as np

    if emulated():
        return None
    times = []
    for run in range(WARMUP + RUNS):
        image = inputs[run % len(inputs)][np.newaxis]
        start = time.perf_counter_ns()
        model.answer(image)
        times.append(time.perf_counter_ns() - start)
    median, p90 = np.percentile(times[WARMUP:], [50, 90]) / 1e6
    return {"p50": float(median), "p90": float(p90), "count": RUNS, "threads": 1}


def emulated() -> bool:
    """Tells whether QEMU plays the processor: in user mode it writes /proc/cpuinfo itself.

    It says 100 BogoMIPS, and a model name, which Linux gives to 32-bit programs only.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = dict(line.split("\t: ", 1) for line in text.splitlines() if "\t: " in line)
    arm = "CPU implementer" in fields
    return arm and "model name" in fields and fields.get("BogoMIPS") == "100.00"


def examine() -> dict:
    """Returns everything found; ``failures`` is empty if all is well."""
    found: dict = {"passed": False, "machine": platform.machine()}
    found["python"] = platform.python_version()
    found["files"], found["failures"] = check_files()
    if found["failures"]:
        return found  # a broken model may end the process
    import numpy as np
    from model import Model

    model = Model(threads=1)
    found["engine"] = " ".join(model.engine)
    found["numpy"] = metadata.version("numpy")
    with np.load(HERE / "golden.npz") as golden:
        found["parity"], found["failures"] = compare(model, golden)
        found["latency_ms"] = measure(model, golden["inputs"])
    found["passed"] = not found["failures"]
    return found


def show(found: dict) -> None:
    """Prints what was found, for people."""
    if "parity" in found:
        parity, latency, outputs = found["parity"], found["latency_ms"], found["parity"]["outputs"]
        same = "bit-equal" if outputs["bit_equal"] else f"logits within {_text(outputs['max_abs'])}"
        print(f"files    {found['files']} as in {SUMS}")
        print(f"engine   {found['engine']} on {found['machine']}, Python {found['python']}")
        ratio, equal = _text(parity["sqnr_db"], ".1f"), parity["decided"] - parity["flips"]
        print(
            f"Keras    SQNR {ratio} dB (at least {parity['sqnr_db_bound']:.0f}), logits within "
            f"{_text(parity['max_abs'])}, top-1 equal on {equal} of {parity['decided']} decided "
            "images"
        )
        print(f"outputs  {same}, compared with {outputs['computed_by']}, {outputs['computed_on']}")
        if latency is None:
            print("latency  not measured: the processor is emulated")
        else:
            print(
                f"latency  median {latency['p50']:.2f} ms, p90 {latency['p90']:.2f} ms: "
                f"{latency['count']} runs of one image, 1 thread"
            )
    print("PASSED" if found["passed"] else f"FAILED: {'; '.join(found['failures'])}")


def main() -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(description="Prove the model in this folder on this device.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        found = examine()
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed: .venv/bin/pip install -r requirements.txt"
        found = {"passed": False, "failures": [missing]}
    except Exception as error:  # whatever it is, this device is not proven
        found = {"passed": False, "failures": [f"{type(error).__name__}: {error}"]}
    if options.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        show(found)
    return 0 if found["passed"] else 1


def _finite(value: float) -> float | None:
    """Returns ``value``, or what JSON has for infinity and NaN."""
    return value if abs(value) < float("inf") else None


def _text(value: float | None, form: str = ".1e") -> str:
    return "no number" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
