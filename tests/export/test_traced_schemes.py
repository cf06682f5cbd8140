"""Models that are not lowered to a plan, in every scheme, by the libraries' own tools."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import cct_export
from cct_export.errors import ConversionError, InvalidRequest, UnsupportedScheme
from cct_export.quantize.schemes import BY_FORMAT

# ncnn has no converter that traces.
CASES = [(format, scheme) for format in ("tflite", "onnx") for scheme in BY_FORMAT[format]]


def grouped_and_gated():
    """Layers that no plan has: grouped and depthwise convolutions, mish, squeeze and excite."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="silu")(layers.Rescaling(1 / 255)(image))
    x = layers.Conv2D(16, 3, groups=4, activation="gelu")(x)
    x = layers.DepthwiseConv2D(3)(x)
    gate = layers.Dense(16, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Flatten()(layers.Multiply()([x, gate]))
    return keras.Model(image, layers.Dense(5)(x), name="gated")


def recurrent(layer):
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, dilation_rate=2)(layers.Rescaling(1 / 255)(image))
    return keras.Model(image, layers.Dense(5)(layer(layers.Reshape((12, 96))(x))), name="recurrent")


def narrow_logits(softmax=False):
    """A head whose weights differ so much that one of its layers carries most of the error."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layers.DepthwiseConv2D(3)(layers.Rescaling(1 / 255)(image))
    x = layers.Conv2D(8, 3, groups=1, dilation_rate=2, activation="mish")(x)
    head = layers.Dense(5, activation="softmax" if softmax else None)
    model = keras.Model(image, head(layers.Flatten()(x)), name="narrow")
    kernel, bias = head.get_weights()
    random = np.random.default_rng(0)
    outliers = random.choice([1, 60], kernel.shape, p=[0.99, 0.01])
    head.set_weights([kernel * outliers, bias])
    return model


def export(model, format, path, scheme, **options):
    return getattr(cct_export, f"export_{format}")(
        model, output=path, scheme=scheme, parity_samples=64, calibration_samples=32, **options
    )


@pytest.mark.parametrize(("format", "scheme"), CASES)
def test_every_scheme_passes_parity_and_says_what_it_quantized(tmp_path, format, scheme):
    exported = export(grouped_and_gated(), format, tmp_path / f"m.{format}", scheme)
    assert exported.parity.passed, exported.parity.failures
    how = exported.artifact.contract.quantization
    if scheme in ("none", "fp16"):
        assert how is None
    else:
        assert how.rounding == "nearest"
        assert not (set(how.static) | set(how.dynamic)) & set(how.kept_float)
    if BY_FORMAT[format][scheme].calibrated:
        assert len(how.static) + len(how.kept_float) >= 3
        assert exported.artifact.contract.calibration == "32 photo crops"


@pytest.mark.parametrize(("io", "scheme"), [("int8", "int8-full"), ("uint8", "int8-full"),
                                            ("uint8", "int16x8"), ("int8", "int8")])  # fmt: skip
def test_images_are_of_the_type_that_io_names(tmp_path, io, scheme):
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "m.tflite"
    exported = export(grouped_and_gated(), "tflite", path, scheme, io=io)
    assert exported.parity.passed, exported.parity.failures
    interpreter = Interpreter(str(path))
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert image["dtype"] is getattr(np, io)
    assert image["quantization"] == (1.0, 0 if io == "uint8" else -128)
    assert logits["dtype"] is (getattr(np, io) if scheme == "int8-full" else np.float32)


@pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])
def test_integers_only_leaves_no_operator_in_float(tmp_path, scheme):
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "m.tflite"
    export(grouped_and_gated(), "tflite", path, scheme)
    interpreter = Interpreter(str(path))
    ends = interpreter.get_input_details() + interpreter.get_output_details()
    floats = {t["name"] for t in interpreter.get_tensor_details() if t["dtype"] is np.float32}
    assert len(floats) <= len(ends)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("scheme", ["none", "fp16", "int8-dynamic", "int8"])
@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_recurrent_layers_of_both_directions_pass(tmp_path, layer, scheme, format):
    model = recurrent(layers.Bidirectional(layer(6)))
    exported = export(model, format, tmp_path / f"m.{format}", scheme)
    assert exported.parity.passed, exported.parity.failures


@pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])
def test_loops_are_refused_where_only_integers_are_wanted(tmp_path, scheme):
    with pytest.raises(UnsupportedScheme, match=r"loops of the model.* use int8"):
        export(recurrent(layers.LSTM(4)), "tflite", tmp_path / "m.tflite", scheme)
    assert list(tmp_path.iterdir()) == []


def additive_attention(x):
    rows = layers.Reshape((16, 48))(x)
    return layers.GlobalAveragePooling1D()(layers.AdditiveAttention()([rows, rows]))


def fourier(x):
    return ops.abs(ops.rfft(layers.Flatten()(x))[0])


@pytest.mark.parametrize(
    ("body", "scheme", "operator", "way_out"),
    [
        (additive_attention, "int16x8", "ADD", "use int8 or fp16"),
        (fourier, "int8", "RFFT2D", "compute it of other operations"),
        (fourier, "none", "RFFT2D", "compute it of other operations"),
    ],
)
def test_an_operator_that_the_engine_cannot_run_is_named(tmp_path, body, scheme, operator, way_out):
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, layers.Dense(5)(body(layers.Rescaling(1 / 255)(image))))
    with pytest.raises(ConversionError) as refused:
        export(model, "tflite", tmp_path / "m.tflite", scheme)
    assert str(refused.value).endswith(f"LiteRT cannot run {operator} of this model: {way_out}")
    if scheme == "int16x8":
        for other in ("int8", "fp16"):
            assert export(model, "tflite", tmp_path / "m.tflite", other).parity.passed


def test_an_operator_that_costs_too_much_stays_float_and_the_output_says_so(tmp_path, caplog):
    caplog.set_level("INFO", "cct_export")
    exported = export(narrow_logits(), "tflite", tmp_path / "m.tflite", "int4-weight")
    assert exported.parity.passed, exported.parity.failures
    assert exported.artifact.contract.quantization.kept_float == ("logits",)
    assert exported.bound is None
    assert "logits kept in float" in caplog.text


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_softmax_head_with_large_weights_passes_in_int8(tmp_path, format):
    exported = export(narrow_logits(softmax=True), format, tmp_path / f"m.{format}", "int8")
    assert exported.parity.passed, exported.parity.failures


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_bound_takes_the_worst_operators_back_to_float(tmp_path, format):
    path = tmp_path / f"m.{format}"
    plain = export(grouped_and_gated(), format, path, "int8")
    bound = plain.parity.sqnr_db + 2
    exported = export(grouped_and_gated(), format, path, "int8", min_sqnr=bound)
    assert exported.parity.passed, exported.parity.failures
    assert exported.bound.before_db == pytest.approx(plain.parity.sqnr_db, abs=1e-6)
    assert exported.bound.after_db >= bound
    assert exported.bound.floats == exported.artifact.contract.quantization.kept_float
    assert 1 <= len(exported.bound.floats) < len(plain.artifact.contract.quantization.static) + 2


def test_integers_only_have_no_operators_to_take_back_to_float(tmp_path):
    with pytest.raises(InvalidRequest, match="use int8"):
        export(grouped_and_gated(), "tflite", tmp_path / "m.tflite", "int8-full", min_sqnr=60)


def test_the_calibration_method_sets_the_ranges(tmp_path):
    files = {}
    for method in ("min-max", "percentile", "mse"):
        path = tmp_path / f"{method}.onnx"
        exported = export(grouped_and_gated(), "onnx", path, "int8", calibrate=method)
        assert exported.artifact.contract.quantization.ranges == method
        files[method] = path.read_bytes()
    assert len(set(files.values())) == len(files)


def test_the_best_method_is_one_of_all(tmp_path):
    exported = export(
        grouped_and_gated(), "tflite", tmp_path / "m.tflite", "int8", calibrate="best"
    )
    assert exported.parity.passed
    assert exported.artifact.contract.quantization.ranges in (
        "min-max", "percentile", "entropy", "mse"
    )  # fmt: skip
