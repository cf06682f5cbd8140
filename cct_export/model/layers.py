"""The layers of a Compact Convolutional Transformer, on any Keras backend.

Architecture: Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers",
arXiv:2104.05704, in the variant of the keras.io example "Compact Convolutional Transformers".
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from cct_export.model.attention import SelfAttention
from cct_export.specs import STOCHASTIC_DEPTHS

# The batch axis is None where it may be any.
Shape = tuple[Any, ...]

PACKAGE = "cct_export"
NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(PACKAGE)
def gelu_tanh(x: Any) -> Any:
    """Returns the tanh approximation of GELU (arXiv:1606.08415); keras.activations' is exact."""
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(PACKAGE)
def gelu_exact(x: Any) -> Any:
    """Returns GELU with the error function (arXiv:1606.08415)."""
    return ops.gelu(x, approximate=False)


_GELUS = {"tanh": gelu_tanh, "exact": gelu_exact}


@keras.saving.register_keras_serializable(PACKAGE)
class ConvTokenizer(layers.Layer):
    """Turns an image into a sequence of tokens by convolutions.

    Each stage is zero padding, a VALID convolution without bias, ReLU, one pixel of zero padding,
    and a 3×3 max pool of stride 2: with SAME padding in the keras.io example, without in the
    paper's code. (That lets its pool pad, with what never is the largest; behind a ReLU zeros are
    the same.)

    Args:
        filters: output channels of each stage.
        kernel: size of the convolutions.
        stride: of the convolutions.
        margin: zeros on each side of what a convolution reads.
        border: of the pools, ``keras`` or ``paper``.
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
            framed = shape if self.frame is None else self.frame.compute_output_shape(shape)
            convolution.build(framed)
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
            framed = x if self.frame is None else self.frame(x)
            x = self.pooling(self.padding(convolution(framed)))
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``(batch, tokens, filters[-1])``."""
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            shape = self._stage_shape(convolution, shape)
        return (shape[0], shape[1] * shape[2], shape[3])

    def get_config(self) -> dict[str, Any]:
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
        kind: ``learnable``, or ``sine`` for the fixed table of ``sine_table``. That is a weight
            too, which training does not change: files of both kinds have the same variables.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, kind: str = "learnable", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def build(self, input_shape: Shape) -> None:
        """Creates the table ``(tokens, width)``."""
        shape = tuple(input_shape[1:])
        sine = self.kind == "sine"
        # A constant as an initializer: Keras passes shape and dtype to a function.
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=shape,
            initializer=(lambda shape, dtype: ops.convert_to_tensor(sine_table(*shape), dtype))
            if sine
            else "glorot_uniform",
            trainable=not sine,
        )
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Returns ``tokens`` plus the table."""
        return tokens + self.embeddings

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``input_shape``."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns every constructor argument."""
        return {**super().get_config(), "kind": self.kind}


