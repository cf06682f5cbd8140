"""Times of operators from LiteRT's own profiler, and where prefixes take its place."""

import sys
from pathlib import Path

import numpy as np
import pytest
from stock_files import branched, convert, weights

from cct_export.api import inspect
from cct_export.errors import InvalidRequest
from cct_export.runtimes import litert, litert_c_api, litert_profile, session
from cct_export.runtimes.litert_c_api import (
    DELEGATED_OPERATOR,
    OPERATOR,
    Event,
    ProfiledModel,
    ProfilerUnusable,
)
from cct_export.runtimes.litert_file import Node, operator_names, runs_main_subgraph
from cct_export.runtimes.litert_prefixes import prefixes
from cct_export.runtimes.litert_profile import operators_of, operators_per_run
from cct_export.specs import Delegation

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere prefixes take the profiler's place"
)

SCHEMES = [
    ("none", "float32"),
    ("fp16", "float32"),
    pytest.param("int8", "uint8", marks=pytest.mark.slow),
    pytest.param("int8", "float32", marks=pytest.mark.slow),
    ("int8-full", "int8"),
]


def profile(path, *, threads=1, runs=3):
    return litert_profile.profile(path, threads=threads, runs=runs)


@pytest.mark.parametrize(("scheme", "io"), SCHEMES)
def test_a_profile_has_what_xnnpack_ran_under_the_names_of_the_layers(exports, scheme, io):
    path = exports("tflite", scheme, io).path
    profiled = profile(path)
    assert not profiled.derived
    assert profiled.runs == 3
    assert profiled.note.startswith("LiteRT's own times")
    assert all(operator.ms >= 0 for operator in profiled.operators)
    names = [operator.name for operator in profiled.operators]
    assert len(set(names)) == len(names)
    in_file = operator_names(path.read_bytes())
    products = [
        name
        for name, operator in zip(in_file, inspect(path).operators, strict=True)
        if operator.kind in ("BATCH_MATMUL", "CONV_2D", "FULLY_CONNECTED")
    ]
    assert [name for name in names if name in products] == products
    kinds = {operator.name: operator.kind.partition(" (")[0] for operator in profiled.operators}
    assert (kinds[products[0]], kinds[products[-1]]) == ("Convolution", "Fully Connected")


def test_profiling_leaves_the_file_and_its_folder_unchanged(exports):
    path = exports("tflite", "int8").path
    content, siblings = path.read_bytes(), sorted(path.parent.iterdir())
    assert not profile(path).derived
    assert path.read_bytes() == content
    assert sorted(path.parent.iterdir()) == siblings


def test_there_are_fewer_runs_where_all_would_take_too_long(exports, monkeypatch):
    path = exports("tflite").path
    assert profile(path, runs=25).runs == 25
    monkeypatch.setattr(litert_profile, "LIMIT_NS", 0)
    assert profile(path, runs=25).runs == litert_profile.MIN_RUNS


def test_profiling_prints_nothing(exports, capfd):
    profile(exports("tflite").path)
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_xnnpack_does_not_run_has_its_name_in_the_file(tmp_path):
    path = branched(tmp_path)
    profiled = profile(path)
    assert not profiled.derived
    (cumsum,) = [operator for operator in profiled.operators if operator.where == "litert"]
    names = operator_names(path.read_bytes())
    assert (cumsum.name, cumsum.kind) == (names[3], "CUMSUM")
    kinds = [operator.kind.partition(" (")[0] for operator in profiled.operators]
    assert kinds.index("Softmax") < kinds.index("CUMSUM") < kinds.index("Multiply")
    found = {operator.name: operator.kind.partition(" (")[0] for operator in profiled.operators}
    # XNNPACK makes a matrix product of a convolution of single pixels.
    assert (found[names[0]], found[names[1]]) == ("Convolution", "Fully Connected")


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((None, 8, 8, 3), {}), ((4, 8, 8, 3), {})],
    ids=["any batch", "a batch of four"],
)
def test_files_of_any_batch_are_profiled(tmp_path, shape, settings):
    import tensorflow as tf

    path = convert(
        tmp_path,
        lambda x: tf.reduce_mean(tf.nn.conv2d(x, weights(3, 3, 3, 4), 1, "SAME"), (1, 2)),
        shape,
        **settings,
    )
    profiled = profile(path)
    assert not profiled.derived
    assert profiled.operators[0].kind.startswith("Convolution")


def test_a_file_of_two_outputs_is_profiled(tmp_path):
    import tensorflow as tf

    def heads(x):
        mean = tf.reduce_mean(x, (1, 2))
        return tf.nn.softmax(mean @ weights(3, 4)), mean @ weights(3, 7)

    profiled = profile(convert(tmp_path, heads))
    assert not profiled.derived
    kinds = [operator.kind.partition(" (")[0] for operator in profiled.operators]
    assert kinds.count("Fully Connected") == 2
    assert kinds.count("Softmax") == 1


def test_files_with_control_flow_are_profiled_by_prefixes(tmp_path):
    import tensorflow as tf

    def loop(x):
        mean = tf.reduce_mean(x, (1, 2))
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: (y + 1.0,), (mean,))[0]

    profiled = profile(convert(tmp_path, loop))
    assert profiled.derived
    assert "WHILE" in [operator.kind for operator in profiled.operators]
    assert "could not be used: operators of WHILE" in profiled.note


