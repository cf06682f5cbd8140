"""Delegates and execution providers: those of the CPU agree, others are refused in one line."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cct_export import errors
from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.runtimes import engine_of, keras, litert, onnxruntime, session
from cct_export.specs import Delegation

BRIEF = ("--min-runs", "2", "--min-seconds", "0.01", "--warmup-seconds", "0", "--json", "-")
OTHER_LIBRARY = np._core._multiarray_umath.__file__  # no delegate
DELEGATE_SOURCE = """
#include <stdint.h>
#include <stdlib.h>

/* TfLiteDelegate, whose Prepare claims no node. */
typedef struct {
  void *data;
  int (*prepare)(void *context, void *delegate);
  void *copies[3];
  int64_t flags;
  void *builder;
} Delegate;

static int prepare(void *context, void *delegate) { return 0; }

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                    void (*report)(const char *)) {
  if (count) {
    report("there is no such option");
    return NULL;
  }
  Delegate *delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(void *delegate) { free(delegate); }
"""
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="hides the Vulkan driver where Linux looks for it"
)
with_fallback = pytest.mark.parametrize(
    "fallback", [[], ["--allow-fallback"]], ids=["strict", "fallback"]
)


@pytest.fixture
def bench(in_process):
    """Runs ``cct-bench`` with a delegate; returns how it ended."""

    def run(format, path, delegate, *arguments):
        return in_process("bench", format, path, "--delegate", delegate, *BRIEF, *arguments)

    return run


@pytest.fixture
def without_vulkan(monkeypatch):
    """Hides the Vulkan driver from child processes."""
    for name in ("LD_LIBRARY_PATH", "VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "/nowhere")


def _error_line(ended, code):
    assert ended.code == code, ended.err
    assert ended.out == ""
    (line,) = ended.err.strip().splitlines()
    return line


@pytest.mark.parametrize(("scheme", "tolerance"), [("none", 1e-5), ("int8", 0.05)])
def test_every_delegate_of_the_cpu_gives_the_same_logits(exports, digit_images, scheme, tolerance):
    path, images = exports("tflite", scheme).path, digit_images[0][:20]
    expected = session.run(litert.open_session(path), images)
    for name in ("xnnpack", "none", "reference"):
        opened = litert.open_session(path, trusted=True, delegation=Delegation(name))
        assert (opened.delegate, opened.accelerator) == (name, "cpu")
        assert opened.delegated_nodes == (opened.total_nodes if name == "xnnpack" else 0)
        logits = session.run(opened, images)
        np.testing.assert_allclose(logits, expected, atol=tolerance * np.abs(expected).max())


def test_without_delegate_no_operator_is_delegated_and_the_record_says_so(exports, bench):
    ended = bench("tflite", exports("tflite").path, "none")
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["runtime"]["delegate"] == "none"
    assert result["runtime"]["delegated_nodes"] == 0
    assert result["parity"]["failures"] == []


@pytest.mark.parametrize(
    ("format", "delegate", "error", "reason"),
    [
        ("tflite", "warp", "InvalidRequest", "is called 'warp': choose from default, xnnpack"),
        ("tflite", "external:", "InvalidRequest", "names no library: write external:/path"),
        ("tflite", "external", "InvalidRequest", "names no library"),
        ("tflite", "external:no/such.so", "InvalidRequest", "no such delegate: no/such.so"),
        ("onnx", "warp", "InvalidRequest", "is called 'warp': choose from default, cpu"),
        ("onnx", "tensorrt", "NotAvailable", "is in onnxruntime-gpu"),
        ("onnx", "NnapiExecutionProvider", "NotAvailable", "is in onnxruntime-android"),
        ("onnx", "plugin:", "InvalidRequest", "names no library: write plugin:/path"),
        ("onnx", "plugin:no/such.so", "InvalidRequest", "no such provider: no/such.so"),
        ("onnx", f"plugin:{OTHER_LIBRARY}", "NotAvailable", "is no provider of ONNX Runtime"),
    ],
)
def test_a_delegate_that_is_not_available_is_refused_in_one_line(
    exports, format, delegate, error, reason
):
    path, delegation = exports(format).path, Delegation(delegate)
    with pytest.raises(getattr(errors, error)) as raised:
        engine_of(format).open_session(path, trusted=True, delegation=delegation)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("format", "delegate", "code", "reason"),
    [
        ("tflite", "external:", 2, "names no library"),
        ("tflite", f"external:{OTHER_LIBRARY}", 6, "is no LiteRT delegate"),
        ("tflite", f"external:{__file__}", 6, "cannot be loaded as a delegate"),
        ("onnx", "tensorrt", 6, "is in onnxruntime-gpu"),
    ],
)
def test_the_refusal_of_a_delegate_is_the_error_of_the_command(
    exports, bench, format, delegate, code, reason
):
    assert reason in _error_line(bench(format, exports(format).path, delegate), code)


@pytest.mark.parametrize(
    ("format", "delegate"),
    [
        *(("tflite", name) for name in ("default", "xnnpack", "none", "reference")),
        *(("onnx", name) for name in ("default", "cpu")),
        ("keras", "cpu"),
    ],
)
def test_a_delegate_without_options_refuses_them(exports, digits_model, format, delegate):
    path = digits_model if format == "keras" else exports(format).path
    delegation = Delegation(delegate, (("speed", "high"),))
    with pytest.raises(InvalidRequest, match="speed"):
        engine_of(format).open_session(path, trusted=True, delegation=delegation)


@pytest.mark.parametrize("name", ["cpu", "CPUExecutionProvider"])
def test_a_provider_may_have_its_name_in_onnx_runtime(exports, name):
    opened = onnxruntime.open_session(exports("onnx").path, delegation=Delegation(name))
    assert opened.accelerator == "cpu"
    assert opened.delegated_nodes == opened.total_nodes > 50


def test_openvino_gets_the_requested_number_of_threads(exports, monkeypatch):
    import onnxruntime as engine

    received = {}

    def inference_session(*_, **arguments):
        received.update(arguments)
        raise RuntimeError("not opened")

    monkeypatch.setattr(engine, "get_available_providers", lambda: ["OpenVINOExecutionProvider"])
    monkeypatch.setattr(engine, "InferenceSession", inference_session)
    for options, threads in (((), "3"), ((("num_of_threads", "1"),), "1")):
        with pytest.raises(NotAvailable, match="not opened"):
            onnxruntime.open_session(
                exports("onnx").path,
                threads=3,
                trusted=True,
                delegation=Delegation("openvino", options),
            )
        assert received["provider_options"] == [{"num_of_threads": threads}]


def test_keras_does_not_run_on_a_gpu_where_there_is_none(digits_model):
    with pytest.raises(NotAvailable, match="runs on the cpu"):
        keras.open_session(digits_model, delegation=Delegation("gpu"))


@on_linux
@pytest.mark.usefixtures("without_vulkan")
@with_fallback
def test_there_is_no_gpu_without_a_vulkan_driver(exports, bench, fallback):
    line = _error_line(bench("tflite", exports("tflite").path, "gpu", *fallback), 6)
    assert "No adapters found" in line or "load Vulkan" in line


@on_linux
@pytest.mark.usefixtures("without_vulkan")
def test_the_log_of_the_engine_is_also_read_where_it_goes_to_a_pipe_and_is_passed_on(exports):
    code = (
        "import sys, pathlib; from cct_export.runtimes.litert import open_session\n"
        "from cct_export.specs import Delegation; from cct_export.errors import NotAvailable\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try: open_session(path, trusted=True, delegation=Delegation('gpu'))\n"
        "except NotAvailable as error: print(error)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, exports("tflite").path], capture_output=True, text=True
    )
    for text in (process.stdout, process.stderr):
        assert "No adapters found" in text or "load Vulkan" in text


@with_fallback
def test_a_file_does_not_run_on_an_npu_where_there_is_none(exports, bench, fallback):
    ended = bench("tflite", exports("tflite").path, "npu", *fallback)
    if ended.code == 0:
        pytest.skip("this machine has an NPU")
    assert "NPU accelerator could not be loaded" in _error_line(ended, 6)


@pytest.fixture(scope="module")
def idle_delegate(tmp_path_factory):
    """A delegate that loads, and runs no operator."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build a delegate with")
    folder = tmp_path_factory.mktemp("delegate")
    source, library = folder / "idle.c", folder / "idle.so"
    source.write_text(DELEGATE_SOURCE)
    process = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True
    )
    if process.returncode:
        pytest.skip(f"{compiler} builds no library: {process.stderr.strip()[-300:]}")
    return library


