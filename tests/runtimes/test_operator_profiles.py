"""Times of operators: from prefixes of TFLite files, and from ONNX Runtime's own profile."""

from collections import Counter

import numpy as np
import pytest
from stock_files import branched, convert, weights

from cct_export.api import inspect
from cct_export.errors import EngineFailed, InvalidArtifact, InvalidRequest
from cct_export.runtimes import (
    litert,
    litert_prefixes,
    litert_profile,
    onnxruntime,
    onnxruntime_profile,
    session,
)
from cct_export.runtimes.litert_file import nodes_of
from cct_export.runtimes.litert_prefixes import BURST, affordable_rounds, operator_ms, prefixes
from cct_export.runtimes.onnxruntime_profile import Event, EventArguments
from cct_export.runtimes.timing import time_interleaved

MS = 1_000_000
SCHEMES = [
    ("none", "float32"),
    pytest.param("fp16", "float32", marks=pytest.mark.slow),
    pytest.param("int8", "float32", marks=pytest.mark.slow),
    ("int8-full", "int8"),
]
PROFILERS = {"tflite": litert_profile, "onnx": onnxruntime_profile}


@pytest.fixture(scope="module", name="branched")
def branched_file(tmp_path_factory):
    return branched(tmp_path_factory.mktemp("branched"))


def from_prefixes(path, *, threads=1, runs=1):
    """The profile that takes the place of LiteRT's own."""
    image, engine = open_with_image(path)
    return litert_prefixes.profile(
        path, nodes=engine.nodes(), image=image, threads=threads, runs=runs
    )


