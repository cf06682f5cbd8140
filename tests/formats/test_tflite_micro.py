"""Files for TFLite Micro: only its operators, exact tables, and the same values as for LiteRT."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from classifiers import CLASSIFIERS
from emitted import read_tflite, run_tflite
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import layers, ops

import cct_export
from cct_export.data.sampling import photo_crops
from cct_export.errors import UnsupportedScheme
from cct_export.formats import tflite, tflite_micro
from cct_export.graph import steps
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams, evaluate
from cct_export.operator_lists import OPERATOR_LISTS
from cct_export.quantize.params import pixel_params
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import SCHEMES
from cct_export.quantize.statistics import collect
from cct_export.specs import ExportSpec

SPEC = ExportSpec("tflite", "int8-full", "int8", target="tflm")
LITERT = replace(SPEC, target="")


def quantized(plan):
    """Returns a plan for TFLite Micro in integers, and images."""
    plan = tflite.legalize(fold(plan), SPEC)
    images = photo_crops(plan.image_shape, 8, 2)
    return quantize(plan, SCHEMES["int8-full"], collect(plan, images, "crops")), images


def kinds_of(content):
    return {use.kind for use in tflite_micro.operator_uses(content)}


@settings(max_examples=15)
@example(0.125, 0, 0.06, 0, False)
@given(
    st.floats(0.004, 0.2),
    st.integers(-128, 127),
    st.floats(0.004, 0.2),
    st.integers(-128, 127),
    st.booleans(),
)
def test_the_table_of_gelu_is_that_of_litert(scale, zero, output_scale, output_zero, tanh):
    plan = Plan(
        (16, 16, 1), (steps.Reshape("f", ("image",), (256,)), steps.Gelu("logits", ("f",), tanh))
    )
    source = QuantParams(np.array(scale), zero, -128, 127)
    result = QuantParams(np.array(output_scale), output_zero, -128, 127)
    config = OpQuantConfig("static", True)
    # All integers of the image get another scale.
    params = {"image": pixel_params(8), "f": source, "logits": result}
    gelu = QuantizedPlan(plan, params, {"f": config, "logits": config})
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    micro, litert = (run_tflite(tflite.emit(gelu, spec), images) for spec in (SPEC, LITERT))
    # LiteRT computes its table in float32, which may fall on the other side of a half.
    values = scale * (images.astype(float) - 128 - zero)
    near_half = np.abs(evaluate(plan, values) / output_scale % 1 - 0.5) < 1e-4
    np.testing.assert_array_equal(micro[~near_half], litert[~near_half])
    np.testing.assert_allclose(micro, litert, atol=1.01 * output_scale)


@pytest.mark.parametrize("slice_bytes", [2**7, 2**8, 2**12])
def test_a_large_tensor_is_looked_up_in_slices_for_the_same_values(slice_bytes, monkeypatch):
    plan, images = quantized(CLASSIFIERS["silu"])
    whole = tflite.emit(plan, SPEC)
    monkeypatch.setattr(tflite_micro, "_SLICE_BYTES", slice_bytes)
    sliced = tflite.emit(plan, SPEC)
    assert not OPERATOR_LISTS["tflm"].missing(tflite_micro.operator_uses(sliced))
    kinds = [use.kind for use in tflite_micro.operator_uses(sliced)]
    assert kinds.count("CONCATENATION") == 1
    assert 1 < kinds.count("GATHER") <= 10  # what CONCATENATION of TFLite Micro takes
    np.testing.assert_array_equal(run_tflite(sliced, images), run_tflite(whole, images))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_file_has_only_operators_of_tflite_micro_and_the_values_of_the_simulation(name):
    plan, images = quantized(CLASSIFIERS[name])
    content = tflite.emit(plan, SPEC)
    assert not OPERATOR_LISTS["tflm"].missing(tflite_micro.operator_uses(content))
    assert not kinds_of(content) & {"GELU", "LOGISTIC", "RELU6", "TANH", "HARD_SWISH"}
    logits = run_tflite(content, images)
    scale = float(plan.qparams[plan.plan.output].scale)
    assert np.abs(logits - evaluate(plan, images)).max() < 8 * scale


def test_a_traced_model_with_other_operators_is_refused_and_they_are_named(tmp_path):
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, dilation_rate=2)(layers.Rescaling(1 / 255)(image))
    x = layers.DepthwiseConv2D(3, activation="gelu")(x)
    x = layers.Flatten()(ops.tile(x, (1, 2, 1, 1)))
    model = keras.Model(image, layers.Dense(5)(x), name="tiled")
    with pytest.raises(UnsupportedScheme, match=r"no GELU \(int8\), TILE \(int8\)") as refused:
        cct_export.export_tflite(
            model, output=tmp_path / "m.tflite", scheme="int8-full", target="tflm",
            calibration_samples=8, parity_samples=8,
        )  # fmt: skip
    assert "which tiled needs" in str(refused.value)
    assert refused.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_litert_keeps_its_operators():
    plan, _ = quantized(CLASSIFIERS["sigmoid"])
    assert "LOGISTIC" in kinds_of(tflite.emit(plan, LITERT))
    assert read_tflite(tflite.emit(plan, SPEC)).logits.type == "INT8"
