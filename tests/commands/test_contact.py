"""Nothing that a file names is run, loaded or contacted unless the command line names it too."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cct_export import machine
from cct_export.errors import InvalidArtifact
from cct_export.records.encoding import to_json
from cct_export.specs import Delegation

HUB = "hf:nobody/cct"
ROW = {
    "artifact": {"path": "m.tflite", "format": "tflite", "scheme": "none"},
    "runtime": {
        "name": "litert", "version": "1", "accelerator": "cpu", "delegate": "xnnpack",
        "requested": "default", "options": {}, "threads": 1,
    },
    "batch": 1,
    "times_ns": [1_000_000] * 10,
    "bursts": [[10]],
}  # fmt: skip
KERAS = ROW["runtime"] | {"name": "keras-tensorflow"}
LABELLED = {"top1": 0.9, "top5": 0.9, "samples": 100}


def runtime(**changes):
    return {"runtime": ROW["runtime"] | changes}


def artifact(path):
    return {"artifact": ROW["artifact"] | {"path": path}, "runtime": KERAS}


@pytest.fixture
def contacts(monkeypatch, tmp_path):
    """What this process tries to contact, run or load from now on; all of it fails."""
    seen = []

    def blocked(what):
        def refuse(*arguments, **named):
            seen.append((what, arguments))
            raise OSError("blocked by the test")

        return refuse

    monkeypatch.setattr(socket.socket, "connect", blocked("connect"))
    monkeypatch.setattr(socket.socket, "connect_ex", blocked("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", blocked("look up"))
    monkeypatch.setattr(subprocess, "Popen", blocked("run"))
    monkeypatch.setattr("ai_edge_litert.interpreter.load_delegate", blocked("load"))
    monkeypatch.setattr("onnxruntime.register_execution_provider_library", blocked("load"))
    # Nothing is in a cache, no program is installed in place of ssh or adb.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name, *_, **__: f"/nowhere/{name}")
    return seen


@pytest.fixture
def baseline(tmp_path, monkeypatch, exports):
    """Writes a record of this machine, in a folder with ``m.tflite``; the rows have ``changes``."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(exports("tflite").path, "m.tflite")

    def write(*changes):
        content = {"schema": "cct-bench/1", "machine": to_json(machine.describe())}
        rows = [ROW | change for change in changes]
        (tmp_path / "rec.json").write_text(json.dumps(content | {"results": rows}))
        return "rec.json"

    return write


def added(ended):
    """What a refusal says to add to the command line, as a shell reads it."""
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    return shlex.split(ended.err.partition(", add ")[2])


FAR = [
    ({"device": "ssh:me@box"}, ["--device", "ssh:me@box"]),
    ({"device": "adb:1234"}, ["--device", "adb:1234"]),
    (runtime(requested="external:/x/lib.so"), ["--delegate", "external:/x/lib.so"]),
    (runtime(requested="External:/x/lib.so"), ["--delegate", "External:/x/lib.so"]),
    (
        runtime(name="onnxruntime", requested="plugin:/x/lib.so"),
        ["--delegate", "plugin:/x/lib.so"],
    ),
    (
        runtime(name="onnxruntime", requested="qnn", options={"backend_path": "/x/lib.so"}),
        ["--delegate-option", "backend_path=/x/lib.so"],
    ),
    (
        {"device": "ssh:box"} | runtime(requested="external:/x y.so", options={"a": "b c"}),
        ["--device", "ssh:box", "--delegate", "external:/x y.so", "--delegate-option", "a=b c"],
    ),
    (artifact(HUB), [HUB]),
    (artifact("keras-io/cct"), ["keras-io/cct"]),
    (artifact("keras-io//cct"), ["keras-io//cct"]),
    (artifact("hf:nobody/./cct"), ["hf:nobody/./cct"]),
    ({"accuracy": LABELLED | {"data": "cifar10"}}, ["--data", "cifar10"]),
    ({"accuracy": LABELLED | {"data": "CIFAR100"}}, ["--data", "cifar100"]),
]


@pytest.mark.parametrize(("change", "words"), FAR)
def test_what_a_baseline_names_is_refused_with_what_to_add(
    contacts, baseline, in_process, change, words
):
    assert added(in_process("bench", "check", "--baseline", baseline(change))) == words
    assert contacts == []


