"""selftest.py of a Raspberry Pi bundle: what it accepts, and what it reports."""

import hashlib
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from cct_export.evaluation import parity


@pytest.fixture(scope="module")
def check_parity(bundle_of):
    """``check_parity`` of selftest.py."""
    before = sys.dont_write_bytecode
    functions = runpy.run_path(str(bundle_of() / "selftest.py"))
    sys.dont_write_bytecode = before
    return functions["check_parity"]


@pytest.mark.parametrize(
    "kind",
    [("tflite", "int8", "uint8"), ("onnx", "int8", "uint8"), ("ncnn", "none", "float32")],
    ids="-".join,
)
def test_the_self_test_passes_in_a_clean_environment(bundle_of, run, kind):
    process = run(bundle_of(kind) / "selftest.py", "--json")
    assert process.returncode == 0, process.stdout + process.stderr
    latency = json.loads(process.stdout)["latency_ms"]
    assert latency["count"] >= 50
    assert 0 < latency["p50"] <= latency["p90"]


def test_the_self_test_has_the_figures_of_parity(bundle_of, call, kind):
    folder = bundle_of(kind)
    process = call(folder / "selftest.py", "--json")
    assert process.returncode == 0, process.stdout + process.stderr
    result = json.loads(process.stdout)
    assert result["passed"]
    assert result["failures"] == []
    figures = result["parity"]
    assert figures["images"] == 16
    assert figures["outputs"]["bit_equal"]
    assert figures["sqnr_db"] > figures["sqnr_db_bound"]
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
        names=("keras", "bundle"),
        images="golden",
        policy=policy,
    )
    assert figures["sqnr_db"] == pytest.approx(report.sqnr_db, abs=1e-3)
    assert figures["max_abs"] == pytest.approx(report.max_abs, rel=1e-3)
    assert figures["decided"] == report.decided
    assert figures["flips"] == round((1 - report.top1_agreement) * report.decided)


def test_the_text_has_a_line_per_check(bundle_of, call):
    process = call(bundle_of() / "selftest.py")
    assert process.returncode == 0
    first, *_, last = process.stdout.splitlines()
    assert first == "files    10 match SHA256SUMS"
    assert last == "PASSED"
    assert "outputs  bit-equal" in process.stdout
    assert "50 runs" in process.stdout


@pytest.mark.parametrize("script", ["selftest.py", "classify.py"])
def test_the_engines_messages_are_shown_on_request_only(bundle_of, run, pictures, script):
    arguments = [pictures / "a.png"] if script == "classify.py" else []
    quiet = run(bundle_of() / script, *arguments)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    verbose = run(bundle_of() / script, "-v", *arguments)
    assert verbose.returncode == 0
    assert "XNNPACK" in verbose.stderr


def test_the_reason_why_the_engine_cannot_open_the_model_is_shown(bundle, run, update_checksums):
    (bundle / "model.tflite").write_bytes(b"no model")
    update_checksums()
    process = run(bundle / "selftest.py")
    assert process.returncode == 1
    assert "FAILED: ValueError: " in process.stdout


