"""The Compact Convolutional Transformer as a Keras model."""

import functools
from typing import Any

import keras
from keras import layers

from cct_export.model.blocks import PaperBlock, TransformerBlock
from cct_export.model.layers import PACKAGE, ConvTokenizer, PositionEmbedding, SequencePooling
from cct_export.specs import NORM_EPSILON, JSONObject, ModelSpec


@keras.saving.register_keras_serializable(PACKAGE)
class CCT(keras.Model):
    """An image classifier from raw pixels (0–255, NHWC) to logits.

    Rescaling is part of the model; augmentation is not, see ``training.augmentation``.

    Args:
        spec: the architecture; a ``ModelSpec``, or its ``to_dict`` form as stored in a file.
        **kwargs: passed to ``keras.Model`` (``name``).
    """

    def __init__(self, spec: ModelSpec | JSONObject, **kwargs: Any) -> None:
        if isinstance(spec, dict):
            spec = ModelSpec(**spec)
        size = spec.image_size
        image = layers.Input((size, size, spec.channels), name="image")
        x = layers.Rescaling(*spec.rescaling, name="rescaling")(image)
        x = ConvTokenizer(
            spec.filters, spec.kernel, spec.stride, spec.padding, spec.block, name="tokenizer"
        )(x)
        if spec.positional != "none":
            x = PositionEmbedding(spec.positional, name="position_embedding")(x)
        block: Any = PaperBlock
        if spec.block == "keras":
            block = functools.partial(TransformerBlock, gelu=spec.gelu)
        for index in range(spec.layers):
            x = block(
                spec.heads,
                spec.head_dim,
                spec.mlp_units,
                dropout=spec.dropout,
                stochastic_depth=spec.stochastic_depth * index / max(1, spec.layers - 1),
                stochastic_depth_mode=spec.stochastic_depth_mode,
                activation=spec.activation,
                name=f"block_{index}",
            )(x)
        x = layers.LayerNormalization(epsilon=NORM_EPSILON, name="norm")(x)
        x = SequencePooling(name="pooling")(x)
        logits = layers.Dense(spec.classes, name="logits")(x)
        kwargs.setdefault("name", spec.name)
        super().__init__(inputs=image, outputs=logits, **kwargs)
        self.spec = spec

    def get_config(self) -> JSONObject:
        """Returns every constructor argument."""
        return {"name": self.name, "trainable": self.trainable, "spec": self.spec.to_dict()}

    @classmethod
    def from_config(cls, config: JSONObject, custom_objects: Any = None) -> "CCT":
        """Returns a new model with the configuration that ``get_config`` returned."""
        trainable = config.pop("trainable", True)
        model = cls(**config)
        model.trainable = trainable
        return model
