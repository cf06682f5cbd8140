"""The self-test of a Raspberry Pi's bundle: what passes, and what it finds."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kinds import FAST, every_kind


@every_kind
def test_the_self_test_passes_anywhere(bundle_of, run, kind):
    done = run(bundle_of(kind) / "selftest.py", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["failures"] == []
    assert found["parity"]["images"] == 16
    assert found["parity"]["outputs"]["bit_equal"]
    assert found["parity"]["sqnr_db"] > found["parity"]["sqnr_db_bound"]
    latency = found["latency_ms"]
    assert latency["count"] >= 50
    assert 0 < latency["p50"] <= latency["p90"]


def test_people_are_told_in_lines(bundle_of, run):
    done = run(bundle_of(FAST) / "selftest.py")
    assert done.returncode == 0
    first, *_, last = done.stdout.splitlines()
    assert first == "files    10 as in SHA256SUMS"
    assert last == "PASSED"
    assert "outputs  bit-equal" in done.stdout
    assert "50 runs" in done.stdout


def test_a_self_test_leaves_nothing_that_the_next_one_finds(bundle, run):
    for script in ("selftest.py", "classify.py", "selftest.py"):
        done = run(bundle / script, *(["--help"] if script == "classify.py" else []))
        assert done.returncode == 0, done.stdout
    (bundle / ".venv").mkdir()
    (bundle / ".venv" / "pyvenv.cfg").touch()
    assert run(bundle / "selftest.py").returncode == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_a_changed_byte_in_the_model_is_found_before_it_runs(bundle, run, as_json):
    content = bytearray((bundle / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.tflite").write_bytes(content)
    done = run(bundle / "selftest.py", *(["--json"] if as_json else []))
    assert done.returncode == 1
    if as_json:
        found = json.loads(done.stdout)
        assert not found["passed"]
        assert "parity" not in found
        said = " ".join(found["failures"])
    else:
        (said,) = done.stdout.splitlines()
    assert "model.tflite is not the file that was made" in said


def test_a_missing_and_a_foreign_file_are_found(bundle, run):
    (bundle / "labels.txt").unlink()
    (bundle / "holiday.jpg").touch()
    done = run(bundle / "selftest.py")
    assert done.returncode == 1
    assert done.stdout == (
        "FAILED: labels.txt is missing; holiday.jpg is not of this folder: move it away\n"
    )


def test_a_foreign_file_with_any_name_is_told_in_one_line(bundle, run):
    (bundle / "a\nb\x1b[31m").touch()
    Path(os.fsdecode(os.fsencode(bundle) + b"/\xff")).touch()
    done = run(bundle / "selftest.py")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("FAILED: ")
    assert line.isprintable()
    assert "a?b?[31m is not of this folder" in line


def test_without_checksums_nothing_is_proven(bundle, run):
    (bundle / "SHA256SUMS").unlink()
    done = run(bundle / "selftest.py")
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED: ")
    assert "SHA256SUMS" in done.stdout


@pytest.fixture
def resealed(bundle):
    """Writes the checksums of a bundle anew, as somebody would who changes it on purpose."""

    def reseal():
        names = sorted(path.name for path in bundle.iterdir() if path.name != "SHA256SUMS")
        digests = {name: hashlib.sha256((bundle / name).read_bytes()) for name in names}
        lines = [f"{digest.hexdigest()}  {name}\n" for name, digest in digests.items()]
        (bundle / "SHA256SUMS").write_text("".join(lines))

    return reseal


def _changed_golden(bundle, name, change):
    with np.load(bundle / "golden.npz") as golden:
        arrays = dict(golden)
    arrays[name] = change(arrays[name])
    np.savez(bundle / "golden.npz", **arrays)


def _swapped(rows):
    order = [1, 0, *range(2, len(rows))]
    return rows[order]


def test_wrong_labels_are_found(bundle, run, resealed):
    lines = (bundle / "labels.txt").read_text().splitlines()
    (bundle / "labels.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    assert "labels.txt is not the file" in run(bundle / "selftest.py").stdout
    resealed()
    done = run(bundle / "selftest.py")
    assert done.returncode == 1
    assert "labels.txt and model.json name other classes" in done.stdout


def test_a_swapped_golden_answer_is_found_even_with_new_checksums(bundle, run, resealed):
    _changed_golden(bundle, "logits", _swapped)
    assert "golden.npz is not the file" in run(bundle / "selftest.py").stdout
    resealed()
    done = run(bundle / "selftest.py", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["parity"]["sqnr_db"] < found["parity"]["sqnr_db_bound"]
    assert any("SQNR" in failure for failure in found["failures"])


def test_other_answers_than_those_of_the_exporting_machine_are_told_not_judged(
    bundle, run, resealed
):
    _changed_golden(bundle, "outputs", lambda outputs: outputs + 1)
    resealed()
    done = run(bundle / "selftest.py", "--json")
    assert done.returncode == 0
    outputs = json.loads(done.stdout)["parity"]["outputs"]
    assert not outputs["bit_equal"]
    assert outputs["max_abs"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_engine_that_gives_no_numbers_fails(bundle_of, value):
    done = _judged(bundle_of, lambda logits: np.full_like(logits, value))
    assert "the logits hold NaN or infinity" in done


def test_an_engine_that_always_says_the_same_fails(bundle_of):
    done = _judged(bundle_of, lambda logits: np.tile(np.arange(10.0), (len(logits), 1)))
    assert "it answers one class for every image" in done


def test_one_other_class_may_be_where_the_policy_lets_it_and_two_may_not(bundle_of):
    def flipped(count):
        def flip(logits):
            changed = logits.copy()
            for row in range(count):
                best = np.argsort(changed[row])[::-1]
                first, second = best[:2]
                changed[row, [first, second]] = changed[row, [second, first]]
            return changed

        return flip

    keras = 10 * np.eye(10)[np.arange(16) % 10]
    loose = {"sqnr_db": 0.0}
    assert not [text for text in _judged(bundle_of, flipped(1), keras, loose) if "another" in text]
    assert [text for text in _judged(bundle_of, flipped(2), keras, loose) if "another" in text]


def _judged(bundle_of, change, keras=None, bounds=None):
    """Returns what the self-test's judge says of changed logits, in this process."""
    import importlib.util

    folder = bundle_of(FAST)
    spec = importlib.util.spec_from_file_location("bundle_selftest", folder / "selftest.py")
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = before
    if keras is None:
        with np.load(folder / "golden.npz") as golden:
            keras = golden["logits"].astype(np.float64)
    demanded = json.loads((folder / "model.json").read_text())["golden"] | (bounds or {})
    return module.judge(keras, change(keras), demanded)[1]