@with_fallback
def test_a_delegate_that_runs_no_operator_is_refused(exports, bench, idle_delegate, fallback):
    ended = bench("tflite", exports("tflite").path, f"external:{idle_delegate}", *fallback)
    assert "runs none of the" in _error_line(ended, 6)


def test_options_reach_the_delegate_and_its_error_is_reported(exports, bench, idle_delegate):
    path, option = exports("tflite").path, ("--delegate-option", "speed=high")
    ended = bench("tflite", path, f"external:{idle_delegate}", *option)
    assert "there is no such option" in _error_line(ended, 6)


@pytest.mark.slow
def test_the_doctor_tries_every_delegate_and_reports_why_one_does_not_work(cct_export):
    process = cct_export("doctor", "--json", "-")
    assert process.returncode == 0, process.stderr
    delegates = json.loads(process.stdout)["delegates"]
    assert all(row["why"] for row in delegates if row["works"] is not True)
    works = {(row["engine"], row["delegate"]): row["works"] for row in delegates}
    for engine, name in (
        ("litert", "xnnpack"), ("litert", "none"), ("litert", "reference"),
        ("onnxruntime", "cpu"), ("keras", "cpu"),
    ):  # fmt: skip
        assert works[engine, name] is True
    assert works["litert", "external"] is works["onnxruntime", "plugin"] is None
    assert {works["litert", "gpu"], works["keras", "gpu"]} <= {True, False}
    assert not [row for row in delegates if "probe" in row["why"]]  # the model that it runs
