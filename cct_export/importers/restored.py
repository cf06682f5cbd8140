"""A SavedModel as a Keras model: its function is a layer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from cct_export.errors import InvalidModel
from cct_export.importers.frozen import activations_of, scales_pixels
from cct_export.importers.preprocessing import black_and_white
from cct_export.model.checkpoint import check_largest
from cct_export.records.output import Activation

SIGNATURE = "serving_default"


class RestoredFunction(keras.layers.Layer):
    """A function of TensorFlow on images.

    Args:
        function: of a tensor of images; returns tensors by name.
        dtype: of the images that it takes.
        activations: what each output holds, in the order of their names.
        scales_pixels: see ``preprocessing.scales_pixels``.
    """

    def __init__(
        self,
        function: Callable[[Any], dict[str, Any]],
        *,
        dtype: Any,
        activations: tuple[Activation, ...],
        scales_pixels: bool | None,
    ) -> None:
        super().__init__(name="saved_model")
        self._function = function
        self._image_dtype = dtype
        self.output_activations = activations
        self.scales_pixels = scales_pixels

    def call(self, image: Any) -> dict[str, Any]:
        """Returns the outputs by name; images are float32 ``(N, H, W, C)``, 0–255."""
        import tensorflow as tf

        if isinstance(image, keras.KerasTensor):
            raise NotImplementedError("a SavedModel is not lowered")

        return self._function(tf.cast(image, self._image_dtype))


def restored(folder: Path) -> keras.Model:
    """Returns a functional model that computes what the signature of a SavedModel does.

    Args:
        folder: a SavedModel whose operators were checked: it is loaded and traced.

    Raises:
        InvalidModel: Keras runs on another backend, or TensorFlow cannot load it.
    """
    if keras.backend.backend() != "tensorflow":
        raise InvalidModel(
            f"{folder} is a program of TensorFlow, and Keras runs on {keras.backend.backend()}: "
            "start the process with KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    program = tf.saved_model.load(str(folder))  # its variables live as long as it does
    function = program.signatures[SIGNATURE]
    ((name, image),) = function.structured_input_signature[1].items()
    # Without calls of other functions, whose tensors could not be seen.
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    tensors = [tensor for op in frozen.graph.get_operations() for tensor in op.outputs]
    check_largest(max(map(_size, tensors)), folder)
    halves = {tensor.dtype for tensor in tensors} & {tf.float16, tf.bfloat16}
    if halves:
        raise InvalidModel(
            f"{folder} computes in {halves.pop().name}, and a SavedModel cannot be rebuilt in "
            "float32: save the model with model.save as .keras, and export that"
        )

    def run(images: Any) -> dict[str, Any]:
        return dict(program.signatures[SIGNATURE](**{name: images}))

    batch, *shape = image.shape
    layer = RestoredFunction(
        run,
        dtype=image.dtype,
        activations=activations_of(frozen),
        scales_pixels=scales_pixels(frozen, black_and_white(tuple(shape), batch)),
    )
    tensor = keras.Input(batch_shape=(batch, *shape), name="image")
    return keras.Model(tensor, layer(tensor), name=Path(folder).resolve().name)


def _size(tensor: Any) -> int:
    """Returns how many numbers of one image a tensor has, as far as its shape is known."""
    sizes = () if tensor.shape.rank is None else tensor.shape.as_list()
    return math.prod(size for size in sizes if size is not None)
