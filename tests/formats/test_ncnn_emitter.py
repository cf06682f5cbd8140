"""ncnn files of plans: ncnn computes what the steps do, in its own order of axes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import assert_same, random_images, random_plan, specs

from cct_export.errors import ConversionError
from cct_export.evaluation.parity import sqnr_db
from cct_export.formats import ncnn as writer
from cct_export.formats.ncnn_graph import Weights
from cct_export.graph import steps
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import scheme_of
from cct_export.quantize.statistics import collect
from cct_export.runtimes import ncnn as engine
from cct_export.runtimes.session import run
from cct_export.specs import ExportSpec

pytest.importorskip("ncnn", reason="ncnn is not installed: pip install 'cct-export[ncnn]'")
SPEC = ExportSpec("ncnn")
RANDOM = np.random.default_rng(0)


def logits_of(plan, images, folder):
    path = folder / "m.ncnn.param"
    path.write_bytes(writer.emit(plan, SPEC))
    (folder / "m.ncnn.bin").write_bytes(writer.weights(plan, SPEC))
    session = engine.open_session(path, trusted=True)
    try:
        return run(session, images)
    finally:
        session.close()


def normal(*shape):
    return RANDOM.normal(size=shape)


def plan_of(image_shape, *given):
    """A plan of ``given``, whose last step is called x, and five logits of all its values."""
    count = int(np.prod(Plan(image_shape, given).shapes["x"]))
    logits = (
        steps.Activation("squashed", ("x",), "tanh"),
        steps.Reshape("flat", ("squashed",), (count,)),
        steps.Dense("logits", ("flat",), normal(count, 5)),
    )
    return Plan(image_shape, (*given, *logits))


# Most steps get values of either sign, near to 1, of a map of which no two axes are equal.
SCALED = steps.Scale("s", ("image",), normal(3) / 99, normal(3))
MAP = (5, 7, 3)
TOKENS = (SCALED, steps.Reshape("t", ("s",), (7, 15)))
HEADS = (SCALED, steps.Reshape("h", ("s",), (3, 5, 7)))
ROWS, COLUMNS = ((1, 0), (2, 1)), ((0, 1), (1, 0))
KINDS = {
    "scale of one value": [steps.Scale("x", ("image",), np.array([0.02]), np.array([-1.0]))],
    "scale of every value": [steps.Scale("x", ("image",), normal(*MAP) / 99, normal(*MAP))],
    "convolution": [SCALED, steps.Conv("x", ("s",), normal(3, 2, 3, 4), normal(4), (2, 1), ROWS)],
    "convolution without ReLU": [SCALED, steps.Conv("x", ("s",), normal(2, 3, 3, 4), relu=False)],
    "convolution with ReLU6": [SCALED, steps.Conv("x", ("s",), normal(1, 1, 3, 8), ceiling=0.5)],
    "zero padding": [SCALED, steps.ZeroPad("x", ("s",), ROWS)],
    "max pool": [SCALED, steps.MaxPool("x", ("s",), (3, 2), (2, 2), COLUMNS)],
    "max pool that leaves a row": [SCALED, steps.MaxPool("x", ("s",), (2, 2), (2, 2))],
    "average pool": [SCALED, steps.AveragePool("x", ("s",), (3, 3), (2, 2), COLUMNS)],
    "global mean of a map": [SCALED, steps.GlobalPool("x", ("s",))],
    "global maximum of a map": [SCALED, steps.GlobalPool("x", ("s",), maximum=True)],
    "global mean of tokens": [*TOKENS, steps.GlobalPool("x", ("t",))],
    "global maximum of tokens": [*TOKENS, steps.GlobalPool("x", ("t",), maximum=True)],
    "larger map": [SCALED, steps.Resize("x", ("s",), (9, 8))],
    "smaller map": [SCALED, steps.Resize("x", ("s",), (3, 6))],
    "sum": [SCALED, steps.Add("x", ("s", "s"))],
    "sum of two orders of axes": [
        SCALED,
        steps.Transpose("t", ("s",), (1, 0, 2)),
        steps.Transpose("u", ("t",), (1, 0, 2)),
        steps.Add("x", ("s", "u")),
    ],
    "constant for tokens": [*TOKENS, steps.AddConstant("x", ("t",), normal(7, 15))],
    "constant for channels": [SCALED, steps.AddConstant("x", ("s",), normal(3))],
    "norm": [*TOKENS, steps.LayerNorm("x", ("t",), 1e-3, normal(15), normal(15))],
    "norm without weights": [*TOKENS, steps.LayerNorm("x", ("t",), 1e-6)],
    "norm without gamma": [*TOKENS, steps.LayerNorm("x", ("t",), 1e-6, None, normal(15))],
    "norm of a map": [SCALED, steps.LayerNorm("x", ("s",), 1e-3, normal(3), normal(3))],
    "parts of a norm": [
        *TOKENS,
        steps.Mean("m", ("t",)),
        steps.Subtract("c", ("t", "m")),
        steps.MeanSquare("v", ("c",)),
        steps.Rsqrt("i", ("v",), 1e-3),
        steps.Multiply("x", ("c", "i")),
    ],
    "parts of a softmax": [
        *TOKENS,
        steps.Maximum("m", ("t",)),
        steps.Subtract("d", ("t", "m")),
        steps.Exp("x", ("d",)),
    ],
    "dense layer": [*TOKENS, steps.Dense("x", ("t",), normal(15, 6), normal(6))],
    "dense layer with ReLU": [*TOKENS, steps.Dense("x", ("t",), normal(15, 6), relu=True)],
    "dense layer of a map": [SCALED, steps.Dense("x", ("s",), normal(3, 4), normal(4))],
    "dense layer of heads": [*HEADS, steps.Dense("x", ("h",), normal(7, 4), normal(4))],
    "gelu": [SCALED, steps.Gelu("x", ("s",), tanh=False)],
    "gelu by tanh": [SCALED, steps.Gelu("x", ("s",), tanh=True)],
    "softmax of a vector": [SCALED, steps.GlobalPool("g", ("s",)), steps.Softmax("x", ("g",))],
    "softmax of tokens": [*TOKENS, steps.Softmax("x", ("t",))],
    "softmax of heads": [*HEADS, steps.Softmax("x", ("h",))],
    "product": [*TOKENS, steps.MatMul("x", ("t", "t"), transpose_b=True)],
    "product of heads": [
        *HEADS,
        steps.Transpose("u", ("h",), (0, 2, 1)),
        steps.MatMul("x", ("h", "u")),
    ],
    "product with a constant": [*TOKENS, steps.ConstantMatMul("x", ("t",), normal(4, 7))],
    "constant with heads": [*HEADS, steps.ConstantMatMul("x", ("h",), normal(4, 5))],
    "order of channels": [SCALED, steps.Gather("x", ("s",), (2, 0, 1))],
    "order of values": [*TOKENS, steps.Gather("x", ("t",), (3, 0, 1, 1))],
    "slice of channels": [SCALED, steps.Slice("x", ("s",), 1, 3)],
    "slice of values": [*TOKENS, steps.Slice("x", ("t",), 4, 9)],
    "crop": [SCALED, steps.Crop("x", ("s",), (1, 2, 0), (4, 7, 2))],
    "concatenated maps": [SCALED, steps.Concat("x", ("s", "image", "s"))],
    "concatenated tokens": [*TOKENS, steps.Concat("x", ("t", "t"))],
    "tokens of a map": [SCALED, steps.Reshape("x", ("s",), (35, 3))],
    "other shape of a map": [SCALED, steps.Reshape("x", ("s",), (15, 7))],
    "attention": [
        *TOKENS,
        steps.Attention(
            "x", ("t",), 2, 0.3, *(steps.Projection(normal(15, 8), normal(8)) for _ in range(3)),
            steps.Projection(normal(8, 15), normal(15)),
        ),
    ],
    "attention to the tokens": [
        *TOKENS,
        steps.Attention(
            "x", ("t",), 2, 0.1, steps.Projection(normal(15, 30), normal(30)), None, None,
            steps.Projection(normal(30, 15), normal(15)),
        ),
    ],
    "sequence pool": [*TOKENS, steps.SequencePool("x", ("t",), normal(15), normal(1))],
    **{name: [SCALED, steps.Activation("x", ("s",), name)] for name in steps.ACTIVATIONS},
    **{
        f"transposed to {order}": [*HEADS, steps.Transpose("x", ("h",), order)]
        for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    },
}  # fmt: skip


@pytest.mark.parametrize("given", KINDS.values(), ids=KINDS)
def test_ncnn_computes_a_step_as_numpy_does(given, tmp_path):
    plan = plan_of(MAP, *given)
    images = random_images(plan)
    assert_same(logits_of(plan, images, tmp_path), evaluate(plan, images), 2e-5)


@settings(max_examples=8, deadline=None)
@given(specs(), st.integers(0, 2**16), st.sets(st.sampled_from(sorted(PASSES))))
def test_a_file_gives_the_logits_of_its_plan(tmp_path_factory, spec, seed, without):
    plan = random_plan(spec, seed)
    images = random_images(plan, 3)
    content = fold(plan, {*without, *writer.skipped_folds(SPEC)})
    actual = logits_of(content, images, tmp_path_factory.mktemp("ncnn"))
    assert_same(actual, evaluate(plan, images), 2e-4)


MATRIX = (*TOKENS, steps.AddConstant("u", ("t",), normal(7, 15)))
INTEGERS = {
    "convolution": [
        SCALED,
        steps.Conv("wide", ("s",), normal(1, 1, 3, 16), relu=False),
        steps.Conv("x", ("wide",), normal(3, 2, 16, 4), normal(4), (2, 1), ROWS),
    ],
    "dense layer": [*TOKENS, steps.Dense("x", ("t",), normal(15, 6), normal(6))],
    "dense layer without bias": [*TOKENS, steps.Dense("x", ("t",), normal(15, 6))],
    "dense layer with ReLU": [*TOKENS, steps.Dense("x", ("t",), normal(15, 6), relu=True)],
    "dense layer with ReLU6": [
        *TOKENS, steps.Dense("x", ("t",), normal(15, 6), relu=True, ceiling=0.5)
    ],
    "dense layer of a map": [SCALED, steps.Dense("x", ("s",), normal(3, 4), normal(4))],
    "dense layer of heads": [*HEADS, steps.Dense("x", ("h",), normal(7, 4), normal(4))],
    "product": [*MATRIX, steps.MatMul("x", ("t", "u"), transpose_b=True)],
    "product of columns": [
        *MATRIX, steps.Transpose("c", ("u",), (1, 0)), steps.MatMul("x", ("t", "c"))
    ],
}  # fmt: skip


@pytest.mark.parametrize("given", INTEGERS.values(), ids=INTEGERS)
def test_ncnn_computes_a_step_of_integers_as_the_simulation_does(given, tmp_path):
    plan = writer.legalize(plan_of(MAP, *given), SPEC)
    images = random_images(plan)
    quantized = quantize(plan, scheme_of("int8", "ncnn"), collect(plan, images, "random pixels"))
    assert quantized.configs["x"].inputs in ("static", "dynamic")
    actual, exact = logits_of(quantized, images, tmp_path), evaluate(plan, images)
    simulated = evaluate(quantized, images)
    # ncnn rounds halves away from zero, and gives rows of a first factor scales of their own.
    assert sqnr_db(simulated, actual) > 35
    assert abs(sqnr_db(exact, actual) - sqnr_db(exact, simulated)) < 6
    text = writer.emit(quantized, SPEC).decode()
    assert (" 8=1" if isinstance(plan.producer("x"), steps.Conv) else " 18=2") in text


def test_a_blob_that_several_layers_read_is_split(tmp_path):
    lines = writer.emit(plan_of(MAP, SCALED, steps.Add("x", ("s", "s"))), SPEC).decode().split("\n")
    (split,) = (line.split() for line in lines if line.startswith("Split"))
    assert split[2:4] == ["1", "2"]
    assert lines[1] == f"{len(lines) - 3} {len(lines) - 2}"  # layers, and one blob more: the split


def test_names_that_a_line_cannot_have_become_numbers(tmp_path):
    plan = plan_of(MAP, steps.Scale("my scale", ("image",), np.ones(1) / 99, np.zeros(1)),
                   steps.Gelu("x", ("my scale",), tanh=False))  # fmt: skip
    text = writer.emit(plan, SPEC).decode()
    assert "my scale" not in text
    assert "blob_1" in text
    images = random_images(plan)
    assert_same(logits_of(plan, images, tmp_path), evaluate(plan, images), 2e-5)


@pytest.mark.parametrize("count", [4, 5])
def test_float16_weights_end_at_four_bytes(count):
    stored = Weights(np.ones(count), type="float16").stored()
    assert stored[:4] == bytes.fromhex("476b3001")
    assert len(stored) == 4 + 2 * (count + count % 2)
    assert len(Weights(np.ones(count), tagged=False).stored()) == 4 * count


def test_steps_without_a_layer_are_named():
    plan = Plan(
        (4, 4, 3),
        (
            steps.Reshape("deep", ("image",), (2, 2, 4, 3)),
            steps.Reshape("flat", ("deep",), (48,)),
            steps.Dense("logits", ("flat",), np.ones((48, 2))),
        ),
    )
    with pytest.raises(ConversionError, match="no layer for deep, flat: export the model as"):
        writer.legalize(plan, SPEC)