def test_files_whose_first_signature_is_of_another_subgraph_are_profiled_by_prefixes(
    exports, tmp_path
):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    content = exports("tflite").path.read_bytes()
    assert runs_main_subgraph(content)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    model.subgraphs.append(model.subgraphs[0])
    model.signatureDefs[0].subgraphIndex = 1
    path = tmp_path / "second.tflite"
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    profiled = profile(path, runs=1)
    assert profiled.derived
    assert "the first signature is not of the main subgraph" in profiled.note


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("VERSIONS", ("0.",), "structures are not known in ai-edge-litert"),
        ("LIBRARY", "libMissing.so", "libMissing.so is not in ai-edge-litert"),
        ("_DESTROYERS", ("LiteRtMissing",), "libLiteRt.so has no LiteRtMissing"),
        ("_ELEMENT_TYPES", {}, "it takes no tensor of float32"),
        ("_CPU", 0, "status"),
    ],
)
def test_prefixes_take_the_place_of_a_profiler_that_cannot_be_used(
    exports, monkeypatch, attribute, value, reason
):
    path = exports("tflite").path
    monkeypatch.setattr(litert_c_api, attribute, value)
    profiled = profile(path, runs=1)
    assert profiled.derived
    assert len(profiled.operators) == len(list(prefixes(path.read_bytes())))
    assert "LiteRT's own profiler could not be used: " in profiled.note
    assert reason in profiled.note


def test_other_delegates_are_refused(exports):
    with pytest.raises(InvalidRequest, match="choose the delegate default"):
        litert_profile.profile(
            exports("tflite").path, threads=1, runs=1, delegation=Delegation("reference")
        )


def threads_of_this_process():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_xnnpack_gets_the_threads_that_were_asked_for(exports, threads):
    path = exports("tflite").path
    engine = litert.open_session(path, trusted=True)
    image, outputs = engine.tensors()
    before = threads_of_this_process()
    with ProfiledModel(path, threads=threads, image=image, outputs=outputs) as model:
        model.profile(1)
        assert threads_of_this_process() == before + threads - 1


def test_an_input_of_another_size_is_refused(exports):
    path = exports("tflite").path
    engine = litert.open_session(path, trusted=True)
    image, outputs = engine.tensors()
    pixels = session.prepare(engine, np.zeros((2, *engine.image_shape), np.uint8))
    with (
        ProfiledModel(path, threads=1, image=image, outputs=outputs) as model,
        pytest.raises(ProfilerUnusable, match=r"bytes, not 24576"),
    ):
        model.write(pixels)


def ran(name, microseconds, index=0, type=DELEGATED_OPERATOR, subgraph=0):
    return Event(name, type, microseconds, index, subgraph)


def test_events_are_split_into_runs_without_those_that_are_not_about_operators():
    events = [ran("Invoke", 9, type=1), ran("Add (ND)", 1), ran("Softmax (NC)", 2, 1)]
    runs = operators_per_run(events * 2, 2)
    assert runs == [events[1:]] * 2


@pytest.mark.parametrize(
    "events",
    [
        [],
        [ran("Invoke", 9, type=1)],
        [ran("a", 1)],
        [ran("a", 1), ran("b", 1)],
        [ran("a", 1, 0), ran("a", 1, 1)],
        [ran("a", 1)] * 3,
    ],
)
def test_runs_that_differ_are_refused(events):
    with pytest.raises(ProfilerUnusable, match="of 2 runs are not the same"):
        operators_per_run(events, 2)


NODES = [
    Node(0, "CONV_2D", (0,), (1,)),
    Node(1, "CUMSUM", (1,), (2,)),
    Node(2, "SOFTMAX", (2,), (3,)),
    Node(3, "RESHAPE", (3,), (4,)),
    Node(4, "DELEGATE", (0,), (1,)),
    Node(5, "DELEGATE", (2,), (4,)),
]
NAMES = ["conv", "sums", "weights", "logits"]


def run_of(*microseconds, softmax="Softmax (NC, F32)"):
    kinds = ["Convolution (NHWC, F32) GEMM", "CUMSUM", softmax, "Static Reshape (NC)"]
    types = [DELEGATED_OPERATOR, OPERATOR, DELEGATED_OPERATOR, DELEGATED_OPERATOR]
    indices = [0, 1, 0, 1]
    return list(map(ran, kinds, microseconds, indices, types))


def test_times_are_medians_of_each_operator():
    operators = operators_of(
        [run_of(1, 2, 3, 4), run_of(5, 2, 0, 4), run_of(9, 2, 9, 4)], NODES, NAMES
    )
    assert [(each.name, each.ms, each.where) for each in operators] == [
        ("conv", 0.005, "xnnpack"),
        ("sums", 0.002, "litert"),
        ("weights", 0.003, "xnnpack"),
        ("xnnpack/2", 0.004, "xnnpack"),
    ]


def test_layers_are_named_only_where_their_number_agrees():
    run = run_of(1, 2, 3, 4, softmax="Fully Connected (NC, F32) GEMM")
    names = [each.name for each in operators_of([run], NODES, NAMES)]
    assert names == ["xnnpack/0", "sums", "xnnpack/1", "xnnpack/2"]


@pytest.mark.parametrize(
    "run", [run_of(1, 2, 3, 4)[:1], [ran("CUMSUM", 1, 1, OPERATOR, subgraph=1)]]
)
def test_a_profile_of_other_operators_than_the_interpreter_runs_is_refused(run):
    with pytest.raises(ProfilerUnusable, match="outside of XNNPACK"):
        operators_of([run], NODES, NAMES)
