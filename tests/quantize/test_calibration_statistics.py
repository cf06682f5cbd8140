"""Calibration statistics: what they hold, how a record stores them, and when it is refused."""

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from plans import of_kind, random_images, random_plan, tensors_of

from cct_export.errors import InvalidData
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.quantize import statistics
from cct_export.quantize.statistics import BATCH, BINS, MAX_ROWS, collect, input_rows, load, save
from cct_export.specs import ModelSpec

TINY = ModelSpec(
    filters=(4, 8), mlp_units=(8, 8), heads=2, head_dim=4, layers=1, image_size=12, classes=3
)


@pytest.fixture(scope="module")
def plan():
    return expand(fold(random_plan(TINY)), layer_norm=False)


@pytest.fixture(scope="module")
def images(plan):
    # More than a batch, and the last batch is not full.
    return random_images(plan, BATCH + 7)


@pytest.fixture(scope="module")
def collected(plan, images):
    return collect(plan, images, "random pixels")


@pytest.fixture(scope="module")
def values(plan, images):
    return tensors_of(plan, images)


@pytest.fixture
def record(collected, tmp_path):
    save([collected], tmp_path / "record.npz")
    return tmp_path / "record.npz"


def weighted(plan):
    return of_kind(plan, steps.Conv | steps.Dense)


def test_statistics_have_their_origin_and_every_tensor(plan, collected, images):
    assert (collected.origin, collected.samples) == ("random pixels", len(images))
    assert set(collected.histograms) == set(collected.probe) == set(plan.shapes)
    assert set(collected.second_moments) == {step.output for step in weighted(plan)}


def test_ranges_span_all_batches(collected, values):
    for name, histogram in collected.histograms.items():
        # Batches of other sizes may sum products in another order.
        assert histogram.low == pytest.approx(values[name].min(), rel=1e-9, abs=1e-12)
        assert histogram.high == pytest.approx(values[name].max(), rel=1e-9, abs=1e-12)


def test_histograms_count_every_value(collected, values):
    for name, histogram in collected.histograms.items():
        low, high = histogram.low, histogram.high
        expected = np.histogram(values[name], BINS, (low, high))[0]
        assert histogram.counts.shape == (BINS,)
        # Differences in the last bit can move a value across the edge of a bin, or of the range.
        assert abs(histogram.counts.sum() - values[name].size) <= 2
        assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 2


def test_centres_are_the_middles_of_the_bins():
    histogram = statistics.Histogram(-1.0, 3.0, np.zeros(4, np.int64))
    np.testing.assert_allclose(histogram.centres, [-0.5, 0.5, 1.5, 2.5])


def test_second_moments_are_those_of_the_rows_that_the_weights_multiply(plan, collected, values):
    for step in weighted(plan):
        rows = input_rows(step, values[step.inputs[0]])
        moments = collected.second_moments[step.output]
        np.testing.assert_allclose(moments, rows.T @ rows / len(rows), rtol=1e-6, atol=1e-6)
        # They give the squared error of the outputs for an error of the weights.
        error = np.random.default_rng(0).normal(size=(len(moments), step.kernel.shape[-1]))
        expected = np.sum((rows @ error) ** 2) / len(rows)
        assert np.trace(error.T @ moments @ error) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1e-25, 1e-9, 1.0, 1e9, 1e25])
def test_second_moments_have_the_squares_of_any_values(size):
    scaled = steps.Scale("scaled", ("image",), np.full(3, size), np.zeros(3))
    plan = Plan((4, 4, 3), (scaled, steps.Dense("logits", ("scaled",), np.eye(3), None)))
    images = random_images(plan, 8)
    (moments,) = collect(plan, images, "any").second_moments.values()
    rows = images.reshape(-1, 3) * size
    np.testing.assert_allclose(moments, rows.T @ rows / len(rows), rtol=1e-5)


def test_rows_times_the_kernel_are_the_convolution():
    random = np.random.default_rng(0)
    kernel, pads = random.normal(size=(3, 2, 2, 5)), ((1, 0), (0, 1))
    step = steps.Conv("c", ("image",), kernel, None, (2, 1), pads, relu=False)
    x = random.normal(size=(3, 7, 6, 2))
    expected = evaluate(Plan((7, 6, 2), (step,)), x)
    np.testing.assert_allclose(input_rows(step, x) @ kernel.reshape(-1, 5), expected.reshape(-1, 5))


@pytest.mark.parametrize("side", [16, 31, 32, 33, 64])
def test_the_rows_of_a_large_map_are_subsampled_evenly(side):
    step = steps.Conv("c", ("image",), np.ones((1, 1, 1, 1)))
    x = np.arange(2 * side * side, dtype=float).reshape(2, side, side, 1)
    rows = input_rows(step, x)[:, 0]
    assert len(rows) <= 2 * MAX_ROWS
    assert len(rows) > MAX_ROWS or len(rows) == x.size
    assert len(set(np.diff(rows))) == 1
    assert rows[0] == 0


