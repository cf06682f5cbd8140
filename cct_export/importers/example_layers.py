"""The keras.io example's own layers, for files that name them without their code.

Keras finds weights in a file by the names of classes and attributes, so they are the example's.
What a model was read with is saved with it: a model of these layers can be saved and read again.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from cct_export.model.layers import PACKAGE, Shape
from cct_export.specs import JSONObject


@keras.saving.register_keras_serializable(PACKAGE, "ExampleTokenizer")
class CCTTokenizer(layers.Layer):
    """Layers of a convolutional network; the pixels that remain are the tokens.

    Args:
        stages: the layers, or their configurations.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, stages: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv_model = keras.Sequential(
            [
                keras.saving.deserialize_keras_object(stage) if isinstance(stage, dict) else stage
                for stage in stages
            ]
        )

    def build(self, input_shape: Shape) -> None:
        """Builds the layers for images of ``(batch, height, width, channels)``."""
        self.conv_model.build(tuple(input_shape))
        self.built = True

    def call(self, images: Any) -> Any:
        """Returns tokens ``(batch, tokens, channels)``."""
        maps = self.conv_model(images)
        return ops.reshape(maps, (-1, maps.shape[1] * maps.shape[2], maps.shape[3]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, tokens, channels)``."""
        batch, height, width, channels = self.conv_model.compute_output_shape(tuple(input_shape))
        return (batch, height * width, channels)

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        stages = map(keras.saving.serialize_keras_object, self.conv_model.layers)
        return {**super().get_config(), "stages": list(stages)}


@keras.saving.register_keras_serializable(PACKAGE, "ExamplePositionEmbedding")
class PositionEmbedding(layers.Layer):
    """A table of a vector for each token.

    Args:
        adds: whether it returns the tokens plus the table; the example adds the table itself.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, adds: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.adds = adds

    def build(self, input_shape: Shape) -> None:
        """Creates the table ``(tokens, width)``."""
        self.position_embeddings = self.add_weight(name="embeddings", shape=tuple(input_shape[1:]))
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns the table for each image, ``(batch, tokens, width)``."""
        if self.adds:
            return tokens + self.position_embeddings
        return ops.broadcast_to(self.position_embeddings, ops.shape(tokens))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``input_shape``."""
        return tuple(input_shape)

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {**super().get_config(), "adds": self.adds}


@keras.saving.register_keras_serializable(PACKAGE, "ExampleSequencePooling")
class SequencePooling(layers.Layer):
    """The tokens' mean, weighted by a softmax of the scores of a dense layer.

    Args:
        use_bias: whether the scores have a bias.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = layers.Dense(1, use_bias=use_bias)

    def build(self, input_shape: Shape) -> None:
        """Builds the scoring layer for tokens of ``(batch, tokens, width)``."""
        self.attention.build(tuple(input_shape))
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns ``(batch, width)``."""
        weights = ops.transpose(ops.softmax(self.attention(tokens), axis=1), (0, 2, 1))
        return ops.squeeze(ops.matmul(weights, tokens), 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, width)``."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {**super().get_config(), "use_bias": self.attention.use_bias}


@keras.saving.register_keras_serializable(PACKAGE, "ExampleStochasticDepth")
class StochasticDepth(layers.Layer):
    """Drops branches while training, which a model that was read here does no more."""

    def call(self, branch: Any) -> Any:
        """Returns ``branch``."""
        return branch

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``input_shape``."""
        return tuple(input_shape)


CLASSES = {
    kind.__name__: kind
    for kind in (CCTTokenizer, PositionEmbedding, SequencePooling, StochasticDepth)
}
