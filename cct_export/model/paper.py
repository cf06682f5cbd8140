"""The transformer of the paper's authors, where it is not that of the keras.io example.

Hassani et al., arXiv:2104.05704: attention is of heads that share the width, its projections but
for the last have no bias, the norm behind it is part of the residual stream, GELU is exact, and
the second dense layer has none.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from cct_export.model.layers import (
    NORM_EPSILON,
    PACKAGE,
    EncoderBlock,
    Shape,
    StochasticDepth,
    gelu_exact,
)


def _normal() -> keras.initializers.Initializer:
    """Returns what the authors begin with: a normal distribution cut off at two deviations.

    One for each matrix: an initializer of Keras gives the same values whenever it is asked.
    """
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(PACKAGE)
class PaperBlock(EncoderBlock):
    """An encoder block: ``x + attention(norm(x))``, a norm of the sum, and an MLP on top of that.

    Args:
        heads: attention heads.
        head_dim: width of one head; all of them make the width of the tokens.
        mlp_units: widths of the dense layers; the last must equal the width of the tokens.
        dropout: dropout rate of the attention weights.
        stochastic_depth: rate at which each residual branch is dropped while training.
        stochastic_depth_mode: what is dropped at once, see ``StochasticDepth``.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        mlp_units: Sequence[int],
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        stochastic_depth_mode: str = "sample",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            heads, head_dim, mlp_units, dropout, stochastic_depth, stochastic_depth_mode, **kwargs
        )
        width = heads * head_dim
        self.attention_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name="attention_norm")
        self.qkv = layers.Dense(3 * width, use_bias=False, kernel_initializer=_normal(), name="qkv")
        self.attention_dropout = layers.Dropout(dropout)
        self.projection = layers.Dense(width, kernel_initializer=_normal(), name="projection")
        self.mlp_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name="mlp_norm")
        last = len(self.mlp_units) - 1
        self.mlp = [
            layers.Dense(
                units,
                activation=None if index == last else gelu_exact,
                kernel_initializer=_normal(),
                name=f"mlp_{index}",
            )
            for index, units in enumerate(self.mlp_units)
        ]
        self.attention_depth = StochasticDepth(stochastic_depth, stochastic_depth_mode)
        self.mlp_depth = StochasticDepth(stochastic_depth, stochastic_depth_mode)

    def build(self, input_shape: Shape) -> None:
        """Builds the sublayers for tokens of ``(batch, tokens, width)``."""
        shape = tuple(input_shape)
        self.attention_norm.build(shape)
        self.qkv.build(shape)
        self.projection.build(shape)
        self.mlp_norm.build(shape)
        for dense in self.mlp:
            dense.build(shape)
            shape = dense.compute_output_shape(shape)
        self.built = True

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Returns tokens of the same shape."""

        def attended(x: Any) -> Any:
            return self._attend(self.attention_norm(x), training)

        def transformed(x: Any) -> Any:
            for dense in self.mlp:
                x = dense(x)
            return x

        tokens = self.attention_depth.residual(tokens, attended, training)
        tokens = self.mlp_norm(tokens)
        return self.mlp_depth.residual(tokens, transformed, training)

    def _attend(self, x: Any, training: bool | None) -> Any:
        """Returns multi-head self-attention (arXiv:1706.03762) of ``(batch, tokens, width)``."""
        count, width = x.shape[1:]
        apart = ops.reshape(self.qkv(x), (-1, count, 3, self.heads, self.head_dim))
        query, key, value = ops.unstack(ops.transpose(apart, (2, 0, 3, 1, 4)), 3, axis=0)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / math.sqrt(self.head_dim)
        weights = self.attention_dropout(ops.softmax(scores), training=training)
        sums = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return self.projection(ops.reshape(sums, (-1, count, width)))