@pytest.mark.parametrize(
    ("change", "words", "what"),
    [
        (FAR[0][0], FAR[0][1], "run"),
        (FAR[1][0], [*FAR[1][1], "--benchmark-binary", "tool"], "run"),
        (artifact(HUB), [HUB], "run"),
    ],
)
def test_what_the_command_line_names_too_is_contacted(
    contacts, baseline, in_process, tmp_path, change, words, what
):
    (tmp_path / "tool").write_text("")
    ended = in_process("bench", "check", "--baseline", baseline(change), *words)
    assert ended.code not in (0, 2), ended.err
    assert contacts[0][0] == what


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "ssh:other"], "--device ssh:me@box"),
        (["--device", "local"], "--device ssh:me@box"),
        (["--device", "ssh:me@box", "--delegate", "gpu"], "not measured with the delegate gpu"),
        (
            ["--device", "ssh:me@box", "--delegate-option", "a=b"],
            "not measured with the option a=b",
        ),
    ],
)
def test_the_command_line_has_to_name_what_the_baseline_has(
    contacts, baseline, in_process, words, message
):
    ended = in_process("bench", "check", "--baseline", baseline(FAR[0][0]), *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert contacts == []


def test_a_library_of_one_row_is_not_that_of_another(contacts, baseline, in_process):
    rows = [runtime(requested=f"external:/x/{name}.so", options={"o": name}) for name in "ab"]
    words = ["--delegate", "external:/x/a.so", "--delegate-option", "o=a"]
    ended = in_process("bench", "check", "--baseline", baseline(*rows), *words)
    assert added(ended) == ["--delegate", "external:/x/b.so", "--delegate-option", "o=b"]
    assert contacts == []


def test_what_to_add_is_safe_to_show_and_to_type(contacts, baseline, in_process):
    rows = [artifact("--json=rec.json"), artifact(HUB), {"device": "local"}]
    words = added(in_process("bench", "check", "--baseline", baseline(*rows)))
    assert words == ["./--json=rec.json", HUB, "m.tflite"]
    device = "ssh:$(touch x)\x1b[2J\n;'"
    ended = in_process("bench", "check", "--baseline", baseline({"device": device}))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "\x1b" not in ended.err
    assert contacts == []


def test_a_delegate_of_this_machine_needs_no_name(contacts, baseline, in_process):
    path = baseline(runtime(requested="xnnpack"))
    assert "add" not in in_process("bench", "check", "--baseline", path).err
    assert [what for what, _ in contacts] == ["run"]  # its worker


def test_a_saved_record_is_compared_and_shown_without_contact(contacts, baseline, in_process):
    changes = [change for change, _ in FAR] + [artifact("javascript:alert(1)")]
    options = ("--html", "r.html", "--markdown", "r.md", "--csv", "r.csv")
    ended = in_process("bench", "compare", baseline(*changes), *options)
    assert ended.code == 0, ended.err
    assert contacts == []
    page = Path("r.html").read_text()
    for attribute in ("href=", "src=", "url(", "xlink"):
        assert page.count(attribute) == page.count(f'{attribute}"data:,"'), attribute


@pytest.fixture(scope="module")
def of_the_hub(tmp_path_factory, digits_model):
    """Files that say they were made of a model on the Hub, by suffix."""
    import cct_export

    folder = tmp_path_factory.mktemp("of_the_hub")
    loaded = replace(cct_export.load(digits_model), source=HUB)
    files = cct_export.export_files(loaded, schemes="none", output=folder, parity_samples=16)
    return {file.artifact.path.suffix: file.artifact.path for file in files}


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_the_model_that_a_file_names_is_not_downloaded(of_the_hub, in_process, listener, suffix):
    ended = in_process("export", "verify", of_the_hub[suffix])
    assert added(ended) == ["--against", HUB]
    for command in (
        ("export", "inspect", of_the_hub[suffix]),
        ("export", "bundle", of_the_hub[suffix], "--target", "raspberry-pi", "-o", "bundle"),
    ):
        assert in_process(*command).code == 0
    assert listener == []
    assert in_process("export", "verify", of_the_hub[suffix], "--against", HUB).code == 1
    assert listener != []


QUICK = ("--min-runs", 1, "--min-seconds", 0, "--warmup-seconds", 0)


def test_an_accuracy_is_not_compared_with_a_model_that_only_the_file_names(
    of_the_hub, in_process, listener
):
    options = ("--accuracy", "--data", "digits", *QUICK, "--json", "-")
    ended = in_process("bench", "tflite", of_the_hub[".tflite"], *options)
    (result,) = ended.record["results"]
    assert ended.code == 0
    assert result["accuracy"]["paired"] is None
    assert any(f"cct-bench compare {of_the_hub['.tflite']} {HUB}" in w for w in result["warnings"])
    assert listener == []
    in_process("bench", "compare", of_the_hub[".tflite"], HUB, *options)
    assert listener != []


@pytest.fixture
def listener(tmp_path, monkeypatch):
    """The connections to the Hub and to any proxy, of this process and of those it starts."""
    from huggingface_hub import close_session

    connections = []
    close_session()  # it keeps the proxies that it began with
    server = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    for variable in ("HF_ENDPOINT", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, address)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)

    def accept():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connections.append(connection.recv(1000))

    threading.Thread(target=accept, daemon=True).start()
    yield connections
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    close_session()


