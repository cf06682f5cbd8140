"""Times of single operators: what is cut, what is subtracted, and what the engine tells."""

from collections import Counter

import numpy as np
import pytest

from cct_export.errors import EngineFailed, InvalidArtifact
from cct_export.inspection import inspect
from cct_export.runtimes import litert, litert_profile, onnxruntime, onnxruntime_profile, session
from cct_export.runtimes.litert_profile import BURST, affordable_rounds, operator_ms
from cct_export.runtimes.tflite_prefixes import prefixes
from cct_export.runtimes.timing import time_in_turn

MS = 1_000_000
SCHEMES = [("none", "float32"), ("fp16", "float32"), ("int8", "float32"), ("int8-full", "int8")]
PROFILES = {"tflite": litert_profile, "onnx": onnxruntime_profile}


def stock(folder, function, shape=(1, 8, 8, 3), **settings):
    """A file of TensorFlow's own converter."""
    import tensorflow as tf

    traced = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    for name, value in settings.items():
        setattr(converter, name, value)
    path = folder / "stock.tflite"
    path.write_bytes(converter.convert())
    return path


def weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def two_branches(x):
    """Two branches of a graph; the first is read when the second is done."""
    import tensorflow as tf

    first = tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 3, 4), 1, "SAME"))
    second = tf.nn.softmax(tf.nn.conv2d(x, weights(1, 1, 3, 4), 1, "SAME"))
    return tf.reduce_mean(first * tf.cumsum(second, 1), (1, 2))


def opened(content, threads=1):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def outputs_of(content, image):
    """Returns what a flatbuffer gives, by the name of the tensor."""
    interpreter = opened(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {end["name"]: interpreter.get_tensor(end["index"]) for end in details}


def kinds_in(content):
    nodes = opened(content)._get_ops_details()
    return [node["op_name"] for node in nodes if node["op_name"] != "DELEGATE"]


def an_image(path):
    engine = litert.open_session(path, trusted=True)
    shape = engine.image_shape
    pixels = np.random.default_rng(1).integers(0, 256, (1, *shape), np.uint8)
    return session.prepare(engine, pixels), engine


@pytest.mark.parametrize(("scheme", "io"), SCHEMES)
def test_every_prefix_runs_and_the_last_gives_the_logits_bit_by_bit(exports, scheme, io):
    path = exports("tflite", scheme, io).path
    image, whole = an_image(path)
    cuts = [cut.content for cut in prefixes(path.read_bytes())]
    for content in filter(None, cuts):
        found = outputs_of(content, image)
        assert all(np.isfinite(value).all() for value in found.values())
    (logits,) = found.values()
    assert cuts[-1] is not None
    np.testing.assert_array_equal(logits, whole.invoke(image))


@pytest.mark.parametrize(("scheme", "io"), SCHEMES)
def test_a_prefix_has_the_operators_up_to_its_own_and_none_of_the_rest(exports, scheme, io):
    path = exports("tflite", scheme, io).path
    wanted = [operator.kind for operator in inspect(path).operators]
    cuts = list(prefixes(path.read_bytes()))
    assert len(cuts) == len(wanted)
    for count, cut in enumerate(cuts, start=1):
        if cut.content is not None:
            assert kinds_in(cut.content) == wanted[:count]


def test_a_prefix_gives_what_is_read_later_so_that_no_branch_is_dropped(tmp_path):
    path = stock(tmp_path, two_branches)
    image, _ = an_image(path)
    kinds = [operator.kind for operator in inspect(path).operators]
    assert kinds == ["CONV_2D", "CONV_2D", "SOFTMAX", "CUMSUM", "MUL", "MEAN"]
    cuts = list(prefixes(path.read_bytes()))
    given = [outputs_of(cut.content, image) for cut in cuts]
    first = cuts[0].name
    assert [first in names for names in given] == [True] * 4 + [False] * 2
    assert all(cut.name in names for cut, names in zip(cuts, given, strict=True))
    assert [len(names) for names in given] == [1, 2, 2, 2, 1, 1]
    for names in given[1:4]:
        np.testing.assert_array_equal(names[first], given[0][first])


def test_a_tensor_in_the_middle_is_that_of_the_whole_file(tmp_path):
    path = stock(tmp_path, two_branches)
    image, whole = an_image(path)
    *_, before, last = prefixes(path.read_bytes())
    middle = outputs_of(before.content, image)[before.name]
    np.testing.assert_allclose(middle.mean((1, 2)), whole.invoke(image), rtol=1e-5)
    assert list(outputs_of(last.content, image)) == [last.name]


def test_decoded_weights_have_no_prefix_and_are_no_output(exports):
    path = exports("tflite", "fp16").path
    cuts = list(prefixes(path.read_bytes()))
    kinds = [operator.kind for operator in inspect(path).operators]
    missing = [kind for kind, cut in zip(kinds, cuts, strict=True) if cut.content is None]
    assert set(missing) == {"DEQUANTIZE"}
    assert len(missing) > 5
    decoded = {cut.name for cut in cuts if cut.content is None}
    for cut in cuts:
        if cut.content is not None:
            names = {end["name"] for end in opened(cut.content).get_output_details()}
            assert not names & decoded


def test_a_prefix_leaves_out_the_weights_behind_it(exports):
    content = exports("tflite").path.read_bytes()
    sizes = [len(cut.content) for cut in prefixes(content) if cut.content is not None]
    assert sizes == sorted(sizes)
    assert sizes[0] < len(content) / 4


def test_the_file_stays_as_it_is(exports):
    path = exports("tflite", "int8").path
    before, beside = path.read_bytes(), sorted(path.parent.iterdir())
    litert_profile.profile(path, 1, 1)
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == beside


@pytest.mark.parametrize(("scheme", "io"), SCHEMES)
def test_a_tflite_profile_has_every_operator_in_order_with_who_ran_it(exports, scheme, io):
    path = exports("tflite", scheme, io).path
    found, wanted = litert_profile.profile(path, 1, 1), inspect(path).operators
    assert [operator.kind for operator in found.operators] == [step.kind for step in wanted]
    delegated = [step.partition is not None for step in wanted]
    assert [operator.where == "xnnpack" for operator in found.operators] == delegated
    names = [operator.name for operator in found.operators]
    assert len(set(names)) == len(names)
    assert "tokenizer/0/conv" in names
    assert found.derived
    assert "slightly negative" in found.note


def test_an_operator_that_the_delegate_lacks_is_of_litert(tmp_path):
    found = litert_profile.profile(stock(tmp_path, two_branches), 2, 1).operators
    ran_by = {operator.kind: operator.where for operator in found}
    assert ran_by.pop("CUMSUM") == "litert"
    assert set(ran_by.values()) == {"xnnpack"}


def test_a_file_of_one_operator_has_its_whole_time(tmp_path):
    import tensorflow as tf

    path = stock(tmp_path, lambda x: tf.reduce_mean(x, (1, 2)))
    (only,) = litert_profile.profile(path, 1, 1).operators
    assert (only.kind, only.where) == ("MEAN", "xnnpack")
    assert only.ms > 0


def test_an_integer_file_of_the_stock_converter_is_profiled(tmp_path):
    import tensorflow as tf

    path = stock(
        tmp_path,
        lambda x: tf.reduce_mean(
            tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 3, 4), 1, "SAME")), (1, 2)
        ),
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([weights(1, 8, 8, 3)] for _ in range(3)),
        target_spec=tf.lite.TargetSpec(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8]),
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
    )
    kinds = [operator.kind for operator in litert_profile.profile(path, 1, 1).operators]
    assert kinds == [step.kind for step in inspect(path).operators]
    assert "CONV_2D" in kinds


