"""Small plans of other classifiers than a CCT, with every step that a CCT does not have."""

from dataclasses import replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.plan import Plan

UNEVEN = ((1, 0), (0, 1))


def _random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def conv(output, source, size, inputs, outputs, **fields):
    """A convolution whose outputs are about as large as its inputs."""
    kernel = _random(size, size, inputs, outputs) * np.sqrt(2 / (size * size * inputs))
    return steps.Conv(output, (source,), kernel, _random(outputs) / 8, **fields)


def dense(output, source, inputs, outputs, **fields):
    """A dense layer whose outputs are about as large as its inputs."""
    kernel = _random(inputs, outputs) / np.sqrt(inputs)
    return steps.Dense(output, (source,), kernel, _random(outputs) / 8, **fields)


def classifier(*middle, shape=(12, 10, 3), channels=32, pooled=True):
    """A plan: pixels to −1 … 1, a convolution ``c``, the steps ``middle``, a head.

    Args:
        middle: the first consumes ``c``, ``(height - 2, width - 2, 32)``; the last is called ``m``.
        shape: of the image.
        channels: of ``m``.
        pooled: whether ``m`` is pooled to its mean.
    """
    scale = steps.Scale("s", ("image",), np.full(1, 1 / 127.5), np.full(1, -1.0))
    head = [steps.GlobalPool("g", ("m",))] if pooled else []
    last = dense("logits", "g" if pooled else "m", channels, 5)
    return Plan(shape, (scale, conv("c", "s", 3, shape[2], 32, relu=False), *middle, *head, last))


def activation(function, output="m", source="c"):
    return steps.Activation(output, (source,), function)


def _pool(kind, pads, size=(3, 3), shape=(11, 11, 3)):
    relu = activation("relu", "r")
    pool = kind("p", ("r",), size, (2, 2), pads)
    return classifier(relu, pool, conv("m", "p", 1, 32, 32), shape=shape)


CLASSIFIERS = {
    **{function: classifier(activation(function)) for function in steps.ACTIVATIONS},
    "average pool": _pool(steps.AveragePool, steps.NO_PADS),
    "average pool, same": _pool(steps.AveragePool, ((1, 1), (1, 1))),
    "average pool, uneven": _pool(steps.AveragePool, UNEVEN),
    "max pool, uneven": _pool(steps.MaxPool, UNEVEN),
    "global maximum": classifier(
        activation("relu", "r"), steps.GlobalPool("m", ("r",), maximum=True), pooled=False
    ),
    "maximum of tokens": classifier(
        steps.Reshape("t", ("c",), (80, 32)),
        steps.GlobalPool("m", ("t",), maximum=True),
        pooled=False,
    ),
    "mean of tokens": classifier(
        steps.Reshape("t", ("c",), (80, 32)),
        dense("d", "t", 32, 64, relu=True),
        dense("m", "d", 64, 32, relu=True, ceiling=6.0),
    ),
    "channels in another order": classifier(
        steps.Gather("m", ("c",), tuple(np.random.default_rng(0).permutation(32)))
    ),
    "grey of two channels": classifier(steps.Gather("m", ("c",), (7, 7, 3)), channels=3),
    "batch normalization": classifier(
        steps.Scale("b", ("c",), 1 + _random(32) / 4, _random(32) / 4), activation("relu", "m", "b")
    ),
    "larger": classifier(steps.Resize("m", ("c",), (13, 17))),
    "smaller": classifier(steps.Resize("m", ("c",), (4, 3))),
    "residual": classifier(
        activation("relu", "r"),
        conv("d", "r", 3, 32, 32, relu=False, pads=((1, 1), (1, 1))),
        steps.Add("a", ("r", "d")),
        activation("relu6", "m", "a"),
    ),
    "gate": classifier(
        steps.GlobalPool("u", ("c",)),
        dense("e", "u", 32, 32),
        activation("hard-sigmoid", "h", "e"),
        steps.Reshape("w", ("h",), (1, 1, 32)),
        steps.Multiply("m", ("c", "w")),
    ),
    "clipped convolution": classifier(conv("m", "c", 3, 32, 32, ceiling=6.0)),
    "flat": classifier(
        activation("relu", "r"),
        steps.MaxPool("p", ("r",), (2, 2), (2, 2)),
        steps.Reshape("m", ("p",), (5 * 4 * 32,)),
        channels=640,
        pooled=False,
    ),
}


def _with_head(head):
    """A plan whose last step is ``head``, of scores."""
    *body, last = classifier(activation("silu")).steps
    return Plan((12, 10, 3), (*body, replace(last, output="scores"), head))


CLASSIFIERS["softmax at the end"] = _with_head(steps.Softmax("logits", ("scores",)))
CLASSIFIERS["sigmoid at the end"] = _with_head(activation("sigmoid", "logits", "scores"))
