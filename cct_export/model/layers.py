"""The layers of a Compact Convolutional Transformer, on any Keras backend.

Architecture: Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers",
arXiv:2104.05704, in the variant of the keras.io example "Compact Convolutional Transformers".
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

# The batch axis is None where it may be any.
Shape = tuple[Any, ...]

PACKAGE = "cct_export"
NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(PACKAGE)
def gelu_tanh(x: Any) -> Any:
    """Returns the tanh approximation of GELU (arXiv:1606.08415); keras.activations' is exact."""
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(PACKAGE)
class ConvTokenizer(layers.Layer):
    """Turns an image into a sequence of tokens by convolutions.

    Each stage is a VALID convolution without bias, ReLU, one pixel of zero padding, and a 3×3 max
    pool of stride 2 with SAME padding.

    Args:
        filters: output channels of each stage.
        kernel: size of the convolutions.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, filters: Sequence[int], kernel: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.kernel = kernel
        self.convolutions = [
            layers.Conv2D(
                units,
                kernel,
                padding="valid",
                use_bias=False,
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv_{index}",
            )
            for index, units in enumerate(self.filters)
        ]
        self.padding = layers.ZeroPadding2D(1)
        self.pooling = layers.MaxPooling2D(3, 2, padding="same")

    def build(self, input_shape: Shape) -> None:
        """Builds the convolutions for images of ``(batch, height, width, channels)``."""
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            shape = self.pooling.compute_output_shape(self.padding.compute_output_shape(shape))
        self.built = True

    def call(self, images: Any) -> Any:
        """Returns tokens ``(batch, tokens, filters[-1])`` of images scaled to 0–1."""
        x = images
        for convolution in self.convolutions:
            x = self.pooling(self.padding(convolution(x)))
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, tokens, filters[-1])``."""
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            shape = convolution.compute_output_shape(shape)
            shape = self.pooling.compute_output_shape(self.padding.compute_output_shape(shape))
        return (shape[0], shape[1] * shape[2], shape[3])

    def get_config(self) -> dict[str, Any]:
        """Returns every constructor argument."""
        return {**super().get_config(), "filters": list(self.filters), "kernel": self.kernel}


@keras.saving.register_keras_serializable(PACKAGE)
class PositionEmbedding(layers.Layer):
    """Adds a learnable vector to each token; shape-preserving."""

    def build(self, input_shape: Shape) -> None:
        """Creates the table ``(tokens, width)``."""
        self.embeddings = self.add_weight(
            name="embeddings", shape=tuple(input_shape[1:]), initializer="glorot_uniform"
        )
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns ``tokens`` plus the table."""
        return tokens + self.embeddings


@keras.saving.register_keras_serializable(PACKAGE)
class StochasticDepth(layers.Layer):
    """Drops a whole residual branch per sample while training (arXiv:1603.09382).

    Kept branches are divided by the probability of keeping, so the expectation is unchanged; at
    inference it is the identity.

    Args:
        rate: probability of dropping, 0 to below 1.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be 0 to below 1, not {rate}")
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, branch: Any, training: bool | None = None) -> Any:
        """Returns ``branch``, while training zero for a random part of the samples."""
        if not training or self.rate == 0:
            return branch
        keep = 1.0 - self.rate
        shape = (ops.shape(branch)[0],) + (1,) * (len(branch.shape) - 1)
        noise = keras.random.uniform(shape, seed=self.seed_generator, dtype=branch.dtype)
        return branch / keep * ops.floor(keep + noise)

    def get_config(self) -> dict[str, Any]:
        """Returns every constructor argument."""
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerBlock(layers.Layer):
    """A pre-norm encoder block: attention and an MLP, each on a residual branch.

    The MLP applies tanh-GELU after every dense layer, the last included, as the keras.io example
    does.

    Args:
        heads: attention heads.
        head_dim: width of one head's query, key and value.
        mlp_units: widths of the dense layers; the last must equal the width of the tokens.
        dropout: dropout rate in attention and after each dense layer.
        stochastic_depth: rate at which each residual branch is dropped while training.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        mlp_units: Sequence[int],
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.head_dim = head_dim
        self.mlp_units = tuple(mlp_units)
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.attention_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name="attention_norm")
        self.attention = layers.MultiHeadAttention(
            heads, head_dim, dropout=dropout, name="attention"
        )
        self.mlp_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name="mlp_norm")
        self.mlp = [
            layers.Dense(units, activation=gelu_tanh, name=f"mlp_{index}")
            for index, units in enumerate(self.mlp_units)
        ]
        self.mlp_dropouts = [layers.Dropout(dropout) for _ in self.mlp_units]
        self.attention_depth = StochasticDepth(stochastic_depth)
        self.mlp_depth = StochasticDepth(stochastic_depth)

    def build(self, input_shape: Shape) -> None:
        """Builds the sublayers for tokens of ``(batch, tokens, width)``."""
        shape = tuple(input_shape)
        self.attention_norm.build(shape)
        self.attention.build(shape, shape)
        self.mlp_norm.build(shape)
        for dense in self.mlp:
            dense.build(shape)
            shape = dense.compute_output_shape(shape)
        self.built = True

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Returns tokens of the same shape."""
        x = self.attention_norm(tokens)
        x = self.attention(x, x, training=training)
        tokens = tokens + self.attention_depth(x, training=training)
        x = self.mlp_norm(tokens)
        for dense, dropout in zip(self.mlp, self.mlp_dropouts, strict=True):
            x = dropout(dense(x), training=training)
        return tokens + self.mlp_depth(x, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``input_shape``."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns every constructor argument."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_dim": self.head_dim,
            "mlp_units": list(self.mlp_units),
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
        }


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
        weights = ops.softmax(self.attention(tokens), axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), tokens), 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, width)``."""
        return (input_shape[0], input_shape[2])
