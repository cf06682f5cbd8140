"""ncnn as an engine: sessions, and files that nobody can trust."""

import shutil

import numpy as np
import pytest

import cct_export
from cct_export.errors import CCTExportError, InvalidArtifact, InvalidRequest, MissingDependency
from cct_export.records import sidecar
from cct_export.runtimes import isolated, ncnn, session
from cct_export.specs import Delegation

pytest.importorskip("ncnn", reason="ncnn is not installed: pip install 'cct-export[ncnn]'")


@pytest.fixture(scope="module")
def exported(once, digits_run):
    """A file with its weights and its sidecar; do not change them."""

    def export(folder):
        file = cct_export.export_ncnn(digits_run, output=folder / "m.ncnn.param")
        assert file.parity.passed, file.parity.failures

    return once("ncnn", export) / "m.ncnn.param"


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the files, to change."""
    for file in exported.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / exported.name


def test_a_session_in_another_process_is_like_one_in_this(exported, digit_images):
    here, there = ncnn.open_session(exported, trusted=True), ncnn.open_session(exported)
    for name in isolated.Description.__dataclass_fields__:
        assert getattr(there, name) == getattr(here, name), name
    assert (here.engine[0], here.io, here.layout, here.batch) == ("ncnn", "float32", "NCHW", 1)
    images = digit_images[0][:5]
    np.testing.assert_array_equal(session.run(there, images), session.run(here, images))
    for each in (here, there):
        each.close()


def test_two_threads_give_the_logits_of_one(exported, digit_images):
    images = digit_images[0][:5]
    one, two = (ncnn.open_session(exported, threads=count, trusted=True) for count in (1, 2))
    np.testing.assert_allclose(session.run(two, images), session.run(one, images), atol=1e-4)


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BROKEN = {
    "another text": (lambda p: p.write_text("layers"), "does not begin with 7767517"),
    "no text": (lambda p: p.write_bytes(b"\xff\xfe7767517"), "not a readable ncnn file"),
    "unknown layer": (lambda p: changed(p, "InnerProduct ", "OuterProduct "), "OuterProduct not"),
    "half of the lines": (
        lambda p: p.write_text(p.read_text()[: len(p.read_text()) // 3]), "cannot run",
    ),
    "no input": (lambda p: changed(p, "Input ", "Noop "), "has 0 inputs, not one image"),
    "unknown size": (lambda p: changed(p, " 0=32 1=32 2=3", ""), "does not tell the size of image"),
    "other size": (lambda p: changed(p, "0=32 1=32 2=3", "0=16 1=32 2=3"), "m.ncnn.param"),
    "contract of another type": (
        lambda p: changed(p, '"labels": [', '"labels": [7, '), "its cct_export.json cannot be read",
    ),
    "other layout": (lambda p: changed(p, '"NCHW"', '"NHWC"'), "contract contradicts its graph"),
    "no layers": (lambda p: p.write_text("7767517\n999999999 9\nInput x 0 1 x 0=8 1=8 2=3\n"), ""),
    "half of the weights": (
        lambda p: p.with_name("m.ncnn.bin").write_bytes(
            p.with_name("m.ncnn.bin").read_bytes()[:5000]
        ),
        "cannot run",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_in_one_line(copied, damage, reason):
    damage(copied)
    with pytest.raises(InvalidArtifact) as caught:
        ncnn.open_session(copied)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_named(copied):
    copied.with_name("m.ncnn.bin").unlink()
    with pytest.raises(InvalidRequest, match=r"m\.ncnn\.bin"):
        ncnn.open_session(copied)


def test_weights_of_another_export_count_as_a_change(copied):
    beside = copied.with_name("m.ncnn.bin")
    content = bytearray(beside.read_bytes())
    content[-1] ^= 1
    beside.write_bytes(content)
    assert sidecar.examine(copied).changed
    with pytest.raises(InvalidArtifact, match="has changed since it was exported"):
        cct_export.predict(copied, images="docs/cat.jpg")


def test_a_file_of_another_tool_runs_if_it_tells_the_size_of_its_images(tmp_path):
    lines = [
        "7767517", "2 2", "Input in0 0 1 in0 0=2 1=3 2=3", "InnerProduct fc 1 1 in0 out0 0=2 2=36",
    ]  # fmt: skip
    (tmp_path / "m.ncnn.param").write_text("\n".join(lines) + "\n")
    weights = np.arange(36, dtype="<f4")
    (tmp_path / "m.ncnn.bin").write_bytes(bytes(4) + weights.tobytes())
    opened = ncnn.open_session(tmp_path / "m.ncnn.param")
    assert not opened.contract
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 3), np.uint8)
    expected = images.transpose(0, 3, 1, 2).reshape(2, 18) @ weights.reshape(2, 18).T
    np.testing.assert_allclose(session.run(opened, images), expected, rtol=1e-5)
    opened.close()


@pytest.mark.parametrize("delegation", [Delegation("gpu"), Delegation(options=(("a", "b"),))])
def test_there_are_no_delegates_and_no_options(exported, delegation):
    with pytest.raises(CCTExportError, match="ncnn"):
        ncnn.open_session(exported, delegation=delegation)


def test_the_extra_is_named_where_the_library_is_missing(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    with pytest.raises(MissingDependency, match=r"ncnn is not installed: .*cct-export\[ncnn\]"):
        ncnn.open_session(exported, trusted=True)
