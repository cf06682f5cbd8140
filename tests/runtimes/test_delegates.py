"""Delegates and providers by name: those of the CPU agree, those that are not here are refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cct_export.errors import NotAvailable
from cct_export.runtimes import litert, onnxruntime, session
from cct_export.specs import Delegation

BRIEFLY = ("--min-runs", "2", "--min-seconds", "0.01", "--warmup-seconds", "0", "--json", "-")
NO_LIBRARY = np._core._multiarray_umath.__file__  # a library, and nobody's delegate
STUB = """
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
  Delegate *made = calloc(1, sizeof(Delegate));
  made->prepare = prepare;
  return made;
}

void tflite_plugin_destroy_delegate(void *delegate) { free(delegate); }
"""


@pytest.fixture
def bench(in_process):
    """Runs ``cct-bench`` with a delegate; returns how it ended."""

    def run(format, path, delegate, *arguments):
        return in_process("bench", format, path, "--delegate", delegate, *BRIEFLY, *arguments)

    return run


def _refusal(ended, code):
    assert ended.code == code, ended.err
    assert ended.out == ""
    (line,) = ended.err.strip().splitlines()
    return line


@pytest.mark.parametrize(("scheme", "share"), [("none", 1e-5), ("int8", 0.05)])
def test_every_delegate_of_the_cpu_gives_the_same_logits(exports, digit_images, scheme, share):
    path, images = exports("tflite", scheme).path, digit_images[0][:20]
    wanted = session.run(litert.open_session(path), images)
    for name in ("xnnpack", "none", "reference"):
        opened = litert.open_session(path, delegation=Delegation(name))
        assert (opened.delegate, opened.accelerator) == (name, "cpu")
        assert opened.delegated_nodes == (opened.total_nodes if name == "xnnpack" else 0)
        found = session.run(opened, images)
        np.testing.assert_allclose(found, wanted, atol=share * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["none", "reference"])
def test_no_delegate_runs_no_operator_and_the_record_says_so(exports, bench, name):
    ended = bench("tflite", exports("tflite").path, name)
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    assert found["runtime"]["delegate"] == name
    assert found["runtime"]["delegated_nodes"] == 0
    assert found["parity"]["failures"] == []


@pytest.mark.parametrize(
    ("format", "delegate", "code", "reason"),
    [
        ("tflite", "warp", 6, "no delegate 'warp': choose default, xnnpack"),
        ("tflite", "external:", 2, "which library?"),
        ("tflite", "external", 2, "which library?"),
        ("tflite", "external:no/such.so", 6, "no such delegate: no/such.so"),
        ("tflite", f"external:{NO_LIBRARY}", 6, "is no LiteRT delegate"),
        ("tflite", f"external:{__file__}", 6, "cannot be loaded as a delegate"),
        ("onnx", "warp", 6, "no provider 'warp': choose cpu, xnnpack"),
        ("onnx", "tensorrt", 6, "it is in onnxruntime-gpu"),
        ("onnx", "NnapiExecutionProvider", 6, "it is in onnxruntime-android"),
        ("onnx", "plugin:", 2, "which library?"),
        ("onnx", "plugin:no/such.so", 6, "no such provider: no/such.so"),
        ("onnx", f"plugin:{NO_LIBRARY}", 6, "is no provider of ONNX Runtime"),
    ],
)
def test_what_is_not_here_is_refused_in_one_line(exports, bench, format, delegate, code, reason):
    assert reason in _refusal(bench(format, exports(format).path, delegate), code)


@pytest.mark.parametrize(
    ("format", "delegate"),
    [
        *(("tflite", name) for name in ("default", "xnnpack", "none", "reference")),
        *(("onnx", name) for name in ("default", "cpu")),
        ("keras", "cpu"),
    ],
)
def test_a_delegate_without_options_refuses_them(
    exports, digits_model, bench, monkeypatch, format, delegate
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    path = digits_model if format == "keras" else exports(format).path
    ended = bench(format, path, delegate, "--delegate-option", "speed=high")
    assert "speed" in _refusal(ended, 2)


@pytest.mark.parametrize("name", ["cpu", "CPUExecutionProvider"])
def test_a_provider_may_be_named_as_the_engine_names_it(exports, bench, name):
    ended = bench("onnx", exports("onnx").path, name)
    assert ended.code == 0, ended.err
    (found,) = ended.record["results"]
    assert found["runtime"]["accelerator"] == "cpu"
    assert found["runtime"]["delegated_nodes"] == found["runtime"]["total_nodes"] > 50


def test_openvino_gets_as_many_threads_as_asked_for(exports, monkeypatch):
    import onnxruntime as engine

    given = {}

    def seen(*_, **arguments):
        given.update(arguments)
        raise RuntimeError("seen")

    monkeypatch.setattr(engine, "get_available_providers", lambda: ["OpenVINOExecutionProvider"])
    monkeypatch.setattr(engine, "InferenceSession", seen)
    for options, wanted in (((), "3"), ((("num_of_threads", "1"),), "1")):
        with pytest.raises(NotAvailable, match="seen"):
            onnxruntime.open_session(
                exports("onnx").path, 3, delegation=Delegation("openvino", options)
            )
        assert given["provider_options"] == [{"num_of_threads": wanted}]


def test_keras_runs_on_no_gpu_where_there_is_none(digits_model, bench, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert "runs on the cpu" in _refusal(bench("keras", digits_model, "gpu"), 6)


@pytest.mark.skipif(sys.platform != "linux", reason="hides Vulkan's driver as Linux finds it")
@pytest.mark.parametrize("fallback", [[], ["--allow-fallback"]], ids=["strict", "fallback"])
def test_without_a_vulkan_driver_there_is_no_gpu(exports, bench, monkeypatch, fallback):
    for name in ("LD_LIBRARY_PATH", "VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "/nowhere")
    line = _refusal(bench("tflite", exports("tflite").path, "gpu", *fallback), 6)
    assert "No adapters found" in line or "load Vulkan" in line


@pytest.mark.skipif(sys.platform != "linux", reason="hides Vulkan's driver as Linux finds it")
def test_what_the_engine_says_is_read_from_a_pipe_too_and_passed_on(exports, monkeypatch):
    for name in ("LD_LIBRARY_PATH", "VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "/nowhere")
    code = (
        "import sys, pathlib; from cct_export.runtimes.litert import open_session\n"
        "from cct_export.specs import Delegation; from cct_export.errors import NotAvailable\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try: open_session(path, trusted=True, delegation=Delegation('gpu'))\n"
        "except NotAvailable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, exports("tflite").path], capture_output=True, text=True
    )
    for said in (done.stdout, done.stderr):
        assert "No adapters found" in said or "load Vulkan" in said


@pytest.mark.parametrize("fallback", [[], ["--allow-fallback"]], ids=["strict", "fallback"])
def test_without_an_npu_nothing_is_accelerated(exports, bench, fallback):
    ended = bench("tflite", exports("tflite").path, "npu", *fallback)
    if ended.code == 0:
        pytest.skip("this machine has an NPU")
    assert "NPU accelerator could not be loaded" in _refusal(ended, 6)


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A delegate that loads, and takes nothing."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to make a delegate with")
    folder = tmp_path_factory.mktemp("delegate")
    source, library = folder / "idle.c", folder / "idle.so"
    source.write_text(STUB)
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"{compiler} makes no library: {made.stderr.strip()[-300:]}")
    return library


@pytest.mark.parametrize("fallback", [[], ["--allow-fallback"]], ids=["strict", "fallback"])
def test_a_delegate_that_takes_nothing_is_refused(exports, bench, idle, fallback):
    ended = bench("tflite", exports("tflite").path, f"external:{idle}", *fallback)
    assert "takes none of the" in _refusal(ended, 6)


def test_options_reach_the_delegate_and_its_answer_is_told(exports, bench, idle):
    path, option = exports("tflite").path, ("--delegate-option", "speed=high")
    ended = bench("tflite", path, f"external:{idle}", *option)
    assert "there is no such option" in _refusal(ended, 6)


def test_the_doctor_tries_every_delegate_and_says_why_not(cct_export):
    done = cct_export("doctor", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["delegates"]
    assert all(one["why"] for one in found if one["works"] is not True)
    works = {(one["engine"], one["delegate"]): one["works"] for one in found}
    for engine, name in (
        ("litert", "xnnpack"), ("litert", "none"), ("litert", "reference"),
        ("onnxruntime", "cpu"), ("keras", "cpu"),
    ):  # fmt: skip
        assert works[engine, name] is True
    assert works["litert", "external"] is works["onnxruntime", "plugin"] is None
    assert {works["litert", "gpu"], works["keras", "gpu"]} <= {True, False}
    assert not [one for one in found if "probe" in one["why"]]  # which the user never heard of
