"""Preprocessing outside of a model, and whether there is any in it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from networks import CAFFE, TORCH, network

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.importers.preprocessing import pixels_warning, scales_pixels
from cct_export.importers.source import in_memory, load_model
from cct_export.model.cct import CCT
from cct_export.specs import ModelOptions, ModelSpec, Normalization

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 10, 3)).astype(np.float32)


KERNEL = tf.Variable(tf.ones((30, 20)))


def normalized(images, normalization):
    pixels = images.astype(np.float64)
    if normalization.channels == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = normalization.mean or (0,), normalization.std or (1,)
    return ((pixels * normalization.scale - mean) / std).astype(np.float32)


@pytest.mark.parametrize(
    "normalization",
    [
        CAFFE,
        TORCH,
        Normalization(channels="bgr"),
        Normalization(scale=1 / 127.5, mean=(1.0,)),
        Normalization(std=(2.0,)),
        Normalization(scale=0.5, std=(1.0, 2.0, 4.0), channels="bgr"),
        Normalization(mean=(1.0,), std=(2.0, 3.0, 4.0)),
    ],
    ids=str,
)
def test_a_loaded_model_takes_pixels_and_normalizes_them_itself(normalization):
    model = network()
    loaded = in_memory(model, ModelOptions(normalization=normalization))
    expected = np.asarray(model(normalized(IMAGES, normalization)))
    np.testing.assert_allclose(loaded.model(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - np.asarray(model(IMAGES))).max() > 0.01
    assert loaded.image_shape == (8, 10, 3)


def test_the_checksum_stays_that_of_the_weights_and_the_model_is_not_changed():
    model = network()
    before = model(IMAGES)
    loaded = in_memory(model, ModelOptions(normalization=CAFFE, softmax=True))
    assert loaded.sha256 == in_memory(model).sha256
    np.testing.assert_array_equal(model(IMAGES), before)
    assert in_memory(model, ModelOptions(normalization=Normalization())).model is model


def test_a_grey_model_has_one_number_per_option_and_no_order_of_channels():
    model, images = network(channels=1), IMAGES[..., :1]
    loaded = in_memory(model, ModelOptions(normalization=Normalization(mean=(33.0,), std=(78.0,))))
    np.testing.assert_allclose(loaded.model(images), model((images - 33) / 78), atol=1e-4)
    for wrong in (Normalization(channels="bgr"), Normalization(mean=(1.0, 2.0, 3.0))):
        with pytest.raises(InvalidRequest, match=r"grey|1 channels"):
            in_memory(model, ModelOptions(normalization=wrong))


def test_a_model_of_integers_is_given_normalized_pixels_once_it_is_rebuilt():
    image = keras.Input((8, 10, 3), dtype="uint8")
    head = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    model = keras.Model(image, head(ops.cast(image, "float32")))
    loaded = in_memory(model, ModelOptions(normalization=Normalization(scale=1 / 255)))
    np.testing.assert_allclose(loaded.model(IMAGES), head(IMAGES / 255), rtol=1e-4, atol=1e-5)


def test_a_softmax_is_appended_to_logits_only():
    model = network()
    loaded = in_memory(model, ModelOptions(softmax=True))
    np.testing.assert_allclose(loaded.model(IMAGES), ops.softmax(model(IMAGES)), rtol=1e-5)
    for head, reason in [
        ([layers.Softmax()], "ends in a softmax already"),
        ([layers.Dense(2, activation="sigmoid")], "ends in a sigmoid already"),
    ]:
        with pytest.raises(InvalidRequest, match=reason):
            in_memory(network(head=head), ModelOptions(softmax=True))


def test_labels_are_as_many_as_outputs_and_those_of_a_cct_stay(small_spec):
    assert in_memory(network(), ModelOptions(labels=tuple("abcde"))).labels == tuple("abcde")
    with pytest.raises(InvalidRequest, match=r"--labels names 2 classes, and net has 5 outputs"):
        in_memory(network(), ModelOptions(labels=("a", "b")))
    with pytest.raises(InvalidRequest, match="cannot be shown"):
        ModelOptions(labels=("a", "b\x07"))
    spec = ModelSpec(**{**small_spec.to_dict(), "labels": tuple("abcdefghij")})
    loaded = in_memory(CCT(spec), ModelOptions(normalization=CAFFE, softmax=True))
    assert loaded.labels == tuple("abcdefghij")
    renamed = in_memory(CCT(spec), ModelOptions(labels=tuple("0123456789")))
    assert renamed.labels == tuple("0123456789")


def test_a_single_output_has_two_labels():
    single = network(head=(layers.Dense(1, activation="sigmoid"),))
    assert in_memory(single, ModelOptions(labels=("no", "yes"))).labels == ("no", "yes")
    with pytest.raises(InvalidRequest, match="and net has 1 output: name each of 2 classes once"):
        in_memory(single, ModelOptions(labels=("no", "perhaps", "yes")))


def test_labels_say_which_of_several_outputs_they_are_of(caplog):
    caplog.set_level("INFO", "cct_export")
    model = network()
    heads = [layers.Dense(size, name=name)(model.output)
             for name, size in (("shape", 3), ("size", 2), ("tone", 3))]  # fmt: skip
    labels = ModelOptions(labels=("a", "b", "c"))
    in_memory(keras.Model(model.inputs, [heads[0], heads[2]], name="same"), labels)
    assert caplog.text == ""
    in_memory(keras.Model(model.inputs, heads, name="net"), labels)
    assert "net: --labels names the 3 classes of shape, tone, and none of size" in caplog.text


def test_the_calibration_record_of_other_pixels_is_not_used(digits_run):
    assert load_model(str(digits_run)).calibration_file is not None
    options = ModelOptions(normalization=Normalization(scale=0.5))
    assert load_model(str(digits_run), options).calibration_file is None


def test_a_loaded_model_takes_no_options_anymore():
    loaded = cct_export.load(network(), options=ModelOptions(normalization=CAFFE))
    assert cct_export.load(loaded) is loaded
    with pytest.raises(InvalidRequest, match="net is loaded already"):
        cct_export.load(loaded, options=ModelOptions(softmax=True))


class OfTensorFlow(layers.Layer):
    """A layer whose code calls TensorFlow, which no graph of Keras shows.

    Args:
        scale: of the pixels.
        units: of a dense layer on them; None for none.
        function: of the result.
    """

    def __init__(self, *, scale=1.0, units=None, function=tf.identity):
        super().__init__()
        self.dense = layers.Dense(units) if units else None
        self.scale, self.function = scale, function

    def call(self, x):
        x = tf.cast(x, tf.float32) * self.scale
        return self.function(self.dense(tf.reshape(x, (-1, 240))) if self.dense else x)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (tf.nn.softmax, "net gives for test images sum to 1, as those of a softmax"),
        (tf.nn.sigmoid, "net gives for test images are from 0 to 1, as those of a sigmoid"),
    ],
    ids=["softmax", "sigmoid"],
)
def test_a_softmax_is_not_appended_to_probabilities_that_only_the_values_show(function, reason):
    head = [layers.Rescaling(1 / 500), OfTensorFlow(function=function)]
    model = network(head=[layers.Dense(4), *head])
    with pytest.raises(InvalidRequest, match=reason) as refused:
        in_memory(model, ModelOptions(softmax=True))
    assert "leave --softmax out" in str(refused.value)


def test_a_softmax_is_appended_to_values_that_are_no_probabilities():
    image = keras.Input((8, 10, 3))
    x = layers.Flatten()(image)
    heads = [OfTensorFlow(function=each)(layers.Dense(3)(x)) for each in (tf.identity, tf.tanh)]
    model = keras.Model(image, heads)
    loaded = in_memory(model, ModelOptions(softmax=True))
    for output, before in zip(loaded.model(IMAGES), model(IMAGES), strict=True):
        np.testing.assert_allclose(output, ops.softmax(before), rtol=1e-5)


class Halves(layers.Layer):
    """A layer of the user's without weights."""

    def call(self, x):
        return x / 127.5 - 1


