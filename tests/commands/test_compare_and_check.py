"""``cct-bench compare`` and ``check`` on real files and on recorded times."""

import csv
import dataclasses
import json

import pytest

from cct_export import machine
from cct_export.records.encoding import to_json

QUICK = ("--min-runs", 20, "--min-seconds", 0, "--warmup-seconds", 0)
RECORD = {
    "artifact": {"path": "m.tflite", "format": "tflite", "scheme": "int8", "size_bytes": 5},
    "runtime": {
        "name": "litert", "version": "1", "accelerator": "cpu", "delegate": "xnnpack",
        "requested": "default", "options": {}, "threads": 1, "delegated_nodes": 3, "total_nodes": 3,
    },
    "batch": 1,
    "bursts": [[20] * 5] * 5,
    "headline": 50,
    "load_ms": 1.0,
    "first_inference_ms": 1.0,
    "peak_rss_bytes": 1,
    "accuracy": None,
    "parity": None,
    "device": "local",
    "warnings": [],
    "conditions": {"other_cores": 0.0, "yardstick_ms": 0.003},
}  # fmt: skip


@pytest.fixture
def recorded(tmp_path):
    """Writes a record of recorded times; returns its path."""

    def write(name, ms=1.0, facts=None, **changes):
        times = [int(ms * 1e6 * (1 + 0.002 * (index % 7))) for index in range(500)]
        row = RECORD | {"times_ns": times} | changes
        path = tmp_path / f"{name}.json"
        content = {"schema": "cct-bench/1", "machine": to_json(facts or machine.describe())}
        path.write_text(json.dumps(content | {"results": [row]}))
        return path

    return write


@pytest.fixture(scope="module")
def compared(exports, in_process, tmp_path_factory):
    """Everything that comparing three files on two engines writes."""
    folder = tmp_path_factory.mktemp("compared")
    paths = [exports("tflite").path, exports("tflite", "int8").path, exports("onnx").path]
    ended = in_process(
        "bench", "compare", *paths, *QUICK, "--json", "-",
        "--html", folder / "r.html", "--markdown", folder / "r.md", "--csv", folder / "r.csv",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return folder, ended.record


def test_a_comparison_has_results_of_two_engines(compared):
    _, record = compared
    engines = [result["runtime"]["name"] for result in record["results"]]
    assert engines == ["litert", "litert", "onnxruntime"]
    assert all(result["parity"]["passed"] for result in record["results"])
    assert all(result["latency_ms"]["count"] >= 20 for result in record["results"])


def test_page_and_tables_have_a_row_per_file(compared, exports):
    folder, _ = compared
    names = [exports("tflite").path.name, exports("tflite", "int8").path.name]
    page, table = (folder / "r.html").read_text(), (folder / "r.md").read_text()
    for name in [*names, exports("onnx").path.name]:
        assert name in page
        assert name in table
    with (folder / "r.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 3


def test_saved_results_are_compared_without_measuring(recorded, in_process):
    ended = in_process("bench", "compare", recorded("one"), recorded("two", ms=2.0), "--json", "-")
    assert ended.code == 0, ended.err
    assert [len(result["times_ns"]) for result in ended.record["results"]] == [500, 500]
    table = in_process("bench", "compare", recorded("one"), recorded("two", ms=2.0))
    assert "2.00 ±" in table.out


def test_a_broken_file_is_reported_and_the_others_are_measured(tmp_path, exports, in_process):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    ended = in_process("bench", "compare", exports("tflite").path, broken, *QUICK, "--json", "-")
    assert ended.code == 1
    first, second = ended.record["results"]
    assert first["latency_ms"]["count"] >= 20
    assert second["latency_ms"] is None
    assert "cannot open" in second["failure"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "missing argument"),
        (("none.json",), 2, "no such file"),
        (("none.tflite",), 2, "no such file"),
        (("a.tflite", "--html", "."), 1, "is a folder"),
        (("a.tflite", "--accuracy"), 2, "--accuracy needs --data"),
        (
            ("a.tflite", "--profile", "slow"),
            2,
            "no profile is called 'slow': choose from quick, strict",
        ),
    ],
)
def test_an_impossible_comparison_is_one_line(
    in_process, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    ended = in_process("bench", "compare", *arguments)
    assert ended.code == code
    assert message in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("ms", "changes", "code", "status"),
    [
        (1.0, {}, 0, "pass"),
        (0.5, {}, 0, "pass"),
        (1.5, {}, 5, "regression"),
        (1.06, {}, 5, "regression"),
        (1.5, {"conditions": {"other_cores": 0.9}}, 7, "inconclusive"),
        (1.0, {"conditions": {"other_cores": 0.9}}, 7, "inconclusive"),
    ],
)
def test_recorded_times_are_judged(recorded, in_process, ms, changes, code, status):
    baseline, now = recorded("then"), recorded("now", ms, **changes)
    ended = in_process("bench", "check", now, "--baseline", baseline, "--json", "-")
    assert ended.code == code, ended.err
    (verdict,) = ended.record["verdicts"]
    assert verdict["status"] == status
    assert "m.tflite" in verdict["subject"]
    assert status in ended.err


