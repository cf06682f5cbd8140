"""What a calibration record says of a plan, what of it survives a file, and when it is refused."""

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from plans import random_images, random_plan

from cct_export.errors import InvalidData
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import tensors
from cct_export.quantize import statistics
from cct_export.quantize.statistics import BATCH, BINS, MOST_ROWS, gather, load, rows_of, save
from cct_export.specs import ModelSpec

TINY = ModelSpec(
    filters=(4, 8), mlp_units=(8, 8), heads=2, head_dim=4, layers=1, image_size=12, classes=3
)


@pytest.fixture(scope="module")
def plan():
    return expand(fold(random_plan(TINY)), normalization=False)


@pytest.fixture(scope="module")
def images(plan):
    # More than a batch, and the last batch is not full.
    return random_images(plan, BATCH + 7)


@pytest.fixture(scope="module")
def gathered(plan, images):
    return gather(plan, images, "random pixels")


@pytest.fixture(scope="module")
def values(plan, images):
    found = {}
    tensors(plan, images, found.__setitem__)
    return found


@pytest.fixture
def record(gathered, tmp_path):
    save(gathered, tmp_path / "record.npz")
    return tmp_path / "record.npz"


def weighted(plan):
    return [step for step in plan.steps if isinstance(step, steps.Conv | steps.Dense)]


def test_it_says_where_it_is_from_and_knows_every_tensor(plan, gathered, images):
    assert (gathered.origin, gathered.samples) == ("random pixels", len(images))
    assert set(gathered.distributions) == set(gathered.probe) == set(plan.shapes)
    assert set(gathered.moments) == {step.output for step in weighted(plan)}


def test_ranges_are_the_smallest_and_the_largest_of_all_batches(gathered, values):
    for name, distribution in gathered.distributions.items():
        # Products of batches of other sizes may be summed up in another order.
        assert distribution.low == pytest.approx(values[name].min(), rel=1e-9, abs=1e-12)
        assert distribution.high == pytest.approx(values[name].max(), rel=1e-9, abs=1e-12)


def test_histograms_count_every_value(gathered, values):
    for name, distribution in gathered.distributions.items():
        low, high = distribution.low, distribution.high
        wanted = np.histogram(values[name], BINS, (low, high))[0]
        assert distribution.counts.shape == (BINS,)
        # A value in the last bit can be on the other side of an edge, the end ones outside.
        assert abs(distribution.counts.sum() - values[name].size) <= 2
        assert np.abs(np.cumsum(distribution.counts) - np.cumsum(wanted)).max() <= 2


def test_centres_are_in_the_middle_of_the_bins():
    distribution = statistics.Distribution(-1.0, 3.0, np.zeros(4, np.int64))
    np.testing.assert_allclose(distribution.centres, [-0.5, 0.5, 1.5, 2.5])


def test_moments_are_the_means_of_products_of_what_the_weights_multiply(plan, gathered, values):
    for step in weighted(plan):
        rows = rows_of(step, values[step.inputs[0]])
        found = gathered.moments[step.output]
        np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=1e-9, atol=1e-12)
        # They say how large an error of the weights becomes in the output.
        change = np.random.default_rng(0).normal(size=(len(found), step.kernel.shape[-1]))
        wanted = np.sum((rows @ change) ** 2) / len(rows)
        assert np.trace(change.T @ found @ change) == pytest.approx(wanted, rel=1e-9)


def test_rows_times_the_kernel_are_the_convolution():
    random = np.random.default_rng(0)
    kernel, pads = random.normal(size=(3, 2, 2, 5)), ((1, 0), (0, 1))
    step = steps.Conv("c", ("image",), kernel, None, (2, 1), pads, relu=False)
    x = random.normal(size=(3, 7, 6, 2))
    wanted = statistics.tensors(Plan((7, 6, 2), (step,)), x)
    np.testing.assert_allclose(rows_of(step, x) @ kernel.reshape(-1, 5), wanted.reshape(-1, 5))


@pytest.mark.parametrize("side", [16, 31, 32, 33, 64])
def test_a_large_map_gives_some_of_its_rows_evenly(side):
    step = steps.Conv("c", ("image",), np.ones((1, 1, 1, 1)))
    x = np.arange(2 * side * side, dtype=float).reshape(2, side, side, 1)
    rows = rows_of(step, x)[:, 0]
    assert len(rows) <= 2 * MOST_ROWS
    assert len(rows) > MOST_ROWS or len(rows) == x.size
    assert len(set(np.diff(rows))) == 1
    assert rows[0] == 0