class Patches(layers.Layer):
    """A layer of the user's that only moves pixels."""

    def call(self, x):
        return ops.reshape(x, (-1, 8, 5, 6))


class Stem(layers.Layer):
    """A layer of the user's with weights, and perhaps with scaling inside."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.convolution = scale, layers.Conv2D(4, 3)

    def call(self, x):
        return self.convolution(x * self.scale if self.scale else x)


def _nested(*front):
    return network(*front, name="backbone")


class Hidden(layers.Layer):
    """A layer with a variable of TensorFlow."""

    def call(self, x):
        return tf.matmul(tf.reshape(x, (-1, 8, 30)), KERNEL)[..., tf.newaxis]


FRONTS = {
    "nothing": ((), False),
    "Rescaling": ([layers.Rescaling(1 / 255)], True),
    "Normalization": ([layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0] * 3)], True),
    "BatchNormalization": ([layers.BatchNormalization()], True),
    "arithmetic": ([lambda x: x / 255], True),
    "mean only": ([lambda x: x - ops.array([104.0, 117.0, 124.0])], True),
    "reversed channels": ([lambda x: x[..., ::-1]], False),
    "augmentation": ([layers.RandomFlip(), layers.RandomRotation(0.1)], False),
    "augmentation and Rescaling": (
        [keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 255)])], True,
    ),
    "resizing": ([layers.Resizing(16, 16)], False),
    "padding": ([layers.ZeroPadding2D(2)], False),
    "identity": ([layers.Rescaling(1.0)], False),
    "layer of the user's": ([Halves()], True),
    "patches of the user's": ([Patches()], False),
    "stem of the user's": ([Stem(None)], False),
    "scaling stem of the user's": ([Stem(1 / 255)], True),
    "scaling in TensorFlow": ([OfTensorFlow(scale=1 / 255)], True),
    "identity in TensorFlow": ([OfTensorFlow()], False),
    "weights in TensorFlow": ([OfTensorFlow(units=240), layers.Reshape((8, 10, 3))], None),
    "weights that Keras does not see": ([Hidden()], None),
}  # fmt: skip


@pytest.mark.parametrize(("front", "scales"), FRONTS.values(), ids=FRONTS)
def test_scaling_in_front_of_the_first_weights_is_found(front, scales):
    model = network(*front)
    assert scales_pixels(model) is scales
    assert bool(pixels_warning(model)) == (not scales)
    image = keras.Input((8, 10, 3))
    nested = keras.Model(image, layers.Dense(3)(model(image)))
    assert scales_pixels(nested) is scales
    outside = keras.Model(image, model(layers.Rescaling(1 / 255)(image)))
    assert scales_pixels(outside)


def test_scaling_behind_the_first_weights_is_too_late():
    image = keras.Input((8, 10, 3))
    x = layers.Rescaling(1 / 255)(layers.Conv2D(4, 3)(image))
    assert scales_pixels(keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))) is False


def test_one_branch_without_scaling_is_enough():
    image = keras.Input((8, 10, 3))
    branches = [layers.Conv2D(4, 3)(x) for x in (image, layers.Rescaling(1 / 255)(image))]
    x = layers.Flatten()(layers.Add()(branches))
    assert scales_pixels(keras.Model(image, layers.Dense(3)(x))) is False


def test_a_fixed_batch_is_walked_too():
    image = keras.Input(batch_shape=(4, 8, 10, 3))
    assert scales_pixels(keras.Model(image, layers.Dense(3)(layers.Flatten()(image)))) is False


def test_what_cannot_be_told_is_not_stated(caplog):
    model = network(OfTensorFlow(units=240), layers.Reshape((8, 10, 3)), name="resnet50")
    assert pixels_warning(model) == (
        "it cannot be told whether resnet50 scales pixels, and it gets RGB from 0 to 255: if it "
        "was trained with others and does not make them itself, pass --mean, --std, --scale or "
        "--channels, else --scale 1"
    )
    caplog.set_level("INFO", "cct_export")
    in_memory(model, ModelOptions(normalization=CAFFE))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50", "--channels bgr --mean 103.939,116.779,123.68"),
        ("vgg16", "--channels bgr --mean 103.939,116.779,123.68"),
        ("resnet50v2", "--scale 1/127.5 --mean 1"),
        ("mobilenet_1.00_224", "--scale 1/127.5 --mean 1"),
        ("mobilenetv2_1.00_224", "--scale 1/127.5 --mean 1"),
        ("inception_v3", "--scale 1/127.5 --mean 1"),
        ("NASNet", "--scale 1/127.5 --mean 1"),
        ("densenet121", "--scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
    ],
)
def test_the_warning_names_the_options_of_a_known_backbone(name, options):
    image = keras.Input((8, 10, 3))
    model = keras.Model(image, layers.Dense(3)(_nested()(image)), name="mine")
    assert "--mean, --std, --scale or --channels" in pixels_warning(model)
    backbone = network(name=name)
    for each in (backbone, keras.Model(image, layers.Dense(3)(backbone(image)), name="mine")):
        assert f"{name} of keras.applications was trained with {options}: " in pixels_warning(each)


def test_keras_preprocesses_so_for_its_applications():
    from keras import applications

    for module, normalization in [
        (applications.resnet50, CAFFE),
        (applications.vgg19, CAFFE),
        (applications.mobilenet_v2, Normalization(scale=1 / 127.5, mean=(1.0,))),
        (applications.inception_v3, Normalization(scale=1 / 127.5, mean=(1.0,))),
        (applications.densenet, TORCH),
    ]:
        expected = module.preprocess_input(IMAGES.copy())
        np.testing.assert_allclose(normalized(IMAGES, normalization), expected, atol=1e-4)


def test_scaling_twice_is_allowed_and_said(caplog):
    caplog.set_level("INFO", "cct_export")
    in_memory(network(layers.Rescaling(1 / 255)), ModelOptions(normalization=CAFFE))
    assert "net scales pixels itself too: it gets what --channels bgr" in caplog.text
    caplog.clear()
    in_memory(network(), ModelOptions(normalization=CAFFE))
    assert caplog.text == ""