def open_interpreter(content):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def outputs_of(content, image, interpreter=None):
    """Returns the outputs of a flatbuffer by the name of the tensor."""
    interpreter = interpreter or open_interpreter(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {output["name"]: interpreter.get_tensor(output["index"]) for output in details}


def open_with_image(path):
    engine = litert.open_session(path, trusted=True)
    pixels = np.random.default_rng(1).integers(0, 256, (1, *engine.image_shape), np.uint8)
    return session.prepare(engine, pixels), engine


@pytest.mark.parametrize(("scheme", "io"), SCHEMES)
def test_prefixes_have_the_operators_up_to_their_own_and_the_last_gives_the_logits(
    exports, scheme, io
):
    path = exports("tflite", scheme, io).path
    image, whole = open_with_image(path)
    kinds = [operator.kind for operator in inspect(path).operators]
    cuts = list(prefixes(path.read_bytes()))
    assert len(cuts) == len(kinds)
    for count, cut in enumerate(cuts, start=1):
        if cut.content is not None:
            interpreter = open_interpreter(cut.content)
            nodes = [node.kind for node in nodes_of(interpreter) if not node.is_partition]
            assert nodes == kinds[:count]
            outputs = outputs_of(cut.content, image, interpreter)
            assert all(np.isfinite(value).all() for value in outputs.values())
    (logits,) = outputs.values()
    assert cuts[-1].content is not None
    np.testing.assert_array_equal(logits, whole.invoke(image))


def test_a_prefix_outputs_what_is_read_later_so_that_no_branch_is_dropped(branched):
    image, _ = open_with_image(branched)
    kinds = [operator.kind for operator in inspect(branched).operators]
    assert kinds == ["CONV_2D", "CONV_2D", "SOFTMAX", "CUMSUM", "MUL", "MEAN"]
    cuts = list(prefixes(branched.read_bytes()))
    outputs = [outputs_of(cut.content, image) for cut in cuts]
    first = cuts[0].name
    assert [first in names for names in outputs] == [True] * 4 + [False] * 2
    assert all(cut.name in names for cut, names in zip(cuts, outputs, strict=True))
    assert [len(names) for names in outputs] == [1, 2, 2, 2, 1, 1]
    for names in outputs[1:4]:
        np.testing.assert_array_equal(names[first], outputs[0][first])


def test_an_intermediate_tensor_is_that_of_the_whole_file(branched):
    image, whole = open_with_image(branched)
    *_, before_mean, last = prefixes(branched.read_bytes())
    tensor = outputs_of(before_mean.content, image)[before_mean.name]
    np.testing.assert_allclose(tensor.mean((1, 2)), whole.invoke(image), rtol=1e-5)
    assert list(outputs_of(last.content, image)) == [last.name]


def test_dequantized_weights_have_no_prefix_and_are_no_output(exports):
    path = exports("tflite", "fp16").path
    cuts = list(prefixes(path.read_bytes()))
    kinds = [operator.kind for operator in inspect(path).operators]
    constant = [kind for kind, cut in zip(kinds, cuts, strict=True) if cut.content is None]
    assert set(constant) == {"DEQUANTIZE"}
    assert len(constant) > 5
    dequantized = {cut.name for cut in cuts if cut.content is None}
    for cut in cuts:
        if cut.content is not None:
            details = open_interpreter(cut.content).get_output_details()
            assert not {output["name"] for output in details} & dequantized


def test_a_prefix_leaves_out_the_weights_behind_it(exports):
    content = exports("tflite").path.read_bytes()
    sizes = [len(cut.content) for cut in prefixes(content) if cut.content is not None]
    assert sizes == sorted(sizes)
    assert sizes[0] < len(content) / 4


def test_profiling_leaves_the_file_and_its_folder_unchanged(exports):
    path = exports("tflite", "int8").path
    content, siblings = path.read_bytes(), sorted(path.parent.iterdir())
    litert_profile.profile(path, threads=1, runs=1)
    assert path.read_bytes() == content
    assert sorted(path.parent.iterdir()) == siblings


@pytest.mark.parametrize(("scheme", "io"), SCHEMES)
def test_a_profile_of_prefixes_has_every_operator_in_order_with_its_delegate(exports, scheme, io):
    path = exports("tflite", scheme, io).path
    profile = from_prefixes(path)
    operators = inspect(path).operators
    assert [timed.kind for timed in profile.operators] == [step.kind for step in operators]
    delegated = [operator.partition is not None for operator in operators]
    assert [timed.where == "xnnpack" for timed in profile.operators] == delegated
    names = [timed.name for timed in profile.operators]
    assert len(set(names)) == len(names)
    assert "tokenizer/0/conv" in names
    assert profile.derived
    assert "slightly negative" in profile.note


def test_an_operator_that_the_delegate_does_not_support_is_run_by_litert(branched):
    profile = from_prefixes(branched, threads=2)
    where = {operator.kind: operator.where for operator in profile.operators}
    assert where.pop("CUMSUM") == "litert"
    assert set(where.values()) == {"xnnpack"}


def test_a_file_of_one_operator_has_its_whole_time(tmp_path):
    import tensorflow as tf

    path = convert(tmp_path, lambda x: tf.reduce_mean(x, (1, 2)))
    (operator,) = from_prefixes(path).operators
    assert (operator.kind, operator.where) == ("MEAN", "xnnpack")
    assert operator.ms > 0


def test_an_integer_file_of_the_stock_converter_is_profiled(tmp_path):
    import tensorflow as tf

    path = convert(
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
    profile = from_prefixes(path)
    kinds = [operator.kind for operator in profile.operators]
    assert kinds == [operator.kind for operator in inspect(path).operators]
    assert "CONV_2D" in kinds


def test_times_are_differences_of_medians_and_add_up_to_the_whole():
    times = [(3 * MS, 1 * MS, 2 * MS), (5 * MS,) * 3, (4 * MS, 4 * MS, 90 * MS), (9 * MS,)]
    milliseconds = operator_ms(times)
    assert milliseconds == [2.0, 3.0, -1.0, 5.0]  # the third is not clipped
    assert sum(milliseconds) == 9.0


def test_an_operator_without_prefix_takes_no_time():
    assert operator_ms([None, (2 * MS,), None, None, (3 * MS,)]) == [0.0, 2.0, 0.0, 0.0, 1.0]
    assert operator_ms([]) == []


class Part:
    """Takes the same time in every run, on a simulated clock."""

    def __init__(self, clock, duration):
        self.clock, self.duration, self.count = clock, duration, 0

    def invoke(self, prepared):
        self.clock.now += self.duration
        self.count += 1


class Clock:
    """Nanoseconds that pass only when something runs."""

    now = 0

    def __call__(self):
        return self.now


def test_known_times_of_prefixes_give_those_of_the_operators(exports, monkeypatch):
    path = exports("tflite", "int8").path
    clock = Clock()
    durations = iter(range(MS, 1000 * MS, MS))
    monkeypatch.setattr(litert_prefixes, "_OpenPrefix", lambda *_: Part(clock, next(durations)))
    monkeypatch.setattr(
        litert_prefixes,
        "time_interleaved",
        lambda *arguments, **named: time_interleaved(*arguments, clock=clock, **named),
    )
    profile = from_prefixes(path, runs=10)
    depends_on_input = [cut.content is not None for cut in prefixes(path.read_bytes())]
    assert [operator.ms for operator in profile.operators] == pytest.approx(
        list(map(float, depends_on_input))
    )
    assert profile.runs == 10


@pytest.mark.parametrize(
    ("duration", "runs", "settle_ns", "rounds"),
    [
        (MS, 100, 0, 100 // BURST),
        (MS, 101, 0, 100 // BURST + 1),
        (500 * MS, 100, 0, 3),  # each round takes 8 s
        (0, 100, 1000 * MS, 10),  # two parts that settle for a second
    ],
)
def test_there_are_fewer_rounds_where_all_would_take_too_long(duration, runs, settle_ns, rounds):
    clock = Clock()
    parts = [Part(clock, duration), Part(clock, duration)]
    limited = affordable_rounds(parts, image=None, runs=runs, settle_ns=settle_ns, clock=clock)
    assert limited == rounds
    assert [part.count for part in parts] == [2, 2]


def test_untimed_runs_of_a_burst_last_at_least_the_requested_time():
    clock = Clock()
    part = Part(clock, MS)
    times = time_interleaved(
        [part], inputs=[None], rounds=2, burst=3, warmup=1, clock=clock, settle_ns=10 * MS
    )
    assert part.count == 2 * (10 + 3)
    assert times == [(MS,) * 6]


def test_every_session_runs_one_burst_in_every_round():
    runs = []

    class Named:
        def __init__(self, name):
            self.name = name

        def invoke(self, prepared):
            runs.append((self.name, prepared))

    ticks = iter(range(10_000))
    times = time_interleaved(
        [Named("a"), Named("b")],
        inputs=["x", "y"],
        rounds=3,
        burst=2,
        warmup=1,
        clock=lambda: next(ticks),
    )
    assert runs == ([("a", "x")] * 3 + [("b", "y")] * 3) * 3
    assert times == [(1,) * 6, (1,) * 6]


@pytest.mark.parametrize("format", PROFILERS)
def test_a_broken_file_is_refused_in_one_line(exports, tmp_path, format):
    path = tmp_path / f"broken.{format}"
    path.write_bytes(exports(format).path.read_bytes()[:5000])
    with pytest.raises(InvalidArtifact) as error:
        PROFILERS[format].profile(path, threads=1, runs=1)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    with pytest.raises(InvalidRequest, match="no such file"):
        PROFILERS[format].profile(tmp_path / f"missing.{format}", threads=1, runs=1)


@pytest.mark.parametrize(("scheme", "io"), [("none", "float32"), ("int8", "uint8")])
def test_an_onnx_profile_has_every_kernel_that_ran_and_leaves_no_file(
    exports, tmp_path, monkeypatch, scheme, io
):
    path = exports("onnx", scheme, io).path
    siblings = sorted(path.parent.iterdir())
    monkeypatch.chdir(tmp_path)
    profile = onnxruntime_profile.profile(path, threads=2, runs=3)
    kinds = Counter(operator.kind for operator in profile.operators)
    assert kinds == onnxruntime_profile.kernels(path)
    assert {operator.where for operator in profile.operators} == {"CPU"}
    assert profile.operators[-1].name.startswith("logits")
    assert not profile.derived
    assert profile.runs == 3
    assert all(operator.ms >= 0 for operator in profile.operators)
    assert not list(tmp_path.iterdir())
    assert sorted(path.parent.iterdir()) == siblings


def kernel(name, kind, microseconds, index="0", provider="CPUExecutionProvider"):
    arguments = EventArguments(kind, index, provider)
    return Event(f"{name}_kernel_time", "Node", microseconds, arguments)


RUN = Event("model_run", "Session", 1)


def test_events_are_grouped_by_run_and_an_incomplete_run_is_left_out():
    events = [
        Event("session_initialization", "Session", 9),
        kernel("a", "Conv", 1),
        Event("a_fence_before", "Node", 1),
        RUN,
        kernel("a", "Conv", 2),
        RUN,
        kernel("a", "Conv", 3),
    ]
    runs = onnxruntime_profile.kernels_per_run(events)
    assert [[event.dur for event in run] for run in runs] == [[1], [2]]


def test_medians_are_of_operators_not_of_names():
    runs = [
        [kernel("a", "Conv", 100, "1"), kernel("a", "Add", 10, "2"), kernel("b", "Add", dur, "3")]
        for dur in (1, 5, 90)
    ]
    for run in runs[1:]:
        run[0] = kernel("a", "Conv", 300, "1")
    operators = onnxruntime_profile.operators(runs)
    assert [(o.name, o.kind, o.ms, o.where) for o in operators] == [
        ("a", "Conv", 0.3, "CPU"),
        ("a", "Add", 0.01, "CPU"),
        ("b", "Add", 0.005, "CPU"),
    ]


def test_an_operator_in_a_loop_has_the_time_of_all_iterations():
    (operator,) = onnxruntime_profile.operators([[kernel("a", "Add", 2, provider="CUDA")] * 3])
    assert (operator.ms, operator.where) == (0.006, "CUDA")


def test_a_profile_that_lacks_runs_is_refused(exports, monkeypatch):
    complete = onnxruntime_profile.kernels_per_run
    monkeypatch.setattr(
        onnxruntime_profile, "kernels_per_run", lambda events: complete(events)[:-1]
    )
    with pytest.raises(EngineFailed, match="has 4 runs, not 5: request fewer"):
        onnxruntime_profile.profile(exports("onnx").path, threads=1, runs=5)


def test_a_session_without_profile_writes_none(exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = onnxruntime.open_session(exports("onnx").path)
    engine.invoke(np.zeros((1, 32, 32, 3), np.float32))
    engine.close()
    assert not list(tmp_path.iterdir())
