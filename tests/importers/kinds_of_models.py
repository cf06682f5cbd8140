"""Small classifiers of 16×16 images, as people build and save them."""

import keras
import numpy as np
from keras import layers, ops

SHAPE = (16, 16, 3)
IMAGES = np.random.default_rng(1).integers(0, 256, (8, *SHAPE)).astype(np.float32)


def features(image):
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    return layers.Flatten()(layers.MaxPooling2D()(x))


def plain(**settings):
    image = keras.Input(SHAPE, **settings)
    return keras.Model(image, layers.Dense(5)(features(image)))


def sequential(*others, **settings):
    parts = [layers.Rescaling(1 / 255), *others, layers.Flatten(), layers.Dense(5)]
    return keras.Sequential([keras.Input(SHAPE, **settings), *parts])


def list_of_one_input():
    image = keras.Input(SHAPE)
    return keras.Model([image], layers.Dense(5)(features(image)))


def dict_of_one_input():
    image = keras.Input(SHAPE, name="picture")
    return keras.Model({"picture": image}, layers.Dense(5)(features(image)))


def list_of_one_output():
    image = keras.Input(SHAPE)
    return keras.Model(image, [layers.Dense(5)(features(image))])


def dict_of_one_output():
    image = keras.Input(SHAPE)
    return keras.Model(image, {"scores": layers.Dense(5)(features(image))})


def _with_backbone(outputs, choose):
    inner = keras.Input(SHAPE)
    low = layers.Conv2D(4, 3)(inner)
    backbone = keras.Model(inner, outputs(low, layers.MaxPooling2D()(low)))
    image = keras.Input(SHAPE)
    maps = choose(backbone(layers.Rescaling(1 / 255)(image)))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(maps)))


def backbone_with_a_list():
    return _with_backbone(lambda low, high: [low, high], lambda maps: maps[1])


def backbone_with_a_dict():
    return _with_backbone(lambda low, high: {"high": high, "low": low}, lambda maps: maps["high"])


def backbone_on_a_dict():
    inner = keras.Input(SHAPE, name="picture")
    backbone = keras.Model({"picture": inner}, layers.Conv2D(4, 3)(inner))
    image = keras.Input(SHAPE)
    maps = backbone({"picture": layers.Rescaling(1 / 255)(image)})
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(maps)))


def under(policy, build=plain):
    """Returns a model that was built under a policy of Keras."""
    keras.config.set_dtype_policy(policy)
    try:
        return build()
    finally:
        keras.config.set_dtype_policy("float32")


def takes_integers():
    return plain(dtype="uint8")


def batch_of_one():
    return plain(batch_size=1)


def batch_of_four():
    return sequential(batch_size=4)


def reshape_to(batch):
    """Returns a model whose graph says how many images it takes."""
    image = keras.Input(SHAPE, batch_size=batch)
    x = ops.reshape(layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(image)), (batch, -1))
    return keras.Model(image, layers.Dense(5)(x))


class Subclassed(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.convolution = layers.Conv2D(4, 3)
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(5)

    def call(self, images, training=None):
        if isinstance(images, dict):
            images = images["picture"]
        return self.dense(self.flatten(self.convolution(images / 255.0)))


class SubclassedWithDict(Subclassed):
    def call(self, images):
        return {"scores": super().call(images)}


def subclassed():
    model = Subclassed()
    model(IMAGES[:1])
    return model


def subclassed_on_a_dict():
    model = Subclassed()
    model({"picture": IMAGES[:2]})
    return model


def subclassed_with_a_dict():
    model = SubclassedWithDict()
    model.predict(IMAGES[:2], verbose=0)
    return model


def sequential_of_unknown_size():
    model = keras.Sequential([layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(5)])
    model(IMAGES[:2])
    return model


# Kinds of models that compute in float32, each with one output of five classes.
KINDS = {
    build.__name__: build
    for build in (
        plain,
        sequential,
        list_of_one_input,
        dict_of_one_input,
        list_of_one_output,
        dict_of_one_output,
        backbone_with_a_list,
        backbone_with_a_dict,
        backbone_on_a_dict,
        takes_integers,
        batch_of_one,
        batch_of_four,
        subclassed,
        subclassed_on_a_dict,
        subclassed_with_a_dict,
        sequential_of_unknown_size,
    )
} | {"reshape_to_one": lambda: reshape_to(1)}


def outputs(model, images=IMAGES):
    """Returns the flat outputs of a model, called as it was built, in batches of its size."""
    inputs = getattr(model, "input", None) if getattr(model, "inputs", None) else None
    size = (model.inputs[0].shape[0] if getattr(model, "inputs", None) else None) or len(images)
    is_dict = isinstance(inputs, dict) or getattr(model, "_build_shapes_dict", None) == {
        "images_shape": {"picture": (2, *SHAPE)}
    }
    batches = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        given = {"picture": batch} if is_dict else [batch] if isinstance(inputs, list) else batch
        batches.append(keras.tree.flatten(model(given, training=False)))
    return [np.concatenate(list(map(np.asarray, parts))) for parts in zip(*batches, strict=True)]