def test_the_histogram_of_a_constant_tensor_has_some_width():
    plan = Plan((2, 2, 1), (steps.Scale("logits", ("image",), np.zeros(1), np.array([3.0])),))
    histogram = collect(plan, random_images(plan, 3), "any").histograms["logits"]
    assert histogram.low == 3 < histogram.high
    assert histogram.counts.sum() == histogram.counts[0] == 12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_tensor_that_is_not_finite_is_refused_by_name(plan, images, bad, which):
    step = weighted(plan)[which]
    kernel = step.kernel.copy()
    kernel.flat[0] = bad
    damaged = plan.replace({step.output: [replace(step, kernel=kernel)]})
    with pytest.raises(InvalidData, match="is not finite for the calibration images"):
        collect(damaged, images, "random pixels")


def test_a_record_keeps_histograms_exactly_and_second_moments_to_half_precision(collected, record):
    (read,) = load(record)
    assert (read.origin, read.samples) == (collected.origin, collected.samples)
    assert list(read.histograms) == list(collected.histograms)
    for name, expected in collected.histograms.items():
        histogram = read.histograms[name]
        assert (histogram.low, histogram.high) == (expected.low, expected.high)
        np.testing.assert_array_equal(histogram.counts, expected.counts)
        assert histogram.counts.dtype == expected.counts.dtype
    assert read.probe == collected.probe
    assert set(read.second_moments) == set(collected.second_moments)
    for name, expected in collected.second_moments.items():
        spread = np.sqrt(np.diag(expected))
        # float16 has 11 bits; correlations are 1 at most.
        error = np.abs(read.second_moments[name] - expected)
        error /= np.maximum(np.outer(spread, spread), 1e-30)
        assert error.max() < 2**-11
        np.testing.assert_array_equal(read.second_moments[name], read.second_moments[name].T)


def test_a_record_of_inputs_that_are_always_zero_can_be_read(tmp_path):
    plan = Plan(
        (1, 2, 3),
        (
            steps.Scale("zero", ("image",), np.zeros(1), np.zeros(1)),
            steps.Dense("logits", ("zero",), np.ones((3, 2))),
        ),
    )
    collected = collect(plan, random_images(plan, 3), "any")
    save([collected], tmp_path / "r.npz")
    (read,) = load(tmp_path / "r.npz")
    np.testing.assert_allclose(read.second_moments["logits"], np.zeros((3, 3)), atol=1e-20)
    assert read.fits(plan, plan.shapes)


def test_a_record_without_moments_can_be_read(tmp_path):
    plan = Plan((1, 2, 3), (steps.Gelu("logits", ("image",), False),))
    save([collect(plan, random_images(plan, 3), "any")], tmp_path / "r.npz")
    (read,) = load(tmp_path / "r.npz")
    assert read.second_moments == {}
    assert set(read.histograms) == {"image", "logits"}


def test_saving_replaces_an_old_record_and_leaves_no_other_file(collected, tmp_path):
    path = tmp_path / "record.npz"
    path.write_text("old")
    save([collected], path)
    assert load(path)[0].samples == collected.samples
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.npz"]


DAMAGED_BYTES = {
    "empty": lambda whole: b"",
    "text": lambda whole: b"step,epoch\n1,2\n",
    "half": lambda whole: whole[: len(whole) // 2],
    "no end": lambda whole: whole[:-30],
    "a flipped byte": lambda whole: whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:],
    "a pickle": lambda whole: pickle.dumps({"about": 1}),
    "an array": lambda whole: b"\x93NUMPY" + whole[6:],
    "an empty zip": lambda whole: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGED_BYTES)
def test_a_file_that_is_no_record_or_damaged_is_refused_by_name(record, damage):
    record.write_bytes(DAMAGED_BYTES[damage](record.read_bytes()))
    with pytest.raises(InvalidData, match=r"record\.npz is no calibration record"):
        load(record)


def edit_record(path, edit):
    """Edits the arrays of a record, and its ``about`` as JSON."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays["about"]))
    arrays["about"] = np.asarray(json.dumps(edit(arrays, about) or about))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "edit",
    [
        lambda arrays, about: "{",
        lambda arrays, about: ["a", "list"],
        lambda arrays, about: arrays.pop("counts_0").fill(0),
        lambda arrays, about: about["ranges"].clear(),
        lambda arrays, about: arrays.update(correlation_1=arrays["correlation_1"][:-2]),
    ],
    ids=["about is text", "about is a list", "no histogram", "no range", "short correlation"],
)
def test_a_record_that_lacks_something_is_refused_by_name(record, edit):
    edit_record(record, edit)
    with pytest.raises(InvalidData, match=r"record\.npz is no calibration record"):
        load(record)


@pytest.mark.parametrize("about", [None, "{", np.asarray([{"a": 1}], dtype=object)])
def test_a_record_without_a_readable_description_is_refused_by_name(record, about):
    with np.load(record) as file:
        arrays = {name: file[name] for name in file.files if name != "about"}
    np.savez(record, **arrays if about is None else {"about": about, **arrays})
    with pytest.raises(InvalidData, match=r"record\.npz is no calibration record"):
        load(record)


def test_a_flipped_byte_is_detected_or_changes_no_histogram(record, collected):
    whole = record.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 150):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 85]) + whole[place + 1 :])
        try:
            (read,) = load(record)
        except InvalidData:
            continue
        for name, expected in collected.histograms.items():
            np.testing.assert_array_equal(read.histograms[name].counts, expected.counts)


def edit_entries(path, flag=0, version=0):
    """Sets flags or the version of every entry of an archive's central directory."""
    whole = bytearray(path.read_bytes())
    place = whole.find(b"PK\x01\x02")
    while place >= 0:
        whole[place + 8] |= flag
        whole[place + 6] = version or whole[place + 6]
        place = whole.find(b"PK\x01\x02", place + 4)
    path.write_bytes(whole)


