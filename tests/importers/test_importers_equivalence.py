"""Models of the keras.io example's classes have an equivalent CCT and are exported like one."""

import keras
import numpy as np
import pytest
from published import published_example, randomised

import cct_export
from cct_export.importers.equivalence import equivalent_cct


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": 3},
        {"blocks": 0},
        {"blocks": 3, "heads": 1},
        {"positional": False, "size": 21},
        {"activation": "relu"},
        {"activation": "gelu"},
    ],
    ids=str,
)
def test_the_example_has_an_equivalent_cct_with_any_hyperparameters(changes):
    model = randomised(published_example(**changes))
    cct = equivalent_cct(model)
    images = (
        np.random.default_rng(3).integers(0, 256, (4, *model.input_shape[1:])).astype("float32")
    )
    expected = np.asarray(model(images, training=False))
    assert np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(cct(images, training=False), expected, atol=1e-4)
    assert cct.spec.activation == ("relu" if changes.get("activation") == "relu" else "gelu")


@pytest.mark.parametrize(
    "changes", [{"activation": "silu"}, {"epsilon": 1e-6}, {"epsilon": 1e-3}], ids=str
)
def test_the_same_weights_in_another_function_have_no_equivalent_cct(changes):
    model = published_example(blocks=1, **changes)
    assert equivalent_cct(model) is None
    assert equivalent_cct(randomised(model)) is None


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Flatten(), keras.layers.Dense(2)],
        [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)],
        [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.Flatten(), keras.layers.Dense(2)],
        [keras.layers.GlobalAveragePooling2D()],
    ],
)
def test_other_models_have_no_equivalent_cct(layers):
    assert equivalent_cct(keras.Sequential([keras.Input((8, 8, 3)), *layers])) is None


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_the_example_in_memory_is_exported_folded_and_without_random_operators(
    tmp_path, caplog, format
):
    caplog.set_level("INFO", "cct_export")
    export = getattr(cct_export, f"export_{format}")
    model = randomised(published_example())
    exported = export(model, output=tmp_path / f"m.{format}", parity_samples=64)
    assert exported.parity.passed
    assert "not folded" not in caplog.text
    inspection = cct_export.inspect(exported.artifact.path)
    assert inspection.macs == 32_800_768
    assert not [step.kind for step in inspection.operators if "random" in step.kind.lower()]


@pytest.mark.slow
def test_the_onnx_export_of_keras_cannot_be_loaded_and_ours_can(tmp_path):
    import onnx
    import onnxruntime

    model = randomised(published_example())
    model.predict_on_batch(np.zeros((1, 32, 32, 3), np.float32))
    model.export(tmp_path / "stock.onnx", format="onnx", verbose=False)
    stock = {node.op_type for node in onnx.load(tmp_path / "stock.onnx").graph.node}
    assert "StatelessRandomUniformV2" in stock, "Keras no longer exports it: this test is obsolete"
    with pytest.raises(Exception, match="StatelessRandom"):
        onnxruntime.InferenceSession(tmp_path / "stock.onnx", providers=["CPUExecutionProvider"])
    cct_export.export_onnx(model, output=tmp_path / "ours.onnx", parity_samples=16)
    ours = onnx.load(tmp_path / "ours.onnx").graph.node
    assert not [node.op_type for node in ours if "Random" in node.op_type]
    onnxruntime.InferenceSession(tmp_path / "ours.onnx", providers=["CPUExecutionProvider"])
