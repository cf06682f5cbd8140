"""Transformer blocks: that of the keras.io example, and that of the paper's authors.

The example is "Compact Convolutional Transformers" on keras.io. In the paper's code
(arXiv:2104.05704) the heads share the width, only the last projection of attention has a bias, the
norm after attention is part of the residual stream, GELU is exact, and the last dense layer has no
activation.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from cct_export.model.fake_quantize import fake_quantized, is_on
from cct_export.model.layers import PACKAGE, Shape
from cct_export.specs import ACTIVATIONS, NORM_EPSILON, STOCHASTIC_DEPTH_MODES, JSONObject


@keras.saving.register_keras_serializable(PACKAGE)
def gelu_tanh(x: Any) -> Any:
    """Returns the tanh approximation of GELU (arXiv:1606.08415); keras.activations' is exact."""
    return ops.gelu(fake_quantized(x), approximate=True)


@keras.saving.register_keras_serializable(PACKAGE)
def gelu_exact(x: Any) -> Any:
    """Returns GELU with the error function (arXiv:1606.08415)."""
    return ops.gelu(fake_quantized(x), approximate=False)


_GELUS = {"tanh": gelu_tanh, "exact": gelu_exact}


class SelfAttention(layers.MultiHeadAttention):
    """Keras' multi-head self-attention, with projections that train faster.

    On TensorFlow the projections of Keras multiply image by image, and their gradient is a whole
    matrix for each image. While training, these multiply all tokens of the batch at once, with the
    same sums. At inference they are Keras' own, which other exporters expect. No masks.
    """

    def call(self, query: Any, value: Any, key: Any = None, training: bool | None = None) -> Any:
        """Returns tokens of the shape of ``query``."""
        if not training:
            return super().call(query, value, key)
        heads, _ = self._compute_attention(
            self._project(self.query_dense, query, 1),
            self._project(self.key_dense, value if key is None else key, 1),
            self._project(self.value_dense, value, 1),
            training=True,
        )
        return self._project(self.output_dense, heads, 2)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        mask: None = None,
        training: bool | None = None,
        *others: Any,
    ) -> Any:
        """Returns the heads' sums, and their weights or None; Keras calls it."""
        if not is_on():
            return super()._compute_attention(query, key, value, mask, training, *others)
        query, key, value = map(fake_quantized, (query * self._inverse_sqrt_key_dim, key, value))
        scores = fake_quantized(ops.einsum(self._dot_product_equation, key, query))
        weights = fake_quantized(self._masked_softmax(scores))
        kept = self._dropout_layer(weights, training=training) if self._dropout else weights
        return fake_quantized(ops.einsum(self._combine_equation, kept, value)), weights

    @staticmethod
    def _project(dense: Any, tokens: Any, input_axes: int) -> Any:
        """Returns the last ``input_axes`` axes of ``tokens`` times the kernel, plus the bias."""
        kernel = dense.kernel
        input_shape, output_shape = kernel.shape[:input_axes], kernel.shape[input_axes:]
        rows = ops.reshape(tokens, (-1, math.prod(input_shape)))
        products = ops.matmul(rows, ops.reshape(kernel, (-1, math.prod(output_shape))))
        return ops.reshape(products, (-1, tokens.shape[1], *output_shape)) + dense.bias