def test_a_looser_limit_lets_more_pass(recorded, in_process):
    arguments = (recorded("now", 1.06), "--baseline", recorded("then"))
    assert in_process("bench", "check", *arguments).code == 5
    assert in_process("bench", "check", *arguments, "--max-regression", "10%").code == 0
    assert in_process("bench", "check", *arguments, "--max-regression", "0.1").code == 0


def test_lost_accuracy_ends_with_4(recorded, in_process):
    def accuracy(top1):
        return {"accuracy": {"top1": top1, "top5": 0.9, "samples": 100, "data": "d"}}

    baseline, now = recorded("then", **accuracy(0.9)), recorded("now", **accuracy(0.8))
    ended = in_process("bench", "check", now, "--baseline", baseline)
    assert ended.code == 4
    assert "10.00 points of top-1 lost" in ended.err
    assert in_process("bench", "check", now, "--baseline", baseline, "--max-drop", 11).code == 0


def test_a_baseline_of_another_machine_is_refused_without_any_machine(recorded, in_process):
    other = recorded("then", facts=dataclasses.replace(machine.describe(), cpu="Another 9000"))
    arguments = (recorded("now"), "--baseline", other)
    refused = in_process("bench", "check", *arguments)
    assert refused.code == 2
    assert "Another 9000" in refused.err
    assert "--any-machine" in refused.err
    assert in_process("bench", "check", *arguments, "--any-machine").code == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 8},
        {"headline": 90},
        {"runtime": RECORD["runtime"] | {"threads": 2}},
        {"runtime": RECORD["runtime"] | {"requested": "none"}},
        {"artifact": RECORD["artifact"] | {"scheme": "fp16"}},
    ],
)
def test_measurements_with_other_settings_are_not_compared(recorded, in_process, changes):
    arguments = (recorded("now", **changes), "--baseline", recorded("then"))
    ended = in_process("bench", "check", *arguments)
    assert ended.code == 2
    assert "rows do not belong together" in ended.err


def test_saved_results_of_another_machine_say_so(recorded, in_process):
    other = recorded("other", facts=dataclasses.replace(machine.describe(), cpu="Another 9000"))
    ended = in_process("bench", "compare", recorded("one"), other, "--json", "-")
    first, second = ended.record["results"]
    assert first["warnings"] == []
    assert "Another 9000" in second["warnings"][0]
    assert second["machine"]["cpu"] == "Another 9000"


