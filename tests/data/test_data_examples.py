"""Reading ``tf.train.Example`` without TensorFlow, against TensorFlow."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards import example, imagenet, png, write

from cct_export import data
from cct_export.data import examples
from cct_export.data.examples import Malformed, Span
from cct_export.errors import InvalidData


class Memory:
    """Bytes in memory, as what is read is read from."""

    def __init__(self, content):
        self.content = content

    def at(self, position, count):
        return self.content[position : position + count]


INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = (
    st.lists(INT64, min_size=1, max_size=5)
    | st.lists(st.binary(max_size=300), min_size=1, max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4)
)


def _read(content, wanted):
    """Returns what ``examples`` finds, as values."""
    source = Memory(content)
    found = examples.features(source, Span(0, len(content)), wanted)
    values = {}
    for name, feature in found.items():
        if feature.kind == examples.INT64:
            values[name] = examples.integers(source, feature)
        elif feature.kind == examples.BYTES:
            spans = examples.texts(source, feature)
            values[name] = [content[span.start : span.end] for span in spans]
    return values


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(["a", "b", "ü", "image", "x" * 63]), VALUES))
def test_every_feature_is_read_as_tensorflow_wrote_it(features):
    content = example(**features)
    expected = {name: value for name, value in features.items() if not isinstance(value[0], float)}
    assert _read(content, tuple(features)) == expected


def test_what_is_not_wanted_is_not_read():
    assert _read(example(a=1, b=b"x"), ("b", "c")) == {"b": [b"x"]}


def test_the_last_of_two_messages_counts_as_in_protobuf():
    import tensorflow as tf

    content = example(a=1, b=2) + example(a=3)
    theirs = tf.train.Example.FromString(content).features.feature
    assert _read(content, ("a", "b")) == {
        name: list(theirs[name].int64_list.value) for name in ("a", "b")
    }


def test_a_list_that_is_not_packed_and_a_value_before_its_key_are_read():
    import tensorflow as tf

    # Entry: value (field 2) with an Int64List of two single varints, then key (field 1).
    value = b"\x12\x06" + b"\x1a\x04" + b"\x08\x05\x08\x07"
    entry = value + b"\x0a\x01a"
    features = b"\x0a" + bytes([len(entry)]) + entry
    content = b"\x0a" + bytes([len(features)]) + features
    theirs = tf.train.Example.FromString(content).features.feature
    assert list(theirs["a"].int64_list.value) == [5, 7]
    assert _read(content, ("a",)) == {"a": [5, 7]}


@settings(deadline=None, max_examples=300)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    kept=st.floats(0.05, 1),
)
def test_a_damaged_message_is_read_or_refused_and_never_crashes(changes, kept):
    damaged = bytearray(imagenet(b"picture" * 9, 7, b"cat"))
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    try:
        found = _read(bytes(damaged[: round(kept * len(damaged))]), ("image/encoded",))
    except Malformed as error:
        assert str(error)
    else:
        assert set(found) <= {"image/encoded"}


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
    kept=st.floats(0, 1),
)
def test_a_damaged_shard_is_read_or_refused_and_never_crashes(shard, changes, kept):
    path, content = shard
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    path.write_bytes(damaged[: round(kept * len(damaged))])
    try:
        dataset = data.read(str(path), (4, 4, 3))
        for split in (dataset.train, dataset.test):
            assert len(split.images(range(len(split.labels)))) == len(split.labels)
    except InvalidData as error:
        assert "damaged.tfrecord" in str(error)
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("scratch") / "damaged.tfrecord"
    write(path, [imagenet(png(i), i, b"cat") for i in range(4)])
    return path, path.read_bytes()
