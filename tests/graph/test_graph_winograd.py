"""Convolutions in fewer multiplications: what they compute, and where they are left alone."""

from dataclasses import replace

import numpy as np
import pytest
from classifiers import conv
from emitted import partitions_of, read_tflite, run_tflite
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plans import assert_same

import cct_export
from cct_export.export.draft import prepared
from cct_export.formats import tflite
from cct_export.graph import steps
from cct_export.graph.fold import PASSES
from cct_export.graph.lowering import lower_model
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.quantize.schemes import SCHEMES
from cct_export.specs import ExportSpec

winograd = PASSES["winograd"]
PADS = ((1, 1), (1, 1))
FLOAT32 = ExportSpec("tflite")


def kinds(plan):
    return [step.kind for step in plan.steps]


def plan_of(height, width, channels, outputs, size=3, **fields):
    """A plan of one convolution, whose values are about as large as the pixels."""
    step = conv("y", "image", size, channels, outputs, **fields)
    return Plan((height, width, channels), (step,))


def maps(plan, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *plan.image_shape))


def pads():
    side = st.integers(0, 2)
    return st.tuples(st.tuples(side, side), st.tuples(side, side))


@st.composite
def convolutions(draw):
    """Convolutions of which the fold takes most."""
    plan = plan_of(
        draw(st.integers(8, 21)),
        draw(st.integers(8, 21)),
        draw(st.sampled_from([61, 64, 96])),
        draw(st.sampled_from([64, 67, 128])),
        pads=draw(pads()),
        relu=draw(st.booleans()),
        ceiling=draw(st.sampled_from([np.inf, 6.0])),
    )
    if draw(st.booleans()):
        return plan
    return Plan(plan.image_shape, (replace(plan.steps[0], bias=None),))


@settings(max_examples=40, deadline=None)
@given(convolutions(), st.integers(0, 2**16))
def test_fewer_multiplications_give_the_same_map_for_any_size_and_padding(plan, seed):
    folded = winograd(plan)
    assume("Conv" not in kinds(folded))
    assert folded.shapes[folded.output] == plan.shapes[plan.output]
    assert_same(evaluate(folded, maps(plan, seed)), evaluate(plan, maps(plan, seed)), 1e-10)
    assert folded.total_macs < plan.total_macs


@settings(max_examples=5, deadline=None)
@given(convolutions(), st.integers(0, 2**16))
def test_a_float32_file_gives_the_map_of_its_plan_in_one_partition(plan, seed):
    plan = head_of(plan)
    folded = winograd(plan)
    content = tflite.emit(folded, FLOAT32)
    images = np.random.default_rng(seed).normal(size=(2, *plan.image_shape))
    assert_same(run_tflite(content, images), evaluate(plan, images), 1e-4)
    assert partitions_of(content) == (1, 0)


def head_of(plan):
    """The plan with what a file needs: a vector as output."""
    pool = steps.GlobalPool("logits", ("y",))
    return Plan(plan.image_shape, (*plan.steps, pool))


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(32, 32, 3, 64, pads=PADS),
        plan_of(16, 16, 32, 32, pads=PADS),
        plan_of(64, 64, 16, 64, pads=PADS),
        plan_of(4, 4, 128, 128, pads=PADS),
        plan_of(7, 7, 512, 512, pads=PADS),
    ],
    ids=["an image", "few channels", "a large map of few channels", "a small map", "seven pixels"],
)
def test_a_convolution_is_left_alone_where_transforms_cost_more_than_they_save(plan):
    assert kinds(winograd(plan)) == ["Conv"]


@pytest.mark.parametrize(
    "fields",
    [{"strides": (2, 2)}, {"strides": (1, 2)}, {"size": 5}, {"size": 1}, {"ceiling": 3.0}],
    ids=str,
)
def test_only_convolutions_3_by_3_of_stride_1_are_transformed(fields):
    assert kinds(winograd(plan_of(16, 16, 64, 128, **fields))) == ["Conv"]


@pytest.mark.parametrize(
    ("size", "channels"), [(16, 64), (8, 128), (14, 128), (28, 128), (14, 512)]
)
def test_a_convolution_of_many_channels_is_transformed(size, channels):
    folded = winograd(plan_of(size, size, channels, channels, pads=PADS))
    assert kinds(folded).count("Dense") == 24
    assert "Conv" not in kinds(folded)


def test_of_a_map_that_tiles_cover_evenly_nothing_is_cut_off():
    even, uneven = (winograd(plan_of(size, size, 64, 128, pads=PADS)) for size in (16, 18))
    assert isinstance(even.steps[-1], steps.Reshape)
    assert isinstance(uneven.steps[-1], steps.Crop)


@pytest.mark.parametrize(("padding", "count"), [(steps.NO_PADS, 0), (PADS, 1)])
def test_a_map_is_padded_once_and_only_by_rows(padding, count):
    folded = winograd(plan_of(16, 16, 64, 128, pads=padding))
    assert kinds(folded).count("ZeroPad") == count
    operators = read_tflite(tflite.emit(head_of(folded), FLOAT32)).operators
    assert [operator.kind for operator in operators].count("PAD") == count


def test_a_pool_after_rectified_outputs_pads_with_zeros():
    plan = plan_of(16, 16, 64, 128, pads=PADS)
    pool = steps.MaxPool("pooled", ("y",), (3, 3), (2, 2), ((1, 0), (1, 0)))
    folded = winograd(Plan(plan.image_shape, (*plan.steps, pool)))
    assert folded.is_non_negative("y")


@pytest.fixture(scope="module")
def shipped():
    """The plan of the shipped model, unfolded."""
    return lower_model(cct_export.load("cct_keras_io").model).plan


def test_the_shipped_model_computes_its_second_convolution_in_fewer_multiplications(shipped):
    plan = prepared(shipped, replace(FLOAT32, optimize="speed"))
    assert kinds(plan).count("Conv") == 1
    small = prepared(shipped, FLOAT32)
    assert kinds(small).count("Conv") == 2
    assert plan.total_macs < 0.75 * small.total_macs


def test_quantized_and_onnx_files_keep_their_convolutions(shipped):
    specs = [ExportSpec("tflite", name) for name in SCHEMES if name != "none"]
    for spec in (*specs, ExportSpec("onnx"), ExportSpec("onnx", "fp16")):
        assert kinds(prepared(shipped, spec)).count("Conv") == 2


def test_optimizing_speed_gives_the_larger_file_unless_the_fold_is_left_out(in_process, tmp_path):
    files = {}
    for name, more in {
        "size": (),
        "speed": ("--optimize", "speed"),
        "without": ("--optimize", "speed", "--no-fold", "winograd"),
    }.items():
        files[name] = tmp_path / f"{name}.tflite"
        arguments = ("cct_keras_io", *more, "-o", files[name], "--samples", 32)
        ended = in_process("export", "tflite", *arguments)
        assert ended.code == 0, ended.err
    assert files["size"].read_bytes() == files["without"].read_bytes()
    added = files["speed"].stat().st_size - files["size"].stat().st_size
    assert 4 * (24 - 9) * 64 * 128 < added < 540_000
    found = cct_export.inspect(files["speed"])
    assert (found.delegated, found.partitions) == (found.nodes, 1)
