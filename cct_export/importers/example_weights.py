"""The example, as it is or changed, built of what a file of weights alone says of it."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from cct_export.importers.example_file import Arrays, Content
from cct_export.importers.example_layers import CCTTokenizer, PositionEmbedding, SequencePooling
from cct_export.importers.example_tokenizer import EXAMPLE, Geometry, Stages, only
from cct_export.model.blocks import gelu_exact, gelu_tanh
from cct_export.model.checkpoint import without_memory
from cct_export.specs import NORM_EPSILON, ImportSpec
from cct_export.untrusted import Malformed

_PARTS = ("query_dense", "key_dense", "value_dense", "output_dense")
_POOLINGS = {
    "sequence_pooling": SequencePooling,
    "global_average_pooling1d": layers.GlobalAveragePooling1D,
    "global_max_pooling1d": layers.GlobalMaxPooling1D,
    "flatten": layers.Flatten,
}
# Where these are, follows from what they do, or they do nothing at inference.
_PLACED = (
    "input_layer", "resizing", "rescaling", "normalization", "cct_tokenizer", "position_embedding",
    "layer_normalization", "multi_head_attention", "stochastic_depth", "add", "dense", "dropout",
    "softmax", "sequential", "functional", *_POOLINGS,
)  # fmt: skip
_RANDOM = "random_"
# Usual sizes of images, in pixels.
_SIZES = (28, *range(8, 513, 8))
_DEFAULT_SIZE = 32


def model_of(
    content: Content, options: ImportSpec, *, scaled: bool
) -> tuple[keras.Model, tuple[str, ...]]:
    """Returns the model whose weights a file holds.

    Args:
        content: of the file.
        options: ``gelu``, and ``image_size`` where several fit.
        scaled: see ``keras_io.load_weights``.

    Returns:
        The model, and what was assumed, a line each.

    Raises:
        Malformed: the example's layers do not have such weights, or in another order.
    """
    _Builder(content).check()
    # Two small arrays may ask for a third one of any size.
    without_memory(lambda: _Builder(content).model(options, scaled=scaled))
    builder = _Builder(content)
    model = builder.model(options, scaled=scaled)
    for layer, arrays in builder.weights:
        layer.set_weights(arrays)
    return model, tuple(builder.notes)


class _Builder:
    """The layers of a file, those that are used, and what was assumed."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.layers = content.layers
        self.notes: list[str] = []
        self.weights: list[tuple[Any, list[np.ndarray]]] = []

    def check(self) -> None:
        """Raises ``Malformed`` with the name of what the example has not."""
        for kind, found in self.layers.items():
            if kind not in _PLACED and not kind.startswith(_RANDOM):
                names = [name for name in self.content.arrays if f"/{kind}" in f"/{name}"]
                raise Malformed(f"left over: {names[0] if names else kind}")
            if kind in ("cct_tokenizer", "position_embedding", "normalization") and len(found) > 1:
                raise Malformed(f"it has {len(found)} layers {kind}")
        if len(self._all("layer_normalization")) != 2 * len(self._all("multi_head_attention")) + 1:
            raise Malformed(
                f"it has {len(self._all('layer_normalization'))} layers layer_normalization for "
                f"{len(self._all('multi_head_attention'))} multi_head_attention"
            )

    def model(self, options: ImportSpec, *, scaled: bool) -> keras.Model:
        """Returns the model without its weights, in which every array of the file has a place."""
        stages = Stages(self.content.tokenizer, None, {})
        stages.check()
        size, geometry = self._image(stages, options)
        image = keras.Input((size, size, stages.kernels[0].shape[2]))
        x = self._front(image, scaled=scaled)
        tokenizer = CCTTokenizer(stages.layers(geometry))
        tokens = tokenizer(x)
        self.notes += stages.assumptions(geometry)
        in_order = zip(tokenizer.conv_model.layers, self._stage_arrays(stages), strict=True)
        self.weights += [(layer, arrays) for layer, arrays in in_order if arrays]
        if self._all("position_embedding"):
            table = PositionEmbedding()
            tokens = tokens + table(tokens)
            self.weights.append((table, _ordered(self._all("position_embedding")[0])))
        mlps, head = self._split_dense(int(tokens.shape[2]))
        activation = gelu_exact if options.gelu == "exact" else gelu_tanh
        norms_of_blocks = self._all("layer_normalization")[:-1]
        for norms, attention, mlp in zip(
            zip(norms_of_blocks[::2], norms_of_blocks[1::2], strict=True),
            self._all("multi_head_attention"),
            mlps,
            strict=True,
        ):
            tokens = layers.Add()(
                [self._attention(self._norm(tokens, norms[0]), attention), tokens]
            )
            x = self._norm(tokens, norms[1])
            for arrays in mlp:
                x = self._dense(x, arrays, activation)
            tokens = layers.Add()([x, tokens])
        x = self._pooled(self._norm(tokens, self._all("layer_normalization")[-1]))
        for arrays in head[:-1]:
            x = self._dense(x, arrays, "relu")
        x = self._dense(x, head[-1], None)
        x = self._end(x, extra=len(head) - 1)
        self._check_shapes()
        return keras.Model(image, x, name="cct_keras_io_import")

    def _all(self, kind: str) -> Sequence[Arrays]:
        return self.layers.get(kind, ())

    def _stage_arrays(self, stages: Stages) -> list[list[np.ndarray]]:
        """Returns the arrays of each layer of the tokenizer, in their order in it."""
        order = [
            kind
            for kind in ("conv2d", "batch_normalization", "re_lu", "zero_padding2d",
                         "max_pooling2d", "average_pooling2d")
            if kind in stages.kinds
        ]  # fmt: skip
        count = len(stages.kernels)
        return [list(stages.kinds[kind][index]) for index in range(count) for kind in order]

    def _image(self, stages: Stages, options: ImportSpec) -> tuple[int, Geometry]:
        """Returns the size of the images, and the settings of the tokenizer."""
        table = self._all("position_embedding")
        shapes = [array.shape for arrays in table for array in arrays.values()]
        if not shapes:
            size = options.image_size or _DEFAULT_SIZE
            if not options.image_size:
                self.notes.append(f"assumed: images of {size} pixels; the file has no positions")
            if not stages.is_like_the_examples:
                raise Malformed("its tokenizer is not the example's, and without positions nothing "
                                "tells its strides")  # fmt: skip
            return size, EXAMPLE
        tokens = shapes[0][0]
        sizes = (options.image_size,) if options.image_size else _SIZES
        fitting: dict[Geometry, int] = {}
        for geometry in stages.choices():
            sides = [
                size
                for size in sizes
                if (grid := stages.grid(geometry, size, size)) and math.prod(grid[:2]) == tokens
            ]
            if sides:
                fitting[geometry] = max(sides, key=lambda side: (side % 32 == 0, side))
        usual = stages.is_like_the_examples and EXAMPLE in fitting
        geometry = EXAMPLE if usual else only(fitting, f"{tokens} tokens of a square image")
        if not options.image_size:
            self.notes.append(f"assumed: square images, of {fitting[geometry]} pixels")
        return fitting[geometry], geometry

    def _front(self, image: Any, *, scaled: bool) -> Any:
        """Returns the pixels as the tokenizer gets them."""
        if self._all("resizing"):
            self.notes.append("assumed: images are resized as predict does, not by its Resizing")
        found = [arrays for arrays in self._all("normalization") if arrays]
        if self._all("normalization") and not found and not scaled:
            raise Malformed(
                "its Normalization has constants, which such a file does not hold: or export this "
                "one, and give --mean and --std, the root of its variance"
            )
        x = image
        if self._all("rescaling") and not scaled:
            self.notes.append(
                "assumed: Rescaling(1/255); exporting this file with --scale, --mean or --std sets "
                "another"
            )
            x = layers.Rescaling(1 / 255)(x)
        if not found:
            return x
        mean, variance = _ordered(found[0])[:2]
        channels = image.shape[3]
        if {mean.shape, variance.shape} - {(channels,), ()}:
            raise Malformed(f"its Normalization is of {mean.shape}, not of {channels} channels")
        if self._all("rescaling") and not scaled and float(np.max(mean)) > 1:
            raise Malformed(
                "its Normalization is of pixels beyond 0 to 1, and its Rescaling is not in the "
                "file: or export this one with --scale, --mean or --std for what is done before "
                "the Normalization"
            )
        self.notes.append(
            f"assumed: the Normalization of the file, mean {_text(mean)}, variance "
            f"{_text(variance)}, is right before the tokenizer"
        )
        return layers.Normalization(mean=mean, variance=variance)(x)

    def _norm(self, x: Any, arrays: Arrays) -> Any:
        layer = layers.LayerNormalization(epsilon=NORM_EPSILON)
        return self._called(layer, x, _ordered(arrays))

    def _dense(self, x: Any, arrays: Arrays, activation: Any) -> Any:
        ordered = _ordered(arrays)
        layer = layers.Dense(ordered[0].shape[1], activation, use_bias=len(ordered) > 1)
        return self._called(layer, x, ordered)

    def _called(self, layer: Any, x: Any, arrays: list[np.ndarray]) -> Any:
        self.weights.append((layer, arrays))
        return layer(x)

    def _attention(self, x: Any, arrays: Arrays) -> Any:
        query, value = (arrays[f"{part}/vars/0"] for part in ("query_dense", "value_dense"))
        layer = layers.MultiHeadAttention(
            query.shape[1],
            query.shape[2],
            value.shape[2],
            use_bias="query_dense/vars/1" in arrays,
        )
        ordered = [
            arrays[name]
            for part, index in itertools.product(_PARTS, (0, 1))
            if (name := f"{part}/vars/{index}") in arrays
        ]
        self.weights.append((layer, ordered))
        return layer(x, x)

    def _split_dense(self, width: int) -> tuple[list[Sequence[Arrays]], Sequence[Arrays]]:
        """Returns the dense layers of each block, and those of the head.

        Raises:
            Malformed: no number of them in a block makes blocks that keep the width, or several.
        """
        dense, blocks = self._all("dense"), len(self._all("multi_head_attention"))
        shapes = [_ordered(arrays)[0].shape for arrays in dense]
        if not dense:
            raise Malformed("it has no dense layer")
        if not blocks:
            return [], dense
        fitting = []
        for count in range(1, (len(dense) - 1) // blocks + 1):
            mlps = [shapes[start * count : (start + 1) * count] for start in range(blocks)]
            if all(mlp == mlps[0] and _keeps(mlp, width) for mlp in mlps):
                fitting.append(count)
        # One dense layer behind the blocks, or two in each of them, as in the example.
        usual = [count for count in fitting if count == 2 or len(dense) - blocks * count == 1]
        if len(usual or fitting) != 1:
            raise Malformed(
                f"its {len(dense)} dense layers do not tell which are in its {blocks} blocks"
            )
        count = (usual or fitting)[0]
        if len(fitting) > 1:
            self.notes.append(f"assumed: {count} dense layers in each block")
        split = [dense[start * count : (start + 1) * count] for start in range(blocks)]
        return split, dense[blocks * count :]

    def _pooled(self, tokens: Any) -> Any:
        found = [kind for kind in _POOLINGS if self._all(kind)]
        if len(found) != 1:
            raise Malformed(f"it has {' and '.join(found) or 'no layer'} to pool its tokens")
        if found[0] != "sequence_pooling":
            return _POOLINGS[found[0]]()(tokens)
        ordered = _ordered(self._all("sequence_pooling")[0])
        return self._called(SequencePooling(use_bias=len(ordered) > 1), tokens, ordered)

    def _end(self, x: Any, extra: int) -> Any:
        """Returns the outputs, after saying what the head is assumed to be."""
        if extra:
            self.notes.append("assumed: ReLU in the dense layers before the last one")
        if self._all("softmax"):
            return layers.Softmax()(x)
        self.notes.append(
            "assumed: it ends in a logit, not in a sigmoid"
            if x.shape[-1] == 1
            else "assumed: it ends in logits, not in sigmoids; exporting with --softmax appends a "
            "softmax"
        )
        return x

    def _check_shapes(self) -> None:
        """Raises ``Malformed`` for arrays that are left over, or not of the shape of a weight."""
        used = {id(array) for _, arrays in self.weights for array in arrays}
        for arrays in self._all("normalization"):
            used |= set(map(id, arrays.values()))
        unused = [name for name, array in self.content.arrays.items() if id(array) not in used]
        if unused:
            raise Malformed(f"left over: {', '.join(unused[:3])}")
        for layer, given in self.weights:
            shapes, expected = [x.shape for x in given], [tuple(x.shape) for x in layer.weights]
            if shapes != expected:
                raise Malformed(
                    f"{type(layer).__name__} has weights of {shapes} in place of {expected}"
                )
        self.notes.append(f"assumed: epsilon {NORM_EPSILON:g}, GELU in the blocks")


def _ordered(arrays: Arrays) -> list[np.ndarray]:
    """Returns the arrays of a layer in the order of its variables."""
    return [arrays[name] for name in sorted(arrays)]


def _keeps(shapes: Sequence[tuple[int, ...]], width: int) -> bool:
    """Returns whether dense layers of such kernels lead from a width to the same."""
    sizes = [width, *itertools.chain(*shapes), width]
    return all(before == after for before, after in zip(sizes[::2], sizes[1::2], strict=True))


def _text(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:g}" for number in np.atleast_1d(numbers))