def test_the_scripts_leave_no_files_that_the_self_test_reports(bundle, run):
    (bundle / ".venv").mkdir()
    (bundle / ".venv" / "pyvenv.cfg").touch()
    assert run(bundle / "classify.py", "--help").returncode == 0
    for _ in range(2):
        assert run(bundle / "selftest.py").returncode == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_a_changed_byte_in_the_model_is_reported_before_it_runs(bundle, call, as_json):
    content = bytearray((bundle / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.tflite").write_bytes(content)
    process = call(bundle / "selftest.py", *(["--json"] if as_json else []))
    assert process.returncode == 1
    if as_json:
        result = json.loads(process.stdout)
        assert not result["passed"]
        assert "parity" not in result
        message = " ".join(result["failures"])
    else:
        (message,) = process.stdout.splitlines()
    assert "model.tflite has another SHA-256" in message


def test_a_missing_file_is_a_failure_and_a_picture_is_a_note(bundle, call):
    (bundle / "labels.txt").unlink()
    (bundle / "holiday.jpg").touch()
    process = call(bundle / "selftest.py")
    assert process.returncode == 1
    assert process.stdout == (
        "note     holiday.jpg does not belong to this folder and was not checked\n"
        "FAILED: labels.txt is missing\n"
    )


def test_files_that_python_does_not_run_are_notes(bundle, call, tmp_path):
    (bundle / "cat.jpg").touch()
    (bundle / "photos").mkdir()
    (bundle / "photos" / "rename.py").touch()
    (bundle / "root").symlink_to("/")
    (bundle / "gone.png").symlink_to("nowhere")
    process = call(bundle / "selftest.py", "--json")
    assert process.returncode == 0, process.stdout
    result = json.loads(process.stdout)
    assert result["passed"]
    assert [note.partition(" ")[0] for note in result["notes"]] == [
        "cat.jpg", "gone.png", "photos", "root",
    ]  # fmt: skip
    for number in range(4):
        (bundle / f"dog {number}.jpg").touch()
    lines = call(bundle / "selftest.py").stdout.splitlines()
    assert len([line for line in lines if line.startswith("note ")]) == 6
    assert lines[-2:] == ["note     nor do 3 others; --json names all", "PASSED"]


@pytest.mark.parametrize(
    "name",
    ["numpy.py", "numpy/__init__.py", "numpy.cpython-311-aarch64-linux-gnu.so", "numpy.pyc",
     "mine.pth", "__pycache__/model.cpython-311.pyc"],
)  # fmt: skip
def test_code_that_python_could_run_is_a_failure_and_is_not_run(bundle, run, name):
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("print('run')")
    process = run(bundle / "selftest.py")
    assert process.returncode == 1
    entry = name.partition("/")[0]
    assert process.stdout == (
        f"FAILED: {entry} does not belong to this folder, and Python may run it in place of what "
        "these scripts import: move it away\n"
    )


def test_a_link_to_a_package_is_a_failure(bundle, call, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").touch()
    (bundle / "json").symlink_to(tmp_path / "elsewhere")
    process = call(bundle / "selftest.py")
    assert process.returncode == 1
    assert "json does not belong to this folder, and Python may run it" in process.stdout


def test_a_folder_in_place_of_a_file_is_a_missing_file(bundle, call):
    (bundle / "labels.txt").unlink()
    (bundle / "labels.txt").mkdir()
    process = call(bundle / "selftest.py")
    assert (process.returncode, process.stdout) == (1, "FAILED: labels.txt is missing\n")


def test_an_unknown_file_with_any_name_is_noted_in_one_line(bundle, call):
    (bundle / "a\nb\x1b[31m").touch()
    Path(os.fsdecode(os.fsencode(bundle) + b"/\xff")).touch()
    process = call(bundle / "selftest.py")
    assert process.returncode == 0
    lines = process.stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    notes = [line for line in lines if line.startswith("note ")]
    assert len(notes) == 2
    assert "a?b?[31m does not belong to this folder" in notes[0]


def test_without_checksums_the_self_test_fails(bundle, call):
    (bundle / "SHA256SUMS").unlink()
    process = call(bundle / "selftest.py")
    assert process.returncode == 1
    assert process.stdout.startswith("FAILED: ")
    assert "SHA256SUMS" in process.stdout


@pytest.fixture
def update_checksums(bundle):
    """Writes the checksums of a bundle again, for changes on purpose."""

    def update():
        names = sorted(path.name for path in bundle.iterdir() if path.name != "SHA256SUMS")
        digests = {name: hashlib.sha256((bundle / name).read_bytes()) for name in names}
        lines = [f"{digest.hexdigest()}  {name}\n" for name, digest in digests.items()]
        (bundle / "SHA256SUMS").write_text("".join(lines))

    return update


def _change_golden(bundle, name, change):
    with np.load(bundle / "golden.npz") as golden:
        arrays = dict(golden)
    arrays[name] = change(arrays[name])
    np.savez(bundle / "golden.npz", **arrays)


def test_swapped_labels_are_reported(bundle, call, update_checksums):
    lines = (bundle / "labels.txt").read_text().splitlines()
    (bundle / "labels.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    assert "labels.txt has another SHA-256" in call(bundle / "selftest.py").stdout
    update_checksums()
    process = call(bundle / "selftest.py")
    assert process.returncode == 1
    assert "labels.txt and model.json have different labels" in process.stdout


def test_swapped_golden_logits_are_reported_even_with_new_checksums(bundle, call, update_checksums):
    _change_golden(bundle, "logits", lambda rows: rows[[1, 0, *range(2, len(rows))]])
    assert "golden.npz has another SHA-256" in call(bundle / "selftest.py").stdout
    update_checksums()
    process = call(bundle / "selftest.py", "--json")
    assert process.returncode == 1
    result = json.loads(process.stdout)
    assert result["parity"]["sqnr_db"] < result["parity"]["sqnr_db_bound"]
    assert any("SQNR" in failure for failure in result["failures"])


def test_other_outputs_than_the_exporting_machines_are_reported_and_no_failure(
    bundle, call, update_checksums
):
    _change_golden(bundle, "outputs", lambda outputs: outputs + 1)
    update_checksums()
    process = call(bundle / "selftest.py", "--json")
    assert process.returncode == 0
    outputs = json.loads(process.stdout)["parity"]["outputs"]
    assert not outputs["bit_equal"]
    assert outputs["max_abs"] == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def failures(bundle_of, check_parity):
    """Returns the failures for changed logits; by default those of the golden inputs."""
    folder = bundle_of()
    bounds = json.loads((folder / "model.json").read_text())["golden"]
    with np.load(folder / "golden.npz") as golden:
        logits = golden["logits"].astype(np.float64)

    def get(change, reference=logits, **other_bounds):
        return check_parity(reference, change(reference), bounds | other_bounds)[1]

    return get


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_fail(failures, value):
    assert "the logits hold NaN or infinity" in failures(lambda x: np.full_like(x, value))


def test_a_constant_prediction_fails(failures):
    messages = failures(lambda logits: np.tile(np.arange(10.0), (len(logits), 1)))
    assert "the model predicts one class for every image" in messages


@pytest.mark.parametrize(("margin", "fails"), [(1e-6, False), (6.0, True)])
def test_a_constant_prediction_passes_where_only_undecided_images_had_another(
    failures, margin, fails
):
    reference = np.tile([3.0, -3.0], (16, 1))
    reference[7] = [-margin / 2, margin / 2]
    messages = failures(lambda logits: np.tile(logits[:1], (len(logits), 1)), reference)
    assert ("the model predicts one class for every image" in messages) == fails


@pytest.mark.parametrize(("count", "fails"), [(1, False), (2, True)])
def test_only_as_many_images_as_the_policy_allows_may_have_another_class(failures, count, fails):
    def flip(logits):
        flipped = logits.copy()
        for row in range(count):
            first, second = np.argsort(flipped[row])[::-1][:2]
            flipped[row, [first, second]] = flipped[row, [second, first]]
        return flipped

    reference = 10 * np.eye(10)[np.arange(16) % 10]
    messages = failures(flip, reference, sqnr_db=0.0)
    assert any("another top-1 class" in message for message in messages) == fails


def test_a_missing_library_is_named_with_the_command(bundle_of, run):
    process = run(bundle_of() / "selftest.py", options=("-I", "-S"))
    assert process.returncode == 1
    assert process.stdout == (
        "FAILED: numpy is not installed: .venv/bin/pip install -r requirements.txt\n"
    )