def test_a_tensor_that_never_varies_has_a_distribution_with_some_width():
    plan = Plan((2, 2, 1), (steps.Scale("logits", ("image",), np.zeros(1), np.array([3.0])),))
    found = gather(plan, random_images(plan, 3), "any").distributions["logits"]
    assert found.low == 3 < found.high
    assert found.counts.sum() == found.counts[0] == 12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_are_not_finite_are_refused_by_name(plan, images, bad, which):
    step = weighted(plan)[which]
    kernel = step.kernel.copy()
    kernel.flat[0] = bad
    broken = plan.replace({step.output: [replace(step, kernel=kernel)]})
    with pytest.raises(InvalidData, match="is not finite for the calibration images"):
        gather(broken, images, "random pixels")


def test_a_record_keeps_ranges_and_histograms_exactly_and_moments_nearly(gathered, record):
    read = load(record)
    assert (read.origin, read.samples) == (gathered.origin, gathered.samples)
    assert list(read.distributions) == list(gathered.distributions)
    for name, wanted in gathered.distributions.items():
        found = read.distributions[name]
        assert (found.low, found.high) == (wanted.low, wanted.high)
        np.testing.assert_array_equal(found.counts, wanted.counts)
        assert found.counts.dtype == wanted.counts.dtype
    assert read.probe == gathered.probe
    assert set(read.moments) == set(gathered.moments)
    for name, wanted in gathered.moments.items():
        spread = np.sqrt(np.diag(wanted))
        # float16 has 11 bits; correlations are 1 at most.
        off = np.abs(read.moments[name] - wanted) / np.maximum(np.outer(spread, spread), 1e-30)
        assert off.max() < 2**-11
        np.testing.assert_array_equal(read.moments[name], read.moments[name].T)


def test_a_record_of_inputs_that_are_always_zero_can_be_read(tmp_path):
    plan = Plan(
        (1, 2, 3),
        (
            steps.Scale("zero", ("image",), np.zeros(1), np.zeros(1)),
            steps.Dense("logits", ("zero",), np.ones((3, 2))),
        ),
    )
    gathered = gather(plan, random_images(plan, 3), "any")
    save(gathered, tmp_path / "r.npz")
    read = load(tmp_path / "r.npz")
    np.testing.assert_allclose(read.moments["logits"], np.zeros((3, 3)), atol=1e-20)
    assert read.fits(plan, plan.shapes)


def test_a_record_without_moments_can_be_read(tmp_path):
    plan = Plan((1, 2, 3), (steps.Gelu("logits", ("image",), False),))
    save(gather(plan, random_images(plan, 3), "any"), tmp_path / "r.npz")
    read = load(tmp_path / "r.npz")
    assert read.moments == {}
    assert set(read.distributions) == {"image", "logits"}


def test_saving_replaces_what_was_there_and_leaves_nothing_else(gathered, tmp_path):
    path = tmp_path / "record.npz"
    path.write_text("old")
    save(gathered, path)
    assert load(path).samples == gathered.samples
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.npz"]


def damaged(path, how, whole):
    about = json.loads(str(np.load(path)["about"]))
    arrays = {key: value for key, value in np.load(path).items() if key != "about"}
    if how == "no about":
        np.savez(path, **arrays)
    elif how == "about is no JSON":
        np.savez(path, about=np.asarray("{"), **arrays)
    elif how == "about is a list":
        np.savez(path, about=np.asarray("[]"), **arrays)
    elif how == "a histogram is missing":
        arrays.pop("counts_0")
        np.savez(path, about=np.asarray(json.dumps(about)), **arrays)
    elif how == "a range is missing":
        about["ranges"].pop()
        np.savez(path, about=np.asarray(json.dumps(about)), **arrays)
    elif how == "a correlation is too short":
        key = next(key for key in arrays if key.startswith("correlation"))
        arrays[key] = arrays[key][:-2]
        np.savez(path, about=np.asarray(json.dumps(about)), **arrays)
    elif how == "pickled arrays":
        np.savez(path, about=np.asarray([about], dtype=object), **arrays)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"step,epoch\n1,2\n",
                "half": whole[: len(whole) // 2],
                "all but the end": whole[:-30],
                "a flipped byte": whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:],
                "a pickle": pickle.dumps({"about": 1}),
                "one array": b"\x93NUMPY" + whole[6:],
                "a zip of nothing": b"PK\x05\x06" + bytes(18),
            }[how]
        )


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "text",
        "half",
        "all but the end",
        "a flipped byte",
        "a pickle",
        "one array",
        "a zip of nothing",
        "no about",
        "about is no JSON",
        "about is a list",
        "a histogram is missing",
        "a range is missing",
        "a correlation is too short",
        "pickled arrays",
    ],
)
def test_what_is_no_record_or_a_damaged_one_is_refused_with_its_name(record, how):
    damaged(record, how, record.read_bytes())
    with pytest.raises(InvalidData, match=r"record\.npz is no calibration record"):
        load(record)