def test_times_are_differences_of_medians_and_sum_up_to_the_whole():
    times = [(3 * MS, 1 * MS, 2 * MS), (5 * MS,) * 3, (4 * MS, 4 * MS, 90 * MS), (9 * MS,)]
    found = operator_ms(times)
    assert found == [2.0, 3.0, -1.0, 5.0]  # the third as it is, not clipped
    assert sum(found) == 9.0


def test_what_has_no_prefix_takes_no_time_and_moves_none():
    assert operator_ms([None, (2 * MS,), None, None, (3 * MS,)]) == [0.0, 2.0, 0.0, 0.0, 1.0]
    assert operator_ms([]) == []


class Part:
    """Takes the same time in every run, on a clock of its own making."""

    def __init__(self, clock, takes):
        self.clock, self.takes, self.count = clock, takes, 0

    def invoke(self, prepared):
        self.clock.now += self.takes
        self.count += 1


class Clock:
    """Nanoseconds that pass only when something runs."""

    now = 0

    def __call__(self):
        return self.now


def test_known_times_of_prefixes_give_those_of_the_operators(exports, monkeypatch):
    path = exports("tflite", "int8").path
    clock = Clock()
    opened = iter(range(1, 1000))
    monkeypatch.setattr(litert_profile, "_Part", lambda *_: Part(clock, next(opened) * MS))
    monkeypatch.setattr(
        litert_profile, "time_in_turn", lambda *a, **k: time_in_turn(*a, clock=clock, **k)
    )
    found = litert_profile.profile(path, 1, 10)
    moving = [c.content is not None for c in prefixes(path.read_bytes())]
    assert [operator.ms for operator in found.operators] == pytest.approx(
        [float(m) for m in moving]
    )
    assert found.runs == 10