def replace_entry(path, content):
    """Replaces the first histogram by other bytes, in a valid archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["counts_0.npy"] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)


def corrupt_deflate(path):
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("counts_0.npy")
    start = entry.header_offset + 30 + len(entry.filename) + 20
    whole[start : start + 8] = b"\xff" * 8
    path.write_bytes(whole)


HEADER = b"\x93NUMPY\x01\x00\x08\x00{'a': (\n"


@pytest.mark.parametrize(
    "change",
    [
        corrupt_deflate,
        lambda path: edit_entries(path, flag=1),
        lambda path: edit_entries(path, version=99),
        lambda path: replace_entry(path, HEADER),
        lambda path: replace_entry(path, b""),
        lambda path: replace_entry(path, b"step,epoch"),
    ],
    ids=["bad deflate", "encrypted", "version", "broken header", "empty entry", "text entry"],
)
def test_a_damaged_archive_is_refused_however_numpy_and_zlib_fail(record, change):
    change(record)
    with pytest.raises(InvalidData, match=r"record\.npz is no calibration record"):
        load(record)


def test_an_array_in_place_of_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(InvalidData, match="no calibration record"):
        load(tmp_path / "array.npz")


@pytest.mark.parametrize("name", ["missing.npz", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(InvalidData, match="no calibration record"):
        load(tmp_path / name)


def test_a_record_fits_its_own_plan_before_and_after_saving(plan, collected, record):
    assert collected.fits(plan, plan.shapes)
    assert load(record)[0].fits(plan, plan.shapes)
    assert collected.fits(plan, ["image"])


def test_a_record_fits_no_plan_with_any_other_weights(plan, collected):
    changed = 0
    for step in plan.steps:
        for field in ("kernel", "bias", "value", "scale"):
            array = getattr(step, field, None)
            if isinstance(array, np.ndarray) and np.any(array):
                other = plan.replace({step.output: [replace(step, **{field: array * 1.01})]})
                assert not collected.fits(other, other.shapes), (step.output, field)
                changed += 1
    assert changed >= 12


def test_a_record_fits_no_tensor_that_it_lacks(plan, collected, record):
    assert not collected.fits(plan, [*plan.shapes, "another"])
    (short,) = load(record)
    del short.histograms[plan.output]
    assert not short.fits(plan, plan.shapes)
    assert short.fits(plan, ["image"])
    (unprobed,) = load(record)
    del unprobed.probe[plan.output]
    assert not unprobed.fits(plan, plan.shapes)


def test_a_record_fits_no_step_without_its_second_moments(plan, collected):
    weighted = [step.output for step in plan.steps if isinstance(step, steps.Conv | steps.Dense)]
    assert collected.fits(plan, ["image"], weighted)
    lacking = replace(collected, second_moments=dict(collected.second_moments))
    del lacking.second_moments[weighted[1]]
    assert not lacking.fits(plan, ["image"], weighted)
    assert lacking.fits(plan, ["image"], weighted[:1])
    swapped = replace(collected, second_moments=collected.second_moments | {weighted[1]: np.eye(3)})
    assert not swapped.fits(plan, ["image"], weighted)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("counts_0", 0, "the range of .* is invalid"),
        ("spread_1", np.nan, "second moments of .* are invalid"),
        ("correlation_1", -30, "second moments of .* are invalid"),
        ("correlation_1", np.inf, "second moments of .* are invalid"),
    ],
)
def test_statistics_that_no_images_can_have_are_refused(record, array, value, message):
    edit_record(record, lambda arrays, about: arrays[array].fill(value))
    with pytest.raises(InvalidData, match=message):
        load(record)


@pytest.mark.parametrize("range", [[np.nan, 1.0], [0.0, np.inf], [1.0, 1.0], [2.0, 1.0]])
def test_an_invalid_range_is_refused(record, range):
    edit_record(record, lambda arrays, about: about["ranges"].__setitem__(0, range))
    with pytest.raises(InvalidData, match=r"the range of .* is invalid"):
        load(record)
