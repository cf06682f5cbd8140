"""Any Keras model becomes a functional one of one float32 image and flat outputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from kinds_of_models import (
    IMAGES,
    KINDS,
    SHAPE,
    Subclassed,
    features,
    outputs,
    plain,
    reshape_to,
    sequential,
    subclassed,
    under,
)

from cct_export.errors import InvalidModel
from cct_export.formats.traced import inference_model
from cct_export.importers.functional import functional
from cct_export.importers.source import in_memory
from cct_export.model.cct import CCT
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import run

PIXELS = IMAGES.astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_keeps_its_logits(kind):
    model = KINDS[kind]()
    whole = functional(model, "m")
    (image,) = whole.inputs
    assert (image.shape[1:], image.dtype) == (SHAPE, "float32")
    assert image.shape[0] == (1 if kind == "reshape_to_one" else None)
    assert not keras.tree.is_nested(whole.input)
    assert [tensor.shape[1:] for tensor in whole.outputs] == [(5,)]
    (expected,) = outputs(model)
    assert np.ptp(expected) > 0
    logits = run(KerasSession(in_memory(model)), PIXELS)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    (inferred,) = outputs(inference_model(whole))
    np.testing.assert_allclose(inferred, expected, atol=1e-5)


@pytest.mark.parametrize("build", [plain, lambda: CCT(_small())], ids=["functional", "CCT"])
def test_a_model_that_is_so_already_stays_itself(build):
    model = build()
    assert functional(model, "m") is model


def _small():
    from cct_export.specs import ModelSpec

    return ModelSpec(image_size=16, filters=(8,), layers=1, heads=1, head_dim=8, mlp_units=(8,))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_shared_and_the_model_is_not_changed(kind):
    model = KINDS[kind]()
    layers_before = [layer.name for layer in model.layers]
    whole = functional(model, "m")
    assert {id(weight) for weight in whole.weights} == {id(weight) for weight in model.weights}
    assert [layer.name for layer in model.layers] == layers_before


def _heads(*names):
    image = keras.Input(SHAPE)
    x = features(image)
    return image, [layers.Dense(size, name=name)(x) for size, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda sex, age: {"years": age, "is_male": sex}, ["is_male", "years"]),
        (lambda sex, age: [sex, age], ["sex", "age"]),
        (lambda sex, age: {"a": {"b": sex}, "c": [age]}, ["a_b", "c_0"]),
    ],
    ids=["dict", "list", "nested"],
)
def test_several_outputs_become_a_list_with_their_names(build, names):
    image, heads = _heads("sex", "age")
    model = keras.Model(image, build(*heads))
    whole = functional(model, "m")
    assert whole.output_names == names
    assert [tensor.shape for tensor in whole.outputs] == [(None, 1), (None, 2)]
    for output, expected in zip(outputs(whole), outputs(model), strict=True):
        np.testing.assert_array_equal(output, expected)


def test_one_unit_and_slots_of_classes_are_outputs():
    assert functional(sequential(layers.Conv2D(1, 16)), "m").output_shape == (None, 5)
    plates = keras.Sequential([*sequential().layers, layers.Dense(6), layers.Reshape((2, 3))])
    plates.build((None, *SHAPE))
    assert functional(plates, "m").output_shape == (None, 2, 3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
@pytest.mark.parametrize("build", [plain, subclassed, lambda: sequential(layers.Conv2D(4, 3))])
def test_a_model_of_another_precision_is_rebuilt_in_float32(policy, build, caplog):
    model = under(policy, build)
    weights = [np.asarray(weight) for weight in model.get_weights()]
    policies = [layer.dtype_policy.name for layer in model.layers]
    with caplog.at_level("INFO", "cct_export"):
        whole = functional(model, "m.keras")
    assert caplog.messages == [
        f"m.keras computes in {policy}: rebuilt in float32, with the same weights"
    ]
    assert {str(tensor.dtype) for tensor in whole.inputs + whole.outputs} == {"float32"}
    assert {layer.compute_dtype for layer in whole._flatten_layers()} == {"float32"}
    (expected,), (logits,) = outputs(model), outputs(whole)
    np.testing.assert_allclose(logits, expected.astype(np.float32), atol=0.05)
    assert [layer.dtype_policy.name for layer in model.layers] == policies
    for weight, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), before)


def doubled(x):
    return ops.relu(x) * 2


class Twice(layers.Layer):
    def call(self, x):
        return x * 2


def test_layers_and_functions_of_the_users_are_rebuilt_in_float32_too():
    def build():
        image = keras.Input(SHAPE)
        x = layers.Dense(5, activation=doubled)(Twice()(ops.cast(features(image), "float16")))
        return keras.Model(image, layers.Activation("softmax", dtype="float32")(x))

    model = under("mixed_float16", build)
    (expected,), (logits,) = outputs(model), outputs(functional(model, "m"))
    np.testing.assert_allclose(logits, expected, atol=0.01)


class Half(layers.Layer):
    """Computes in float16 whatever it is told."""

    def __init__(self, **settings):
        super().__init__(**settings | {"dtype": "float16"})

    def call(self, x):
        return x


class WithoutConfig(layers.Layer):
    def call(self, x):
        return x

    def get_config(self):
        raise NotImplementedError("no configuration")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Half, "rebuilt in float32: half.* computes in float16 whatever its configuration says"),
        (WithoutConfig, "cannot be rebuilt in float32: no configuration; build it"),
    ],
)
def test_what_cannot_be_rebuilt_in_float32_is_refused_in_one_line(layer, reason):
    model = under("mixed_float16", lambda: sequential(layer()))
    with pytest.raises(InvalidModel, match=reason) as refused:
        functional(model, "m")
    assert "\n" not in str(refused.value)


def test_a_model_that_keras_quantized_is_refused(recwarn):
    model = plain()
    model.quantize("int8")
    with pytest.raises(InvalidModel, match=r"m was quantized by Keras \(dense.*: int8\): export"):
        functional(model, "m")


def test_a_fixed_batch_is_rebuilt_and_the_output_says_so(caplog):
    with caplog.at_level("INFO", "cct_export"):
        functional(sequential(batch_size=4), "m")
    assert caplog.messages == ["m takes 4 images at a time: rebuilt for any number of them"]


def test_a_batch_that_the_graph_says_stays_and_keras_runs_as_many_at_a_time():
    model = reshape_to(4)
    session = KerasSession(in_memory(model))
    assert session.batch == 4
    logits = run(session, PIXELS[:6])
    np.testing.assert_allclose(logits, outputs(model)[0][:6], atol=1e-6)


@pytest.mark.parametrize(
    "build", [Subclassed, lambda: keras.Sequential([layers.Flatten(), layers.Dense(5)])]
)
def test_a_model_that_was_never_called_is_refused_with_what_to_call(build):
    with pytest.raises(InvalidModel, match=r"was never called.*model\(np\.zeros\(\(1, height"):
        functional(build(), "m")


def test_a_call_that_fails_on_symbols_is_refused_in_one_line():
    class Reads(keras.Model):
        def call(self, images):
            return images[0] * float(ops.convert_to_numpy(images).mean())

    model = Reads()
    model(IMAGES)
    with pytest.raises(InvalidModel, match="m cannot be exported: calling it fails: ") as refused:
        functional(model, "m")
    assert "\n" not in str(refused.value)


def _classifier(shapes, outputs):
    inputs = [keras.Input(shape) for shape in shapes]
    flat = [layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x for x in inputs]
    x = layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    return keras.Model(inputs, [output(x) for output in outputs])


NOT_CLASSIFIERS = {
    "four channels": lambda: _classifier([(8, 8, 4)], [layers.Dense(2)]),
    "vectors": lambda: _classifier([(10,)], [layers.Dense(2)]),
    "two images": lambda: _classifier([(8, 8, 3), (8, 8, 3)], [layers.Dense(2)]),
    "a map of logits": lambda: keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(2, 3)]),
    "channels first": lambda: _classifier([(3, 8, 8)], [layers.Dense(2)]),
}


@pytest.mark.parametrize("kind", NOT_CLASSIFIERS)
def test_a_model_that_is_not_an_image_classifier_is_refused_with_its_shapes(kind):
    model = NOT_CLASSIFIERS[kind]()
    with pytest.raises(InvalidModel, match="m is not an image classifier") as refused:
        functional(model, "m")
    for tensor in model.inputs + model.outputs:
        assert str(tuple(tensor.shape)) in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (
            (None, None, 3),
            "m takes images of any size, (None, None, None, 3): build it for one, "
            "keras.Input((height, width, 3))",
        ),
        (
            (None, 24, 1),
            "m takes images of any size, (None, None, 24, 1): build it for one, "
            "keras.Input((height, 24, 1))",
        ),
        (
            (28, 24),
            "m takes images without a channel axis, (None, 28, 24): add one, "
            "keras.Input((28, 24, 1))",
        ),
        (
            (None, None),
            "m takes images without a channel axis, (None, None, None): add one, "
            "keras.Input((height, width, 1))",
        ),
    ],
    ids=str,
)
def test_images_without_a_size_or_a_channel_axis_are_refused_with_what_to_do(shape, said):
    image = keras.Input(shape)
    x = image if len(shape) == 3 else keras.ops.expand_dims(image, -1)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    with pytest.raises(InvalidModel) as refused:
        functional(model, "m")
    assert str(refused.value) == said
