"""A fold of convolutions into fewer multiplications, by Winograd's minimal filtering."""

import math

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import (
    Activation,
    Add,
    Concat,
    ConstantMatMul,
    Conv,
    Crop,
    Dense,
    Reshape,
    Scale,
    Shape,
    Step,
    Subtract,
    ZeroPad,
)

# F(2, 3) and F(4, 3): the transforms of a kernel and, for rows of pixels, of the image. Those of
# the image by columns, and of the outputs, are written as sums below.
_KERNEL_OF_2 = np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]])
_KERNEL_OF_4 = np.array([
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
])  # fmt: skip
_IMAGE_OF_4 = np.array([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_PRODUCTS = 6  # of four neighbouring outputs in a row
# What engines pay for writing a value and for reading a constant, in multiplications.
_COST_OF_VALUE = 8
_COST_OF_CONSTANT = 16
_CEILINGS = {math.inf: "relu", 6.0: "relu6"}


def winograd(plan: Plan) -> Plan:
    """Computes a convolution 3 × 3 of stride 1 with a third of its multiplications.

    Winograd's F(m, 3) gets m neighbouring outputs of a filter g of three taps from m + 2 products
    in place of 3 m: ``Aᵀ [(G g) ⊙ (Bᵀ d)]`` for the m + 2 inputs d, with small constant matrices
    A, B and G (arXiv:1509.09308). A convolution is a sum of such filters, so that it becomes, for
    tiles of 2 × 4 outputs, F(2, 3) by columns and F(4, 3) by rows: 24 products of matrices (tiles
    × channels, channels × outputs) in place of 72. ``G g Gᵀ`` is computed here.

    Transforming images and outputs costs additions and copies, and there are 24 weights for 9. The
    fold applies where it lowers the sum of all multiplications, 8 for each value that a step writes
    and 16 for each constant that it reads, which is what XNNPACK takes for them on one thread. That
    leaves alone few channels, maps of few tiles, and those that tiles do not cover evenly: of
    16 × 16 pixels, 64 channels in and out pay and 32 do not; of 512 channels, 14 × 14 pixels do and
    7 × 7 do not. Engines that have a Winograd convolution need none, and 8-bit integers are too
    coarse for the transforms.
    """
    replacements: dict[str, list[Step]] = {}
    for step in plan.steps:
        if not isinstance(step, Conv) or not _is_eligible(step):
            continue
        shape = plan.shapes[step.inputs[0]]
        expanded = _Expansion(step, shape).run()
        if _cost(expanded, step, shape) < _cost([step], step, shape):
            replacements[step.output] = expanded
    return plan.replace(replacements)


def _is_eligible(step: Conv) -> bool:
    return (
        step.kernel.shape[:2] == (3, 3)
        and step.strides == (1, 1)
        and (not step.relu or step.ceiling in _CEILINGS)
    )


def _cost(expanded: list[Step], conv: Conv, shape: Shape) -> int:
    """Returns what steps in place of a convolution cost, in multiplications."""
    shapes, cost = {conv.inputs[0]: shape}, 0
    for step in expanded:
        inputs = [shapes[name] for name in step.inputs]
        shapes[step.output] = step.shape(*inputs)
        if not isinstance(step, Reshape):
            constants = sum(array.size for array in step.arrays())
            cost += step.macs(*inputs)
            cost += _COST_OF_VALUE * math.prod(shapes[step.output])
            cost += _COST_OF_CONSTANT * constants
    return cost


class _Expansion:
    """The steps in place of a convolution.

    Args:
        conv: 3 × 3, with stride 1.
        shape: of its input, ``(height, width, channels)``.
    """

    def __init__(self, conv: Conv, shape: Shape) -> None:
        self._conv = conv
        self._shape = shape
        self._size = conv.shape(shape)
        # Tiles of 2 × 4 outputs: as many as cover the output.
        self._rows, self._columns = -(-self._size[0] // 2), -(-self._size[1] // 4)
        self._steps: list[Step] = []

    def run(self) -> list[Step]:
        """Returns the steps; the last one has the name of the convolution."""
        image = self._image_by_rows()
        filters = [self._outputs_of_2(image, index) for index in range(_PRODUCTS)]
        pairs = [
            self._outputs_of_4(label, list(products))
            for label, products in zip(("even", "odd"), zip(*filters, strict=True), strict=True)
        ]
        both = self._add(Concat, "pairs", *pairs)
        covered = (2 * self._rows, 4 * self._columns, self._size[2])
        if covered == self._size:
            self._add(Reshape, "", both, to=covered)
        else:
            whole = self._add(Reshape, "tiles", both, to=covered)
            self._add(Crop, "", whole, starts=(0, 0, 0), stops=self._size)
        return self._steps

    def _add(self, kind: type[Step], label: str, *inputs: str, **fields: object) -> str:
        output = f"{self._conv.output}/{label}" if label else self._conv.output
        self._steps.append(kind(output, inputs, **fields))
        return output

    def _image_by_rows(self) -> str:
        """Returns ``Bᵀ d`` of F(4, 3) for all rows, ``(pairs of rows, 2 · 6 · tiles · channels)``.

        The zeros around the image are zeros of the matrix, but for those above and below.
        """
        height, width, channels = self._shape
        (top, _), (left, _) = self._conv.pads
        matrix = np.zeros((_PRODUCTS, self._columns, width))
        for tile in range(self._columns):
            for pixel in range(_PRODUCTS):
                column = 4 * tile + pixel - left
                if 0 <= column < width:
                    matrix[:, tile, column] = _IMAGE_OF_4[:, pixel]
        (x,) = self._conv.inputs
        padded = 2 * (self._rows + 1)
        if padded != height:
            pads = ((top, padded - height - top), (0, 0))
            x = self._add(ZeroPad, "image_padded", x, pads=pads)
        x = self._add(ConstantMatMul, "image", x, matrix=matrix.reshape(-1, width))
        to = (padded // 2, 2 * _PRODUCTS * self._columns * channels)
        return self._add(Reshape, "image_pairs", x, to=to)

    def _image_of_2(self, image: str, index: int) -> list[str]:
        """Returns ``Bᵀ d`` of F(2, 3) for a product of F(4, 3), each ``(rows, tiles · channels)``.

        ``d₀ − d₂``, ``d₁ + d₂``, ``d₂ − d₁`` and ``d₁ − d₃`` for the rows d of two pairs.
        """
        size = self._columns * self._shape[2]
        d = []
        for row in range(4):
            start = (row % 2 * _PRODUCTS + index) * size
            starts, stops = (row // 2, start), (row // 2 + self._rows, start + size)
            d.append(self._add(Crop, f"{index}/row_{row}", image, starts=starts, stops=stops))
        return [
            self._add(Subtract, f"{index}/image_0", d[0], d[2]),
            self._add(Add, f"{index}/image_1", d[1], d[2]),
            self._add(Subtract, f"{index}/image_2", d[2], d[1]),
            self._add(Subtract, f"{index}/image_3", d[1], d[3]),
        ]

    def _outputs_of_2(self, image: str, index: int) -> tuple[str, str]:
        """Returns even and odd rows of one product of F(4, 3), ``(rows, tiles, outputs)``.

        ``m₀ + m₁ + m₂`` and ``m₁ − m₂ − m₃`` for the products m of F(2, 3).
        """
        column = np.einsum("b,hbco->hco", _KERNEL_OF_4[index], self._conv.kernel)
        kernels = np.einsum("ih,hco->ico", _KERNEL_OF_2, column)
        to = (self._rows, self._columns, self._shape[2])
        m = []
        for part, x in enumerate(self._image_of_2(image, index)):
            tiles = self._add(Reshape, f"{index}/tiles_{part}", x, to=to)
            # The outputs contain the second product of both filters once, and so its bias.
            bias = self._conv.bias if (index, part) == (1, 1) else None
            name = f"{index}/product_{part}"
            m.append(self._add(Dense, name, tiles, kernel=kernels[part], bias=bias))
        even = self._add(Add, f"{index}/even_part", m[0], m[1])
        odd = self._add(Subtract, f"{index}/odd_part", m[1], m[2])
        return (
            self._add(Add, f"{index}/even", even, m[2]),
            self._add(Subtract, f"{index}/odd", odd, m[3]),
        )

    def _outputs_of_4(self, label: str, m: list[str]) -> str:
        """Returns every other row of outputs, ``(rows, 4 · tiles · outputs)``.

        ``m₀ + s + t``, ``d + 2 e``, ``s + 4 t`` and ``d + 8 e + m₅`` for the products m of F(4, 3),
        where s and d are sum and difference of m₁ and m₂, and t and e those of m₃ and m₄.
        """

        def add(name: str, a: str, b: str, kind: type[Step] = Add) -> str:
            return self._add(kind, f"{label}/{name}", a, b)

        def times(name: str, x: str, factor: float) -> str:
            scale, shift = np.array([float(factor)]), np.zeros(1)
            return self._add(Scale, f"{label}/{name}", x, scale=scale, shift=shift)

        s, d = add("s", m[1], m[2]), add("d", m[1], m[2], Subtract)
        t, e = add("t", m[3], m[4]), add("e", m[3], m[4], Subtract)
        double = times("2e", e, 2)
        outputs = [
            add("output_0", add("m0+s", m[0], s), t),
            add("output_1", d, double),
            add("output_2", s, times("4t", t, 4)),
            add("output_3", add("d+m5", d, m[5]), times("8e", double, 4)),
        ]
        if self._conv.relu:
            function = _CEILINGS[self._conv.ceiling]
            outputs = [
                self._add(Activation, f"{label}/rectified_{i}", x, function=function)
                for i, x in enumerate(outputs)
            ]
        together = self._add(Concat, f"{label}/together", *outputs)
        to = (self._rows, 4 * self._columns * self._size[2])
        return self._add(Reshape, label, together, to=to)
