"""Tokenizer, position embedding and pooling of a Compact Convolutional Transformer.

They run on any Keras backend. Architecture: Hassani et al., "Escaping the Big Data Paradigm with
Compact Transformers", arXiv:2104.05704; its transformer blocks are in ``model.blocks``.

Saved files hold weights by the names of a layer's attributes, and registered objects by class name:
neither may change.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from cct_export.model.fake_quantize import fake_quantized
from cct_export.specs import JSONObject

# The batch axis is None where it may have any size.
Shape = tuple[Any, ...]

PACKAGE = "cct_export"


@keras.saving.register_keras_serializable(PACKAGE)
class ConvTokenizer(layers.Layer):
    """Turns an image into a sequence of tokens by convolutions.

    Each stage is zero padding, a VALID convolution without bias, ReLU, one pixel of zero padding,
    and a 3×3 max pool of stride 2: with SAME padding in the keras.io example, without in the
    paper's code. (The paper's pool pads with minus infinity; after a ReLU zeros are the same.)

    Args:
        filters: output channels of each stage.
        kernel: size of the convolutions.
        stride: of the convolutions.
        margin: zeros on each side of a convolution's input.
        border: padding of the pools, ``keras`` or ``paper``.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(
        self,
        filters: Sequence[int],
        kernel: int = 3,
        stride: int = 1,
        margin: int = 0,
        border: str = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.kernel, self.stride, self.margin, self.border = kernel, stride, margin, border
        self.convolutions = [
            layers.Conv2D(
                units,
                kernel,
                stride,
                padding="valid",
                use_bias=False,
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv_{index}",
            )
            for index, units in enumerate(self.filters)
        ]
        self.frame = layers.ZeroPadding2D(margin) if margin else None
        self.padding = layers.ZeroPadding2D(1)
        self.pooling = layers.MaxPooling2D(3, 2, padding="same" if border == "keras" else "valid")

    def build(self, input_shape: Shape) -> None:
        """Builds the convolutions for images of ``(batch, height, width, channels)``."""
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            padded = shape if self.frame is None else self.frame.compute_output_shape(shape)
            convolution.build(padded)
            shape = self._stage_shape(convolution, shape)
        self.built = True

    def _stage_shape(self, convolution: Any, shape: Shape) -> Shape:
        if self.frame is not None:
            shape = self.frame.compute_output_shape(shape)
        shape = self.padding.compute_output_shape(convolution.compute_output_shape(shape))
        pooled: Shape = self.pooling.compute_output_shape(shape)
        return pooled

    def call(self, images: Any) -> Any:
        """Returns tokens ``(batch, tokens, filters[-1])`` of images scaled to 0–1."""
        x = images
        for convolution in self.convolutions:
            padded = x if self.frame is None else self.frame(x)
            # Behind the pool, which rounding may change places with, there is less to round.
            x = fake_quantized(self.pooling(self.padding(convolution(padded))))
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, tokens, filters[-1])``."""
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            shape = self._stage_shape(convolution, shape)
        return (shape[0], shape[1] * shape[2], shape[3])

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {
            **super().get_config(),
            "filters": list(self.filters),
            "kernel": self.kernel,
            "stride": self.stride,
            "margin": self.margin,
            "border": self.border,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class PositionEmbedding(layers.Layer):
    """Adds a vector to each token; shape-preserving.

    Args:
        kind: ``learnable``, or ``sine`` for the fixed table of ``sine_table``. The fixed table is
            an untrainable weight, so that files of both kinds have the same variables.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, kind: str = "learnable", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def build(self, input_shape: Shape) -> None:
        """Creates the table ``(tokens, width)``."""
        sine = self.kind == "sine"
        # Keras passes shape and dtype to a function that initializes.
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=tuple(input_shape[1:]),
            initializer=(lambda shape, dtype: ops.convert_to_tensor(sine_table(*shape), dtype))
            if sine
            else "glorot_uniform",
            trainable=not sine,
        )
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns ``tokens`` plus the table."""
        return fake_quantized(tokens + self.embeddings)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``input_shape``."""
        return tuple(input_shape)

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {**super().get_config(), "kind": self.kind}


def sine_table(tokens: int, width: int) -> NDArray[np.float64]:
    """Returns the position table of arXiv:1706.03762 as the paper's code computes it.

    Row p, column i: ``sin(p / 10000^(2⌊i/2⌋ / width))`` in even columns, the cosine in odd ones.
    """
    columns = np.arange(width)
    angles = np.arange(tokens)[:, None] / 10000 ** (2 * (columns // 2) / width)
    return np.where(columns % 2, np.cos(angles), np.sin(angles))


@keras.saving.register_keras_serializable(PACKAGE)
class SequencePooling(layers.Layer):
    """Averages the tokens with learned attention weights (section 3.2 of the paper)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = layers.Dense(1, name="attention")

    def build(self, input_shape: Shape) -> None:
        """Builds the scoring layer for tokens of ``(batch, tokens, width)``."""
        self.attention.build(tuple(input_shape))
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns ``(batch, width)``: the mean of the tokens, weighted by a softmax of scores."""
        tokens = fake_quantized(tokens)
        weights = fake_quantized(ops.softmax(fake_quantized(self.attention(tokens)), axis=1))
        mean = ops.matmul(ops.transpose(weights, (0, 2, 1)), tokens)
        return fake_quantized(ops.squeeze(mean, 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, width)``."""
        return (input_shape[0], input_shape[2])