@pytest.mark.parametrize(
    ("takes", "runs", "settle", "wanted"),
    [
        (MS, 100, 0, 100 // BURST),
        (MS, 101, 0, 100 // BURST + 1),
        (500 * MS, 100, 0, 3),  # each round takes 8 s
        (0, 100, 1000 * MS, 10),  # two that settle for a second
    ],
)
def test_there_are_fewer_rounds_where_all_would_take_too_long(takes, runs, settle, wanted):
    clock = Clock()
    parts = [Part(clock, takes), Part(clock, takes)]
    assert affordable_rounds(parts, None, runs, settle, clock) == wanted
    assert [part.count for part in parts] == [2, 2]


def test_untimed_runs_of_a_turn_go_on_as_long_as_asked_for():
    clock = Clock()
    part = Part(clock, MS)
    times = time_in_turn([part], [None], 2, 3, 1, clock, settle_ns=10 * MS)
    assert part.count == 2 * (10 + 3)
    assert times == [(MS,) * 6]


@pytest.mark.parametrize("format", PROFILES)
def test_a_broken_file_is_refused_in_one_line(exports, tmp_path, format):
    path = tmp_path / f"broken.{format}"
    path.write_bytes(exports(format).path.read_bytes()[:5000])
    with pytest.raises(InvalidArtifact) as error:
        PROFILES[format].profile(path, 1, 1)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    with pytest.raises(InvalidArtifact, match="no such file"):
        PROFILES[format].profile(tmp_path / f"missing.{format}", 1, 1)


@pytest.mark.parametrize(("scheme", "io"), [("none", "float32"), ("int8", "uint8")])
def test_an_onnx_profile_has_every_kernel_that_ran(exports, scheme, io):
    path = exports("onnx", scheme, io).path
    found = onnxruntime_profile.profile(path, 2, 3)
    counted = Counter(operator.kind for operator in found.operators)
    assert counted == onnxruntime_profile.kernels(path)
    assert {operator.where for operator in found.operators} == {"CPU"}
    assert found.operators[-1].name.startswith("logits")
    assert not found.derived
    assert found.runs == 3
    assert all(operator.ms >= 0 for operator in found.operators)


def test_an_onnx_profile_leaves_no_file(exports, tmp_path, monkeypatch):
    path = exports("onnx").path
    beside = sorted(path.parent.iterdir())
    monkeypatch.chdir(tmp_path)
    onnxruntime_profile.profile(path, 1, 1)
    assert not list(tmp_path.iterdir())
    assert sorted(path.parent.iterdir()) == beside


def node(name, kind, microseconds, index="0", provider="CPUExecutionProvider"):
    arguments = {"op_name": kind, "node_index": index, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": arguments}


END = {"cat": "Session", "name": "model_run", "dur": 1, "args": {}}


def test_runs_end_with_the_model_and_half_a_run_is_none():
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 9, "args": {}},
        node("a", "Conv", 1),
        {"cat": "Node", "name": "a_fence_before", "dur": 1, "args": {}},
        END,
        node("a", "Conv", 2),
        END,
        node("a", "Conv", 3),
    ]
    durations = [[event["dur"] for event in run] for run in onnxruntime_profile.runs_of(events)]
    assert durations == [[1], [2]]


def test_medians_are_of_operators_not_of_names():
    runs = [
        [node("a", "Conv", 100, "1"), node("a", "Add", 10, "2"), node("b", "Add", first, "3")]
        for first in (1, 5, 90)
    ]
    for run in runs[1:]:
        run[0] = node("a", "Conv", 300, "1")
    found = onnxruntime_profile.operators(runs)
    assert [(o.name, o.kind, o.ms, o.where) for o in found] == [
        ("a", "Conv", 0.3, "CPU"),
        ("a", "Add", 0.01, "CPU"),
        ("b", "Add", 0.005, "CPU"),
    ]


def test_an_operator_in_a_loop_has_the_time_of_all_its_rounds():
    (found,) = onnxruntime_profile.operators([[node("a", "Add", 2, provider="CUDA")] * 3])
    assert (found.ms, found.where) == (0.006, "CUDA")


def test_a_profile_that_lacks_runs_says_so(exports, monkeypatch):
    whole = onnxruntime_profile.runs_of
    monkeypatch.setattr(onnxruntime_profile, "runs_of", lambda events: whole(events)[:-1])
    with pytest.raises(EngineFailed, match="ask for fewer"):
        onnxruntime_profile.profile(exports("onnx").path, 1, 5)


def test_a_session_without_profile_writes_none(exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = onnxruntime.open_session(exports("onnx").path)
    engine.invoke(np.zeros((1, 32, 32, 3), np.float32))
    engine.close()
    assert not list(tmp_path.iterdir())
