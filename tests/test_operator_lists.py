"""What chips and engines for integers take: kinds, versions and types of operators."""

import pytest

from cct_export.operator_lists import OPERATOR_LISTS, OperatorUse

INT8, INT32, FLOAT = frozenset({"int8"}), frozenset({"int32"}), frozenset({"float32"})


@pytest.mark.parametrize(
    ("use", "edge_tpu", "hexagon", "tflm"),
    [
        (OperatorUse("CONV_2D", 3, INT8, INT8 | INT32), True, True, True),
        (OperatorUse("GELU", 2, INT8), False, True, False),
        (OperatorUse("BATCH_MATMUL", 2, INT8), False, True, True),
        (OperatorUse("ADD", 1, INT32, INT32), False, True, True),
        (OperatorUse("GATHER", 2, INT8 | INT32, INT8), False, True, True),
        (OperatorUse("HARD_SWISH", 1, frozenset({"int16"})), False, True, False),
        (OperatorUse("SQRT", 1, INT8), False, True, False),
        (OperatorUse("RSQRT", 2, INT8), False, True, True),
        (OperatorUse("SUB", 2, INT8), True, True, True),
        (OperatorUse("RELU6", 2, INT8), True, True, False),
        (OperatorUse("CUSTOM x", 1, INT8), False, False, False),
        (OperatorUse("FULLY_CONNECTED", 12, INT8, INT8), True, True, False),
        (OperatorUse("FULLY_CONNECTED", 5, FLOAT, FLOAT), False, True, True),
        (OperatorUse("FULLY_CONNECTED", 5, FLOAT, INT8), False, False, False),
    ],
)
def test_an_operator_is_taken_in_its_version_and_types(use, edge_tpu, hexagon, tflm):
    taken = {name: listed.takes(use) for name, listed in OPERATOR_LISTS.items()}
    assert taken == {"edge-tpu": edge_tpu, "hexagon": hexagon, "tflm": tflm}


def test_what_is_missing_is_named_once():
    uses = [OperatorUse("GELU", 2, INT8), OperatorUse("ADD", 2, INT8), OperatorUse("GELU", 2, INT8)]
    assert OPERATOR_LISTS["tflm"].missing(uses) == ["GELU (int8)"]


def test_every_list_names_its_source():
    assert all(listed.source.count(".") >= 1 for listed in OPERATOR_LISTS.values())


def test_an_operator_is_listed_or_unknown_and_the_table_shows_which(exports, in_process):
    for listed in OPERATOR_LISTS.values():
        assert not listed.unknown & listed.operators.keys()
    ended = in_process("export", "inspect", exports("tflite", "int8-full", "int8").path)
    assert ended.code == 0, ended.err
    rows = [line.split() for line in ended.out.splitlines()]
    cells = {row[0]: row[-3:] for row in rows if row and row[0] in ("RSQRT", "GELU", "SUB")}
    assert cells == {
        "RSQRT": ["?", "yes", "yes"], "GELU": ["no", "yes", "no"], "SUB": ["yes", "yes", "yes"],
    }  # fmt: skip