def test_a_flipped_byte_anywhere_is_refused_or_changes_nothing(record, gathered):
    whole = record.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 150):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 85]) + whole[place + 1 :])
        try:
            read = load(record)
        except InvalidData:
            continue
        for name, wanted in gathered.distributions.items():
            np.testing.assert_array_equal(read.distributions[name].counts, wanted.counts)


def entry_changed(path, flag=0, version=0):
    """Sets flags or the version of every entry in the list at the end of an archive."""
    whole = bytearray(path.read_bytes())
    place = whole.find(b"PK\x01\x02")
    while place >= 0:
        whole[place + 8] |= flag
        whole[place + 6] = version or whole[place + 6]
        place = whole.find(b"PK\x01\x02", place + 4)
    path.write_bytes(whole)


def entry_replaced(path, content):
    """Puts other bytes in the place of the first histogram, in a sound archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["counts_0.npy"] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in entries.items():
            archive.writestr(name, held)


def compressed_bytes_replaced(path):
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
        compressed_bytes_replaced,
        lambda path: entry_changed(path, flag=1),
        lambda path: entry_changed(path, version=99),
        lambda path: entry_replaced(path, HEADER),
        lambda path: entry_replaced(path, b""),
        lambda path: entry_replaced(path, b"step,epoch"),
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
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(InvalidData, match="no calibration record"):
        load(tmp_path / name)


def test_a_record_fits_the_plan_it_is_of_before_and_after_it_was_a_file(plan, gathered, record):
    assert gathered.fits(plan, plan.shapes)
    assert load(record).fits(plan, plan.shapes)
    assert gathered.fits(plan, ["image"])


def test_a_record_fits_no_plan_with_any_other_weights(plan, gathered):
    changed = 0
    for step in plan.steps:
        for field in ("kernel", "bias", "value", "scale"):
            array = getattr(step, field, None)
            if isinstance(array, np.ndarray) and np.any(array):
                other = plan.replace({step.output: [replace(step, **{field: array * 1.01})]})
                assert not gathered.fits(other, other.shapes), (step.output, field)
                changed += 1
    assert changed >= 12


def test_a_record_fits_no_tensor_that_it_lacks(plan, gathered, record):
    assert not gathered.fits(plan, [*plan.shapes, "another"])
    short = load(record)
    del short.distributions[plan.output]
    assert not short.fits(plan, plan.shapes)
    assert short.fits(plan, ["image"])
    unprobed = load(record)
    del unprobed.probe[plan.output]
    assert not unprobed.fits(plan, plan.shapes)


def test_a_record_fits_no_step_whose_inputs_it_never_saw(plan, gathered):
    weighted = [step.output for step in plan.steps if isinstance(step, steps.Conv | steps.Dense)]
    assert gathered.fits(plan, ["image"], weighted)
    lacking = replace(gathered, moments=dict(gathered.moments))
    del lacking.moments[weighted[1]]
    assert not lacking.fits(plan, ["image"], weighted)
    assert lacking.fits(plan, ["image"], weighted[:1])
    swapped = replace(gathered, moments=gathered.moments | {weighted[1]: np.eye(3)})
    assert not swapped.fits(plan, ["image"], weighted)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda held: held["counts_0"].fill(0), "knows no range of"),
        (lambda held: held["spread_1"].fill(np.nan), "no second moments"),
        (lambda held: held["correlation_1"].fill(-30), "no second moments"),
        (lambda held: held["correlation_1"].fill(np.inf), "no second moments"),
    ],
)
def test_a_record_of_what_no_images_give_is_refused(record, change, says):
    with np.load(record) as file:
        held = {name: file[name] for name in file.files}
    change(held)
    np.savez(record, **held)
    with pytest.raises(InvalidData, match=says):
        load(record)


@pytest.mark.parametrize("range", [[np.nan, 1.0], [0.0, np.inf], [1.0, 1.0], [2.0, 1.0]])
def test_a_record_of_ranges_that_are_none_is_refused(record, range):
    with np.load(record) as file:
        held = {name: file[name] for name in file.files}
    about = json.loads(str(held["about"]))
    about["ranges"][0] = range
    held["about"] = np.asarray(json.dumps(about))
    np.savez(record, **held)
    with pytest.raises(InvalidData, match="knows no range of"):
        load(record)
