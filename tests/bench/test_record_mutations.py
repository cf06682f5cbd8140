"""Records of measurements that anyone may have changed: refused in one line, or shown."""

import copy
import json
import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_record import FAILED, FULL

from cct_export.bench import record
from cct_export.bench.protocol import Burst, Opened, PeakMemory, Processing, Scored
from cct_export.errors import InvalidData
from cct_export.records import BenchResult, Contract, ParityReport, sidecar
from cct_export.records.encoding import from_json
from cct_export.training.run import RunRecord
from cct_export.workers import Reply

ROWS = json.loads(json.dumps(record.to_dict([FULL, FULL, FAILED])))
# Texts of JSON; those that are no JSON have to be refused too.
NASTY = [
    "1e999", "-1e999", "NaN", "Infinity", "-0", "0", "-1", "2", "1" + "0" * 400, "1e300", "-1e300",
    "5e-324", "1e15", "true", "null", '""', '"x"', r'"\u001b[2J\u202e\ud800"', "[]", "[[]]", "{}",
    "[0]", "[null]", "1" * 5000,
]  # fmt: skip
DELETED, TWICE, MARK = "deleted", "twice", "@here@"
DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 7}


def places(node, above=()):
    """Yields where every value of a JSON document is."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


PLACES = [place for place in places(ROWS) if place[:2] != ("results", 0)]
mutations = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from([*NASTY, DELETED, TWICE])),
    min_size=1,
    max_size=2,
)


def mutated(changes):
    """Returns the text of the record with changes, each a place and what is there instead."""
    document, texts = copy.deepcopy(ROWS), []
    for place, text in changes:
        parent = document
        try:
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # where the change before took it away
        if text == DELETED:
            del parent[place[-1]]
        elif text == TWICE and isinstance(parent, list):
            parent.insert(place[-1], parent[place[-1]])
        elif text != TWICE:
            parent[place[-1]] = f"{MARK}{len(texts)}"
            texts.append(text)
    content = json.dumps(document)
    for index, text in enumerate(texts):
        content = content.replace(f'"{MARK}{index}"', text)
    return content


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=mutations)
def test_a_changed_record_is_refused_in_one_line_or_shown_everywhere(in_process, tmp_path, changes):
    good, changed = tmp_path / "good.json", tmp_path / "changed.json"
    good.write_text(json.dumps(ROWS))
    changed.write_text(mutated(changes))
    outputs = ["--html", tmp_path / "p.html", "--csv", tmp_path / "p.csv"]
    outputs += ["--markdown", tmp_path / "p.md", "--json", tmp_path / "p.json"]
    for arguments in (
        ("compare", changed, good),
        ("check", changed, "--baseline", good, "--any-machine"),
        ("check", good, "--baseline", changed, "--any-machine"),
    ):
        ended = in_process("bench", *arguments, *outputs)
        assert ended.code in DOCUMENTED, changes
        assert "this is a bug" not in ended.err, (changes, ended.err)
        assert "Traceback" not in ended.err
        if ended.code in (InvalidData.exit_code, 2):
            assert len(ended.err.splitlines()) == 1, ended.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["parity"].update(sqnr_db=None, finite=False), "parity.passed"),
        (lambda row: row["parity"].update(passed=False), "parity.passed"),
        (lambda row: row["parity"].update(top1_agreement=2), "top1_agreement"),
        (lambda row: row["parity"].update(samples=10**400), "samples"),
        (lambda row: row["runtime"].update(delegated_nodes=3, total_nodes=2), "delegated_nodes"),
        (lambda row: row["accuracy"].update(confusion=[[9, 9], [9, 9]]), "more than 2 images"),
        (lambda row: row["accuracy"].update(labels=["a"]), "accuracy.labels"),
        (lambda row: row["accuracy"].update(top5=0.1), "accuracy.top5"),
        (lambda row: row["accuracy"].update(top1_interval=[0.6, 0.9]), "outside of its interval"),
        (lambda row: row["accuracy"].update(top5_interval=None), "outside of its interval"),
        (lambda row: row["sustained"].update(interval_s=5e-324), "sustained.interval_s"),
        (lambda row: row["sustained"].update(p50_ms=[5e-324]), "sustained.p50_ms"),
        (lambda row: row["sustained"].update(temperature_c=[1e300]), "temperature_c"),
        (lambda row: row["conditions"].update(reconnections=10**400), "reconnections"),
        (lambda row: row["conditions"]["before"].update(load_1m=1e300), "load_1m"),
        (lambda row: row["conditions"].update(yardstick_ms=5e-324), "yardstick_ms"),
    ],
)
def test_figures_that_contradict_each_other_or_cannot_be_are_refused(tmp_path, change, message):
    document = copy.deepcopy(ROWS)
    change(document["results"][0])
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidData, match=message):
        record.read(path)


def test_more_rows_and_bursts_than_a_measurement_has_are_refused(tmp_path):
    path, row = tmp_path / "r.json", ROWS["results"][2]
    path.write_text(json.dumps(ROWS | {"results": [row] * 1001}))
    with pytest.raises(InvalidData, match="1,001 results: a record has 1,000 at most"):
        record.read(path)
    runs = 30_000
    uneven = {"times_ns": [9] * runs, "bursts": [[1]] * 20 + [[1] * (runs - 20)]}
    path.write_text(json.dumps(ROWS | {"results": [ROWS["results"][0] | uneven]}))
    with pytest.raises(InvalidData, match="bursts"):
        record.read(path)


def _leaves(node):
    """Yields the types of numbers that msgspec reads in a type."""
    if isinstance(node, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        yield node
    for name in ("types", "item_types"):
        for part in getattr(node, name, ()):
            yield from _leaves(part)
    for name in ("item_type", "value_type", "type"):
        if isinstance(part := getattr(node, name, None), msgspec.inspect.Type):
            yield from _leaves(part)


def _fields(node, seen):
    """Yields every dataclass in a type, with a numeric field and its type."""
    if isinstance(node, msgspec.inspect.DataclassType) and node.cls not in seen:
        seen.add(node.cls)
        for field in node.fields:
            yield from ((node.cls, field.name, leaf) for leaf in _leaves(field.type))
            yield from _fields(field.type, seen)
    for name in ("types", "item_types"):
        for part in getattr(node, name, ()):
            yield from _fields(part, seen)
    if isinstance(part := getattr(node, "item_type", None), msgspec.inspect.Type):
        yield from _fields(part, seen)


READ = [
    BenchResult, RunRecord, Contract, sidecar._EncodedGolden, sidecar._Header, Burst, Opened,
    PeakMemory, Processing, Reply, Scored,
]  # fmt: skip
# JSON has no number for these where logits are not finite; ``passed`` is not left to them.
MAY_BE_NAN = {(ParityReport, name) for name in ("max_abs", "mean_abs", "cosine", "sqnr_db")}
# Specs check themselves, see tests/test_bounds.py; of the data, only equality counts.
UNBOUNDED = {(RunRecord, "data")}


def test_every_number_that_is_read_has_bounds_that_nan_and_infinity_do_not_meet():
    seen, found = set(), []
    for kind in READ:
        found += _fields(msgspec.inspect.type_info(kind), seen)
    found = [item for item in found if "specs" not in item[0].__module__]
    assert len(found) > 60
    loose = {
        (cls, name)
        for cls, name, leaf in found
        if (leaf.ge is None and leaf.gt is None) or (leaf.le is None and leaf.lt is None)
    }
    assert loose - MAY_BE_NAN - UNBOUNDED == set()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -1, "1", True, None])
def test_a_reply_with_a_time_that_cannot_be_is_refused(value):
    with pytest.raises(ValueError, match="times_ns"):
        from_json({"times_ns": [value]}, Burst)


def test_a_report_with_nan_has_not_passed():
    fields = FULL.parity.to_dict() | {"sqnr_db": math.nan}
    del fields["passed"]
    assert not from_json(fields, ParityReport).passed
