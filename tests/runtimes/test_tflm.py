"""TFLite Micro as an engine: sessions, exports verified by it, reports and inspection."""

import sys
from contextlib import closing

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils

import cct_export
from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency
from cct_export.records import sidecar
from cct_export.runtimes import isolated, session, tflm

needs_tflm = pytest.mark.skipif(
    not tflm.is_installed(), reason="tflite-micro is for CPython 3.11 on x86-64 Linux only"
)


@pytest.fixture(scope="module")
def micro(once, digits_run):
    """A file for TFLite Micro with its sidecar, and the file for LiteRT; do not change them."""

    def export(folder):
        for target in ("tflm", "litert"):
            exported = cct_export.export_tflite(
                digits_run, output=folder / f"{target}.tflite", scheme="int8-full", target=target
            )
            assert exported.parity.passed, exported.parity.failures

    return once("tflm", export)


@needs_tflm
def test_a_session_in_another_process_is_like_one_in_this(micro, digit_images):
    path = micro / "tflm.tflite"
    here, there = tflm.open_session(path, trusted=True), tflm.open_session(path)
    for name in isolated.Description.__dataclass_fields__:
        assert getattr(there, name) == getattr(here, name), name
    assert here.engine[0] == "tflm"
    images = digit_images[0][:5]
    np.testing.assert_array_equal(session.run(there, images), session.run(here, images))
    for each in (here, there):
        each.close()


@needs_tflm
def test_its_logits_are_those_of_litert_up_to_roundings(micro, digit_images):
    report = cct_export.tflm_report(micro / "tflm.tflite", data="digits", samples=20)
    assert report.samples == 20
    assert report.max_steps <= 8
    assert report.passed
    assert report.golden is not None
    assert {kind.name for kind in report.operators} >= {"GATHER", "CAST", "BATCH_MATMUL"}
    assert report.to_dict()["golden"]["passed"]
    assert not [name for name in report.to_dict() if "ms" in name.split("_")]


@needs_tflm
def test_the_command_reports_memory_and_no_latency(micro, in_process):
    path = micro / "tflm.tflite"
    ended = in_process("bench", "tflite", "--engine", "tflm", path, "--json", "-")
    assert ended.code == 0, ended.err
    (record,) = ended.record["files"]
    assert record["arena_bytes"] == cct_export.inspect(path).arena_bytes > 10_000
    shown = in_process("bench", "tflite", "--engine", "tflm", path)
    assert "arena bytes" in shown.out
    assert " ms" not in shown.out


@needs_tflm
def test_operands_are_transposed_to_save_memory(micro):
    with_copies = cct_export.inspect(micro / "litert.tflite")
    assert with_copies.arena_bytes is None  # for its GELU
    assert not all(kind.taken_by["tflm"] for kind in with_copies.kinds())
    kinds = cct_export.inspect(micro / "tflm.tflite").kinds()
    assert all(kind.taken_by["tflm"] == kind.count for kind in kinds)


@needs_tflm
def test_verify_runs_a_file_in_the_engine_of_its_target(micro, digits_run, monkeypatch):
    opened = []
    open_session = tflm.open_session

    def watched(path, **options):
        opened.append(path)
        return open_session(path, **options)

    monkeypatch.setattr(tflm, "open_session", watched)
    for name in ("tflm", "litert"):
        report = cct_export.verify(micro / f"{name}.tflite", data="digits", samples=10)
        assert report.passed
    assert opened == [micro / "tflm.tflite"]


@needs_tflm
def test_what_it_cannot_run_is_refused_with_its_own_words(micro):
    with pytest.raises(InvalidArtifact, match=r"TFLite Micro cannot run .*GELU"):
        tflm.open_session(micro / "litert.tflite")


@needs_tflm
def test_a_damaged_file_is_refused(micro, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes((micro / "tflm.tflite").read_bytes()[:5000])
    with pytest.raises(InvalidArtifact, match=r"m\.tflite"):
        tflm.open_session(path)


@needs_tflm
def test_a_scalar_may_lack_a_shape(micro, tmp_path):
    content = bytearray((micro / "tflm.tflite").read_bytes())
    model = flatbuffer_utils.read_model_from_bytearray(content)
    constants = [each for each in model.subgraphs[0].tensors if each.name == b"offset"]
    for tensor in constants:
        tensor.shape = None
    assert constants
    path = tmp_path / "m.tflite"
    flatbuffer_utils.write_model(model, str(path))
    with closing(tflm.open_session(path, trusted=True)) as opened:
        assert opened.arena_bytes > 10_000


def test_the_target_is_in_the_file_and_its_sidecar(micro):
    for name, target in (("tflm", "tflm"), ("litert", "")):
        path = micro / f"{name}.tflite"
        assert cct_export.inspect(path).contract.target == target
        assert sidecar.read(path).contract.target == target


def test_without_the_package_litert_verifies_and_the_export_says_so(
    digits_run, tmp_path, in_process, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(MissingDependency, match=r"cct-export\[tflm\].* CPython 3.11 on x86-64"):
        tflm.import_engine()
    options = ("--quantize", "int8-full", "--target", "tflm", "--parity-samples", 20)
    path = tmp_path / "m.tflite"
    ended = in_process("export", "tflite", digits_run, *options, "-o", path)
    assert ended.code == 0, ended.err
    assert "tflite-micro is not installed" in ended.err
    ended = in_process("bench", "tflite", "--engine", "tflm", path)
    assert ended.code == MissingDependency.exit_code


def test_it_has_one_thread_and_no_delegates(tmp_path):
    path = tmp_path / "m.tflite"
    path.touch()
    with pytest.raises(InvalidRequest, match="one thread, not 2"):
        tflm.open_session(path, threads=2)
    with pytest.raises(InvalidRequest, match="delegate of TFLite Micro"):
        tflm.choose_delegate("xnnpack")