@keras.saving.register_keras_serializable(PACKAGE)
class StochasticDepth(layers.Layer):
    """Drops a whole residual branch while training (arXiv:1603.09382); at inference the identity.

    ``sample``, the keras.io example's, drops it for each sample by itself, and divides kept ones by
    the probability of keeping, so that the expectation is unchanged. ``sample-unscaled`` does not
    divide. ``batch`` drops it for the whole batch, and divides; on TensorFlow a dropped branch is
    then not computed, see ``residual``.

    Args:
        rate: probability of dropping, 0 to below 1.
        mode: one of ``specs.STOCHASTIC_DEPTH_MODES``.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, rate: float, mode: str = "sample", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be 0 to below 1, not {rate}")
        if mode not in STOCHASTIC_DEPTH_MODES:
            raise ValueError(f"mode must be one of {STOCHASTIC_DEPTH_MODES}, not {mode!r}")
        self.rate, self.mode = rate, mode
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, branch: Any, training: bool | None = None) -> Any:
        """Returns ``branch``; while training, zero for a random part of the samples."""
        if not training or self.rate == 0:
            return branch
        samples = 1 if self.mode == "batch" else ops.shape(branch)[0]
        shape = (samples,) + (1,) * (len(branch.shape) - 1)
        scale = 1.0 if self.mode == "sample-unscaled" else 1.0 - self.rate
        return branch / scale * self._keep_mask(shape, branch.dtype)

    def residual(self, x: Any, branch: Callable[[Any], Any], training: bool | None = None) -> Any:
        """Returns ``x + branch(x)``, or ``x`` where the branch is dropped.

        If the whole batch is dropped at once, TensorFlow skips the computation of the branch. Other
        backends compute and discard it: the state of dropout inside it cannot leave a conditional.
        """
        drops_batch = training and self.rate > 0 and self.mode == "batch"
        if not drops_batch or keras.backend.backend() != "tensorflow":
            return x + self(branch(x), training=training)
        keep = ops.cast(ops.squeeze(self._keep_mask((1,), "float32")), "bool")
        return ops.cond(keep, lambda: x + branch(x) / (1.0 - self.rate), lambda: x)

    def _keep_mask(self, shape: Shape, dtype: str) -> Any:
        """Returns ones, and zeros with the probability of dropping."""
        noise = keras.random.uniform(shape, seed=self.seed_generator, dtype=dtype)
        return ops.floor(1.0 - self.rate + noise)

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {**super().get_config(), "rate": self.rate, "mode": self.mode}


class EncoderBlock(layers.Layer):
    """What both kinds of blocks share: constructor arguments, and an MLP behind attention.

    Args:
        heads: attention heads.
        head_dim: width of one head's query, key and value.
        mlp_units: widths of the dense layers; the last must equal the width of the tokens.
        dropout: dropout rate.
        stochastic_depth: rate at which each residual branch is dropped while training.
        stochastic_depth_mode: which branches are dropped together, see ``StochasticDepth``.
        activation: of the MLP, ``gelu`` or ``relu``.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    gelu = "exact"
    attention_norm: Any
    mlp_norm: Any
    mlp: list[Any]

    def __init__(
        self,
        heads: int,
        head_dim: int,
        mlp_units: Sequence[int],
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        stochastic_depth_mode: str = "sample",
        activation: str = "gelu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, not {activation!r}")
        self.heads, self.head_dim, self.mlp_units = heads, head_dim, tuple(mlp_units)
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.stochastic_depth_mode = stochastic_depth_mode
        self.activation = activation

    def build(self, input_shape: Shape) -> None:
        """Builds the sublayers for tokens of ``(batch, tokens, width)``."""
        shape = tuple(input_shape)
        self.attention_norm.build(shape)
        self._build_attention(shape)
        self.mlp_norm.build(shape)
        for dense in self.mlp:
            dense.build(shape)
            shape = dense.compute_output_shape(shape)
        self.built = True

    def _build_attention(self, shape: Shape) -> None:
        raise NotImplementedError

    @property
    def mlp_function(self) -> Callable[[Any], Any]:
        """The activation function of the MLP."""
        gelu: Callable[[Any], Any] = _GELUS[self.gelu]
        return keras.activations.relu if self.activation == "relu" else gelu

    def _depth(self) -> StochasticDepth:
        return StochasticDepth(self.stochastic_depth, self.stochastic_depth_mode)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns ``input_shape``."""
        return tuple(input_shape)

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_dim": self.head_dim,
            "mlp_units": list(self.mlp_units),
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "stochastic_depth_mode": self.stochastic_depth_mode,
            "activation": self.activation,
        }


def _norm(name: str) -> Any:
    return layers.LayerNormalization(epsilon=NORM_EPSILON, name=name)


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerBlock(EncoderBlock):
    """The example's pre-norm block: attention and an MLP, each on a residual branch.

    The MLP applies its activation after every dense layer, the last included. Dropout is in
    attention and after each dense layer.

    Args:
        *args: see ``EncoderBlock``.
        gelu: ``tanh`` for its approximation, ``exact`` for the error function.
        **kwargs: see ``EncoderBlock``.
    """

    def __init__(self, *args: Any, gelu: str = "tanh", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gelu = gelu
        self.attention_norm = _norm("attention_norm")
        self.attention = SelfAttention(
            self.heads, self.head_dim, dropout=self.dropout, name="attention"
        )
        self.mlp_norm = _norm("mlp_norm")
        self.mlp = [
            layers.Dense(units, activation=self.mlp_function, name=f"mlp_{index}")
            for index, units in enumerate(self.mlp_units)
        ]
        self.mlp_dropouts = [layers.Dropout(self.dropout) for _ in self.mlp_units]
        self.attention_depth = self._depth()
        self.mlp_depth = self._depth()

    def _build_attention(self, shape: Shape) -> None:
        self.attention.build(shape, shape)

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Returns tokens of the same shape."""

        def attend(x: Any) -> Any:
            x = fake_quantized(self.attention_norm(x))
            return fake_quantized(self.attention(x, x, training=training))

        def transform(x: Any) -> Any:
            x = fake_quantized(self.mlp_norm(x))
            for dense, dropout in zip(self.mlp, self.mlp_dropouts, strict=True):
                x = dropout(fake_quantized(dense(x)), training=training)
            return x

        tokens = fake_quantized(self.attention_depth.residual(tokens, attend, training))
        return fake_quantized(self.mlp_depth.residual(tokens, transform, training))

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {**super().get_config(), "gelu": self.gelu}


