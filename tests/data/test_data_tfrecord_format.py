"""Reading ``tf.train.Example`` without TensorFlow, against TensorFlow."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards import example, imagenet, png, write

from cct_export import data
from cct_export.data import tfrecord_format
from cct_export.data.tfrecord_format import MalformedExample, Span
from cct_export.errors import InvalidData


class Memory:
    """A ``ByteSource`` in memory."""

    def __init__(self, content):
        self.content = content

    def read_at(self, position, count):
        return self.content[position : position + count]


INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = (
    st.lists(INT64, min_size=1, max_size=5)
    | st.lists(st.binary(max_size=300), min_size=1, max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4)
)


def _read(content, names):
    """Returns the values of the features with ``names``."""
    source = Memory(content)
    features = tfrecord_format.find_features(source, Span(0, len(content)), names)
    values = {}
    for name, feature in features.items():
        if feature.kind == tfrecord_format.INT64_LIST:
            values[name] = tfrecord_format.int64_values(source, feature)
        elif feature.kind == tfrecord_format.BYTES_LIST:
            spans = tfrecord_format.bytes_spans(source, feature)
            values[name] = [content[span.start : span.end] for span in spans]
    return values


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(["a", "b", "ü", "image", "x" * 63]), VALUES))
def test_every_feature_is_read_as_tensorflow_wrote_it(features):
    content = example(**features)
    expected = {name: value for name, value in features.items() if not isinstance(value[0], float)}
    assert _read(content, tuple(features)) == expected


def test_other_features_are_not_read():
    assert _read(example(a=1, b=b"x"), ("b", "c")) == {"b": [b"x"]}


def test_the_last_of_two_messages_wins_as_in_protobuf():
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


@settings(deadline=None, max_examples=200)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    kept=st.floats(0.05, 1),
)
def test_a_damaged_message_is_read_or_refused_and_never_crashes(changes, kept):
    damaged = bytearray(imagenet(b"image" * 9, 7, b"cat"))
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    try:
        features = _read(bytes(damaged[: round(kept * len(damaged))]), ("image/encoded",))
    except MalformedExample as error:
        assert str(error)
    else:
        assert set(features) <= {"image/encoded"}


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