@every_kind
def test_the_self_test_judges_as_parity_does(bundle_of, run, kind):
    from cct_export.evaluation import parity

    folder = bundle_of(kind)
    found = json.loads(run(folder / "selftest.py", "--json").stdout)["parity"]
    with np.load(folder / "golden.npz") as golden:
        outputs, logits = golden["outputs"].astype(np.float64), golden["logits"]
    output = json.loads((folder / "model.json").read_text())["output"]
    if output["scale"] is not None:
        outputs = (outputs - output["zero_point"]) * output["scale"]
    policy = parity.policy_of(kind[1], golden=True)
    outputs = outputs.astype(np.float32)
    report = parity.compare(
        logits,
        candidate=outputs,
        scheme=kind[1],
        names=("keras", "here"),
        images="golden",
        policy=policy,
    )
    assert found["sqnr_db"] == pytest.approx(report.sqnr_db, abs=1e-3)
    assert found["max_abs"] == pytest.approx(report.max_abs, rel=1e-3)
    assert found["decided"] == report.decided
    assert found["flips"] == round((1 - report.top1_agreement) * report.decided)


def test_a_library_that_is_missing_is_named_with_the_command(bundle, tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(bundle / "selftest.py")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == (
        "FAILED: numpy is not installed: .venv/bin/pip install -r requirements.txt\n"
    )