def _truncated_normal() -> keras.initializers.Initializer:
    """Returns the authors' initializer: a normal distribution truncated at two deviations.

    Each matrix needs one of its own: an initializer of Keras returns the same values every time.
    """
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(PACKAGE)
class PaperBlock(EncoderBlock):
    """The paper's block: ``x + attention(norm(x))``, a norm of the sum, and an MLP on top of that.

    Dropout is in the attention weights alone.

    Args:
        *args: see ``EncoderBlock``; heads times head_dim is the width of the tokens.
        **kwargs: see ``EncoderBlock``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        width = self.heads * self.head_dim
        self.attention_norm = _norm("attention_norm")
        self.qkv = layers.Dense(
            3 * width, use_bias=False, kernel_initializer=_truncated_normal(), name="qkv"
        )
        self.attention_dropout = layers.Dropout(self.dropout)
        self.projection = layers.Dense(
            width, kernel_initializer=_truncated_normal(), name="projection"
        )
        self.mlp_norm = _norm("mlp_norm")
        last = len(self.mlp_units) - 1
        self.mlp = [
            layers.Dense(
                units,
                activation=None if index == last else self.mlp_function,
                kernel_initializer=_truncated_normal(),
                name=f"mlp_{index}",
            )
            for index, units in enumerate(self.mlp_units)
        ]
        self.attention_depth = self._depth()
        self.mlp_depth = self._depth()

    def _build_attention(self, shape: Shape) -> None:
        self.qkv.build(shape)
        self.projection.build(shape)

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Returns tokens of the same shape."""

        def attend(x: Any) -> Any:
            x = self._attention(fake_quantized(self.attention_norm(x)), training)
            return fake_quantized(x)

        def transform(x: Any) -> Any:
            for dense in self.mlp:
                x = fake_quantized(dense(x))
            return x

        tokens = fake_quantized(self.attention_depth.residual(tokens, attend, training))
        tokens = fake_quantized(self.mlp_norm(tokens))
        return fake_quantized(self.mlp_depth.residual(tokens, transform, training))

    def _attention(self, x: Any, training: bool | None) -> Any:
        """Returns multi-head self-attention (arXiv:1706.03762) of ``(batch, tokens, width)``."""
        count, width = x.shape[1:]
        qkv = fake_quantized(self.qkv(x))
        split = ops.reshape(qkv, (-1, count, 3, self.heads, self.head_dim))
        query, key, value = ops.unstack(ops.transpose(split, (2, 0, 3, 1, 4)), 3, axis=0)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / math.sqrt(self.head_dim)
        weights = fake_quantized(ops.softmax(fake_quantized(scores)))
        weights = self.attention_dropout(weights, training=training)
        sums = ops.transpose(fake_quantized(ops.matmul(weights, value)), (0, 2, 1, 3))
        return self.projection(ops.reshape(sums, (-1, count, width)))