@pytest.mark.parametrize("name", ["m.tflite", "m.tflite.json", "m.onnx", "one.json"])
def test_a_page_is_not_written_over_an_artifact(recorded, in_process, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    recorded("one")
    before = sorted(tmp_path.iterdir())
    ended = in_process("bench", "compare", "one.json", "--html", name)
    assert ended.code == 2
    assert name in ended.err
    assert sorted(tmp_path.iterdir()) == before


def test_two_outputs_of_the_same_name_are_refused(recorded, in_process, tmp_path):
    page = tmp_path / "r.txt"
    ended = in_process("bench", "compare", recorded("one"), "--csv", page, "--markdown", page)
    assert ended.code == 2
    assert "named twice" in ended.err


@pytest.mark.parametrize("option", ["--min-seconds", "--warmup-seconds"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_duration_that_is_not_finite_is_refused(exports, in_process, option, value):
    ended = in_process("bench", "tflite", exports("tflite").path, option, value)
    assert ended.code == 2
    assert f"'{value}' is not a number" in ended.err


def test_accuracy_of_other_images_is_inconclusive(recorded, in_process):
    def accuracy(samples):
        return {"accuracy": {"top1": 0.9, "top5": 0.9, "samples": samples, "data": "d"}}

    baseline = recorded("then", **accuracy(100))
    for now in (recorded("now", **accuracy(50)), recorded("none")):
        ended = in_process("bench", "check", now, "--baseline", baseline)
        assert ended.code == 7
        assert "accuracy" in ended.err


def test_another_number_of_rows_is_refused(recorded, in_process, exports):
    path = exports("tflite").path
    ended = in_process("bench", "check", path, path, "--baseline", recorded("then"))
    assert ended.code == 2
    assert "1 row:" in ended.err


@pytest.mark.parametrize("share", ["", "5 %", "-5%", "500", "a", "5%%"])
def test_another_text_than_a_percentage_is_a_usage_error(recorded, in_process, share):
    ended = in_process("bench", "check", "--baseline", recorded("then"), "--max-regression", share)
    assert ended.code == 2
    assert "--max-regression" in ended.err


def test_a_file_is_measured_again_as_its_baseline_was(tmp_path, exports, in_process):
    path, baseline = exports("tflite").path, tmp_path / "b.json"
    quick = (*QUICK, "--repeats", 2)
    first = in_process("bench", "tflite", path, "--threads", 2, "--json", baseline, *quick)
    assert first.code == 0, first.err
    ended = in_process("bench", "check", "--baseline", baseline, "--json", "-", *quick)
    assert ended.code in (0, 5, 7), ended.err  # how fast this machine is decides no test
    (result,) = ended.record["results"]
    assert result["runtime"]["threads"] == 2
    assert len(result["bursts"]) == 2


def test_a_file_that_became_wrong_ends_with_3(tmp_path, exports, in_process):
    from cct_export.records import sidecar

    original, path = exports("tflite").path, tmp_path / "m.tflite"
    path.write_bytes(original.read_bytes())
    sidecar.path_of(path).write_bytes(sidecar.path_of(original).read_bytes())
    baseline = tmp_path / "b.json"
    assert in_process("bench", "tflite", path, "--json", baseline, *QUICK).code == 0
    change_one_weight(path)
    ended = in_process("bench", "check", "--baseline", baseline, "--json", "-", *QUICK)
    assert ended.code == 3
    assert ended.record["verdicts"][0]["status"] == "parity"
    measured = in_process("bench", "tflite", path, "--json", "-", *QUICK)
    assert measured.code == 3
    (result,) = measured.record["results"]
    assert result["latency_ms"] is None
    assert "not timed, parity FAILED" in measured.err


def change_one_weight(path):
    """Makes one weight of the last dense layer a hundred times larger than any."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    (logits,) = [tensor for tensor in graph.tensors if tensor.name == b"logits/kernel"] or [
        graph.tensors[graph.operators[-1].inputs[1]]
    ]
    weights = model.buffers[logits.buffer].data.view("float32")
    weights[0] = 100 * abs(weights).max()
    model.buffers[logits.buffer].data = weights.view("uint8")
    flatbuffer_utils.write_model(model, str(path))


@pytest.mark.parametrize(("second", "code"), [(1.0, 0), (1.04, 0), (1.2, 7)])
def test_repeats_of_a_strict_measurement_must_agree(recorded, in_process, second, code):
    times = [1_000_000] * 50 + [int(second * 1e6)] * 50
    path = recorded("two", times_ns=times, bursts=[[50], [50]])
    assert in_process("bench", "compare", path, "--profile", "strict").code == code
    assert in_process("bench", "compare", path, "--profile", "quick").code == 0