def sine_table(tokens: int, width: int) -> NDArray[np.float64]:
    """Returns the positions of arXiv:1706.03762 as the paper's code has them.

    Row p, column i: ``sin(p / 10000^(2⌊i/2⌋ / width))`` in even columns, the cosine in odd ones.
    """
    columns = np.arange(width)
    angles = np.arange(tokens)[:, None] / 10000 ** (2 * (columns // 2) / width)
    return np.where(columns % 2, np.cos(angles), np.sin(angles))


@keras.saving.register_keras_serializable(PACKAGE)
class StochasticDepth(layers.Layer):
    """Drops a whole residual branch while training (arXiv:1603.09382); at inference the identity.

    ``sample`` drops it for each sample by itself, and divides kept ones by the probability of
    keeping, so that the expectation is unchanged: the keras.io example's. ``sample-unscaled`` does
    not divide. ``batch`` drops it for the whole batch, and divides; on TensorFlow what is dropped
    is then not computed, see ``residual``.

    Args:
        rate: probability of dropping, 0 to below 1.
        mode: one of ``specs.STOCHASTIC_DEPTHS``.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, rate: float, mode: str = "sample", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be 0 to below 1, not {rate}")
        if mode not in STOCHASTIC_DEPTHS:
            raise ValueError(f"mode must be one of {STOCHASTIC_DEPTHS}, not {mode!r}")
        self.rate, self.mode = rate, mode
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, branch: Any, training: bool | None = None) -> Any:
        """Returns ``branch``, while training zero for a random part of the samples."""
        if not training or self.rate == 0:
            return branch
        samples = 1 if self.mode == "batch" else ops.shape(branch)[0]
        shape = (samples,) + (1,) * (len(branch.shape) - 1)
        scale = 1.0 if self.mode == "sample-unscaled" else 1.0 - self.rate
        return branch / scale * self._kept(shape, branch.dtype)

    def residual(self, x: Any, branch: Callable[[Any], Any], training: bool | None = None) -> Any:
        """Returns ``x`` plus what ``branch`` makes of it, if it is not dropped.

        Where the whole batch is dropped at once, TensorFlow computes the branch only if it is
        kept. Other backends compute it and throw it away: the state of dropout inside of it cannot
        leave a branch of theirs.
        """
        dropping = training and self.rate > 0 and self.mode == "batch"
        if not dropping or keras.backend.backend() != "tensorflow":
            return x + self(branch(x), training=training)
        kept = ops.cast(ops.squeeze(self._kept((1,), "float32")), "bool")
        return ops.cond(kept, lambda: x + branch(x) / (1.0 - self.rate), lambda: x)

    def _kept(self, shape: Shape, dtype: str) -> Any:
        """Returns ones, and zeros with the probability of dropping."""
        noise = keras.random.uniform(shape, seed=self.seed_generator, dtype=dtype)
        return ops.floor(1.0 - self.rate + noise)

    def get_config(self) -> dict[str, Any]:
        """Returns every constructor argument."""
        return {**super().get_config(), "rate": self.rate, "mode": self.mode}


class EncoderBlock(layers.Layer):
    """What the blocks of the keras.io example and of the paper are told, and say of themselves.

    Args:
        heads: attention heads.
        head_dim: width of one head's query, key and value.
        mlp_units: widths of the dense layers; the last must equal the width of the tokens.
        dropout: dropout rate.
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
        super().__init__(**kwargs)
        self.heads, self.head_dim, self.mlp_units = heads, head_dim, tuple(mlp_units)
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.stochastic_depth_mode = stochastic_depth_mode

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
            "stochastic_depth_mode": self.stochastic_depth_mode,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerBlock(EncoderBlock):
    """A pre-norm encoder block: attention and an MLP, each on a residual branch.

    The MLP applies GELU after every dense layer, the last included, as the keras.io example does.

    Args:
        heads: attention heads.
        head_dim: width of one head's query, key and value.
        mlp_units: widths of the dense layers; the last must equal the width of the tokens.
        dropout: dropout rate in attention and after each dense layer.
        stochastic_depth: rate at which each residual branch is dropped while training.
        stochastic_depth_mode: what is dropped at once, see ``StochasticDepth``.
        gelu: ``tanh`` for its approximation, ``exact`` for the error function.
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
        gelu: str = "tanh",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            heads, head_dim, mlp_units, dropout, stochastic_depth, stochastic_depth_mode, **kwargs
        )
        self.gelu = gelu
        self.attention_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name="attention_norm")
        self.attention = SelfAttention(heads, head_dim, dropout=dropout, name="attention")
        self.mlp_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, name="mlp_norm")
        self.mlp = [
            layers.Dense(units, activation=_GELUS[gelu], name=f"mlp_{index}")
            for index, units in enumerate(self.mlp_units)
        ]
        self.mlp_dropouts = [layers.Dropout(dropout) for _ in self.mlp_units]
        self.attention_depth = StochasticDepth(stochastic_depth, stochastic_depth_mode)
        self.mlp_depth = StochasticDepth(stochastic_depth, stochastic_depth_mode)

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

        def attended(x: Any) -> Any:
            x = self.attention_norm(x)
            return self.attention(x, x, training=training)

        def transformed(x: Any) -> Any:
            x = self.mlp_norm(x)
            for dense, dropout in zip(self.mlp, self.mlp_dropouts, strict=True):
                x = dropout(dense(x), training=training)
            return x

        tokens = self.attention_depth.residual(tokens, attended, training)
        return self.mlp_depth.residual(tokens, transformed, training)

    def get_config(self) -> dict[str, Any]:
        """Returns every constructor argument."""
        return {**super().get_config(), "gelu": self.gelu}


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
