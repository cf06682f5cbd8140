"""Attention as it is quickest to learn."""

import math
from typing import Any

from keras import layers, ops


class SelfAttention(layers.MultiHeadAttention):
    """Keras' attention of tokens to each other, with projections that are quicker to learn.

    On TensorFlow those of Keras multiply image by image, and have a gradient of the whole matrix
    for each image. While training, these multiply all tokens of the batch at once; the sums are
    the same. At inference it is Keras' own, which is what other exporters shall find. No masks.
    """

    def call(self, query: Any, value: Any, key: Any = None, training: bool | None = None) -> Any:
        """Returns tokens of the shape of ``query``."""
        if not training:
            return super().call(query, value, key)
        heads, _ = self._compute_attention(
            self._projected(self.query_dense, query, 1),
            self._projected(self.key_dense, value if key is None else key, 1),
            self._projected(self.value_dense, value, 1),
            training=True,
        )
        return self._projected(self.output_dense, heads, 2)

    @staticmethod
    def _projected(dense: Any, tokens: Any, axes: int) -> Any:
        """Returns the tokens times a matrix whose first axes are the tokens' last ones."""
        kernel = dense.kernel
        given, made = kernel.shape[:axes], kernel.shape[axes:]
        rows = ops.reshape(tokens, (-1, math.prod(given)))
        products = ops.matmul(rows, ops.reshape(kernel, (-1, math.prod(made))))
        return ops.reshape(products, (-1, tokens.shape[1], *made)) + dense.bias
