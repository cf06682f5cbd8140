"""Calibration records that anyone may have written."""

import io
import json
import zipfile

import numpy as np
import pytest
from malformed_npz import npy

from cct_export.errors import InvalidData
from cct_export.quantize import statistics
from cct_export.quantize.statistics import BINS, Histogram, Statistics


@pytest.fixture
def record(tmp_path):
    """A record of two tensors, of which one step has weights."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 3))
    path = tmp_path / "calibration.npz"
    counts = {name: random.integers(1, 9, BINS) for name in ("image", "conv")}
    histograms = {name: Histogram(-1.0, 1.0, values) for name, values in counts.items()}
    probe = dict.fromkeys(counts, (0.5, 0.5))
    moments = {"conv": rows.T @ rows / 50}
    statistics.save([Statistics("here", 2, histograms, moments, probe)] * 2, path)
    return path


def _rewrite(path, **members):
    """Replaces the bytes of some arrays of a record."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {f"{name}.npy": member for name, member in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in content.items():
            archive.writestr(name, member)


def _about(path, change):
    with np.load(path) as arrays:
        about = json.loads(str(arrays["about"]))
    change(about)
    file = io.BytesIO()
    np.save(file, np.asarray(json.dumps(about)))
    _rewrite(path, about=file.getvalue())


def test_the_record_of_these_tests_is_read(record):
    for read in statistics.load(record):
        assert list(read.histograms) == ["image", "conv"]
        assert read.second_moments["conv"].shape == (3, 3)
    assert len(statistics.load(record)) == 2


@pytest.mark.parametrize(
    "members",
    [
        {"counts_0": npy("<u4", (10**18,))},
        {"counts_0": npy("<u4", (2,), bytes(8))},
        {"counts_0": npy("<M8[s]", (BINS,), bytes(8 * BINS))},
        {"counts_0": npy("<i8", (BINS,), b"\xff" * 8 * BINS)},
        {"spread_0": npy("<f4", (100_000,), bytes(400_000))},
        {"spread_0": npy("<f4", (), bytes(4))},
        {"correlation_0": npy("<f2", (3, 1), bytes(6))},
        {"about": npy("<U1", (), b"\xff\xff\xff\xff")},
        {"about": npy("|S9", (), b"[" * 9)},
        {"about": b""},
    ],
)
def test_arrays_that_no_images_can_have_are_refused(record, members):
    _rewrite(record, **members)
    with pytest.raises(InvalidData, match=r"calibration\.npz is no calibration record: "):
        statistics.load(record)


def _set(key, value):
    return lambda about: about.update({key: value})


@pytest.mark.parametrize(
    "value", [None, 3, "x", [], {}, [["x", 1]], [[1]], {"image": [1]}, 10**400]
)
@pytest.mark.parametrize("key", ["origin", "samples", "tensors", "ranges", "steps", "probe"])
def test_a_field_of_another_type_is_refused_or_read(record, key, value):
    _about(record, _set(key, value))
    try:
        read, *_ = statistics.load(record)
    except InvalidData as error:
        assert "calibration.npz is no calibration record: " in str(error)
    else:
        assert (key, type(value)) in (
            ("origin", str),
            ("samples", int),
            ("probe", dict),
            ("steps", list),
        )
        assert read.samples > 0


@pytest.mark.parametrize(
    "change",
    [
        _set("ranges", [["a", "b"], [0, 1]]),
        _set("ranges", [[-1e308, 1e308], [0, 1]]),
        _set("ranges", [[0, 10**400], [0, 1]]),
        _set("probe", {"image": [float("nan"), 0.0]}),
        _set("samples", 0),
        lambda about: about.pop("samples"),
    ],
)
def test_figures_that_no_images_can_have_are_refused(record, change):
    _about(record, change)
    with pytest.raises(InvalidData, match=r"calibration\.npz is no calibration record: "):
        statistics.load(record)