@pytest.mark.parametrize("delegate", ["default", "gpu"])
def test_a_file_does_not_name_other_files_that_an_engine_opens(exports, tmp_path, delegate):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    from cct_export.runtimes import litert

    model = flatbuffer_utils.read_model(str(exports("tflite").path))
    group, buffer = schema.ExternalBufferGroupT(), schema.ExternalBufferT()
    group.name, buffer.id, buffer.group = str(tmp_path / "weights"), 1, 0
    model.externalBufferGroups, model.externalBuffers = [group], [buffer]
    path = tmp_path / "m.tflite"
    flatbuffer_utils.write_model(model, str(path))
    with pytest.raises(InvalidArtifact, match="keeps weights in another file"):
        litert.open_session(path, trusted=True, delegation=Delegation(delegate))


def test_onnx_runtime_sends_no_telemetry(exports, tmp_path):
    quiet, default = tmp_path / "quiet", tmp_path / "default"
    # Without the variables by which ONNX Runtime knows a CI, where it sends nothing by default.
    kept = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    for home, libraries in ((quiet, "cct_export, onnxruntime"), (default, "onnxruntime")):
        home.mkdir()
        code = f"import sys, {libraries}; onnxruntime.InferenceSession(sys.argv[1])"
        changes = {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
        command = [sys.executable, "-c", code, str(exports("onnx").path)]
        subprocess.run(command, env=environment | changes, check=True)
    # Where it sends any, it keeps the ID of the device beside what it has not sent yet.
    assert list(default.rglob("deviceid"))
    assert list(quiet.iterdir()) == []


@pytest.fixture
def strange_run(tmp_path, digits_run):
    """A copy of a run whose ``run.json`` has other fields."""

    def change(**fields):
        folder = shutil.copytree(digits_run, tmp_path / "run", dirs_exist_ok=True)
        record = json.loads((digits_run / "run.json").read_text())
        record["train"] |= fields.pop("train", {})
        (folder / "run.json").write_text(json.dumps(record | fields))
        return folder

    return change


START = {"start": {"source": HUB, "sha256": "0" * 64}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (START, ["--from", HUB]),
        ({"train": {"data": "cifar10"}}, ["--data", "cifar10"]),
        ({"train": {"data": "CIFAR100"}}, ["--data", "cifar100"]),
        (START | {"train": {"data": "cifar10"}}, ["--from", HUB, "--data", "cifar10"]),
    ],
)
def test_a_run_of_a_stranger_is_resumed_with_what_the_command_line_names(
    strange_run, in_process, listener, fields, words
):
    resume = ("export", "train", "--resume", "-o", strange_run(**fields))
    assert added(in_process(*resume)) == words
    assert listener == []
    assert ", add " not in in_process(*resume, *words).err


def test_a_run_of_a_stranger_is_exported_without_its_images(strange_run, in_process, listener):
    folder = strange_run(train={"data": "cifar10"})
    ended = in_process("export", "tflite", folder, "--samples", 16, "-o", "m.tflite")
    assert ended.code == 0, ended.err
    assert in_process("export", "quantize-report", folder, "--samples", 16).code == 0
    assert in_process("export", "verify", "m.tflite", "--samples", 16).code == 0
    assert listener == []
