"""ONNX graphs of plans: the same logits at every opset and batch size, native operators."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from emitted import read_onnx, run_onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import assert_same, random_images, random_model, random_plan, specs

from cct_export.errors import ConversionError, InvalidRequest, MissingDependency
from cct_export.formats.onnx import emit
from cct_export.graph import steps
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.lower import lower
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.specs import OPSETS, ExportSpec, ModelSpec

SPEC = ExportSpec("onnx", dynamic_batch=True)
SMALL = ModelSpec(filters=(6, 16), mlp_units=(16, 16), heads=2, head_dim=16, layers=2)


def run(content, images):
    return run_onnx(content, images, batched=True)


def count(content):
    return Counter(node.op_type for node in read_onnx(content).graph.node)


@settings(max_examples=8, deadline=None)
@given(
    specs(),
    st.integers(0, 2**16),
    st.sets(st.sampled_from(sorted(PASSES))),
    st.sampled_from(OPSETS),
)
def test_a_graph_gives_the_logits_of_its_plan_at_any_opset(spec, seed, without, opset):
    plan = random_plan(spec, seed)
    images = random_images(plan, 3)
    content = emit(fold(plan, without), replace(SPEC, opset=opset))
    expected = evaluate(plan, images)
    assert_same(run(content, images), expected, 1e-4)
    assert_same(run(content, images[:1]), expected[:1], 1e-4)
    assert {entry.version for entry in read_onnx(content).opset_import} == {opset}


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_a_graph_takes_any_number_of_images(batch):
    plan = random_plan(replace(SMALL, image_size=12))
    images = random_images(plan, batch)
    assert_same(run(emit(fold(plan), SPEC), images), evaluate(plan, images), 1e-4)


def test_a_graph_for_one_image_takes_no_other_batch_size():
    plan = fold(random_plan(SMALL))
    content = emit(plan, replace(SPEC, dynamic_batch=False))
    (image,) = read_onnx(content).graph.input
    assert [size.dim_value for size in image.type.tensor_type.shape.dim] == [1, 32, 32, 3]
    with pytest.raises(Exception, match="invalid dimensions"):
        run(content, random_images(plan, 2))


def test_only_the_images_the_tokens_and_the_keys_are_transposed():
    counts = count(emit(fold(random_plan(SMALL)), SPEC))
    assert counts["Transpose"] == 2 + SMALL.layers
    assert not counts.keys() & {"Cast", "Pad", "Split", "Slice", "Identity", "Expand", "Squeeze"}
    assert (counts["LayerNormalization"], counts["Gelu"]) == (5, 4)


@pytest.mark.parametrize(
    ("opset", "norms", "gelus"), [(13, 0, 0), (16, 0, 0), (17, 5, 0), (19, 5, 0), (20, 5, 4)]
)
def test_native_operators_are_used_from_the_opset_that_has_them(opset, norms, gelus):
    counts = count(emit(fold(random_plan(SMALL)), replace(SPEC, opset=opset)))
    assert (counts["LayerNormalization"], counts["Gelu"]) == (norms, gelus)
    assert bool(counts["Tanh"]) == (not gelus)


def test_pools_have_explicit_padding():
    nodes = read_onnx(emit(fold(random_plan(SMALL)), SPEC)).graph.node
    for node in [node for node in nodes if node.op_type == "MaxPool"]:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["pads"] == [1, 1, 2, 2]
        assert "auto_pad" not in attributes


@pytest.mark.parametrize("opset", [16, 20])
@pytest.mark.parametrize("tanh", [True, False])
def test_gelu_is_the_variant_of_the_model(tanh, opset):
    plan = Plan((4, 4, 3), (steps.Gelu("logits", ("image",), tanh),))
    images = random_images(plan) / 50
    assert_same(run(emit(plan, replace(SPEC, opset=opset)), images), evaluate(plan, images), 1e-6)


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 0), (2, 1))])
@pytest.mark.parametrize("relu", [True, False])
def test_scaled_images_padded_maps_and_strided_convolutions(strides, pads, relu):
    random = np.random.default_rng(0)
    plan = Plan(
        (7, 8, 3),
        (
            steps.Scale("s", ("image",), random.normal(size=3) / 255, random.normal(size=3)),
            steps.Conv("c", ("s",), random.normal(size=(3, 2, 3, 4)), None, strides, pads, relu),
            # ONNX Runtime fuses zeros into the pool that reads them, right only after a ReLU.
            steps.ZeroPad("z", ("c",), ((1, 0), (0, 2)) if relu else steps.NO_PADS),
            steps.MaxPool("p", ("z",), (4, 4), (1, 1), ((0, 1), (1, 0))),
            steps.Add("logits", ("p", "p")),
        ),
    )
    images = random_images(plan)
    assert_same(run(emit(plan, SPEC), images), evaluate(plan, images), 1e-5)


@pytest.mark.parametrize("opset", [16, 20])
@pytest.mark.parametrize("shared", [True, False])
def test_a_norm_of_a_sum_is_right_whether_the_sum_has_other_consumers_or_not(opset, shared):
    random = np.random.default_rng(0)
    last = ("s", "n") if shared else ("n", "n")
    plan = Plan(
        (4, 2, 8),
        (
            steps.Reshape("x", ("image",), (8, 8)),
            steps.Dense("d", ("x",), random.normal(size=(8, 8)), None),
            steps.Add("s", ("x", "d")),
            steps.LayerNorm("n", ("s",), 1e-3, random.normal(size=8), random.normal(size=8)),
            steps.Add("logits", last),
        ),
    )
    images = random_images(plan, 3)
    content = emit(plan, replace(SPEC, opset=opset))
    assert_same(run(content, images), evaluate(plan, images), 1e-5)


def test_onnx_runtime_does_not_fuse_the_last_sum_into_its_slow_normalization(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    content = emit(fold(random_plan(SMALL)), SPEC)
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "LayerNormalization" in kinds
    assert "SkipLayerNormalization" not in kinds


def test_equal_plans_give_equal_bytes():
    plans = [fold(lower(random_model(SMALL, 0))) for _ in range(2)]
    assert emit(plans[0], SPEC) == emit(plans[1], SPEC)


def test_metadata_is_in_the_file():
    metadata = {"name": "text", "other": "ü"}
    content = emit(fold(random_plan(SMALL)), SPEC, metadata)
    entries = read_onnx(content).metadata_props
    assert {entry.key: entry.value for entry in entries} == metadata


def test_a_graph_that_the_checker_refuses_is_a_conversion_error():
    plan = Plan((4, 4, 3), (steps.Gelu("x", ("image",), False), steps.Gelu("x", ("x",), False)))
    with pytest.raises(ConversionError, match="checker refused the graph"):
        emit(plan, SPEC)


def test_an_unknown_opset_is_refused():
    with pytest.raises(InvalidRequest, match=r"opset 12 is not one .* choose 13 to 23"):
        emit(fold(random_plan(replace(SMALL, layers=0))), replace(SPEC, opset=12))


def test_without_onnx_the_extra_is_named(monkeypatch):
    import sys

    plan = random_plan(replace(SMALL, layers=0))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependency, match=r"cct-export\[onnx\]"):
        emit(plan, SPEC)


def test_a_step_without_onnx_operator_is_an_error():
    plan = Plan((4, 4, 3), (steps.Step("logits", ("image",)),))
    with pytest.raises(TypeError, match="no operator for Step"):
        emit(plan, SPEC)


@pytest.mark.parametrize(("opset", "version"), [(13, 7), (17, 8), (20, 9)])
def test_the_file_format_is_the_oldest_that_has_the_opset(opset, version):
    content = emit(fold(random_plan(replace(SMALL, layers=0))), replace(SPEC, opset=opset))
    assert read_onnx(content).ir_version == version
