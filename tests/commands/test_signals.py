"""A signal ends every command, cleans up, and is told by the exit code."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from hostile_models import endless_onnx

EXPORT = "from cct_export.commands.program import export_main; export_main()"
# A program in the middle of native code that never ends.
NATIVE = """
from cct_export.commands import signals
signals.install()
import tensorflow as tf

@tf.function
def endless():
    return tf.while_loop(lambda step: step > -1.0, lambda step: step * 1.0, [tf.constant(1.0)])

print("running", flush=True)
endless()
"""
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _children(process):
    return psutil.Process(process.pid).children(recursive=True)


def _predict(folder, **options):
    """Starts a prediction that never ends; returns it and its worker."""
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, "predict", endless_onnx(folder / "m.onnx"), "cat.png"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    deadline = time.monotonic() + 120
    while not (workers := _children(process)) or workers[0].cpu_times().user < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process, workers[0]


@pytest.fixture
def image(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_command_whose_engine_never_ends(tmp_path, number):
    process, worker = _predict(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    assert "Traceback" not in err
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running()
    assert sorted(os.listdir(tmp_path)) == ["cat.png", "m.onnx"]  # noqa: PTH208


@pytest.mark.usefixtures("image")
def test_the_worker_ends_too_when_a_command_is_killed(tmp_path):
    process, worker = _predict(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    gone, _ = psutil.wait_procs([worker], timeout=60)
    assert gone or worker.status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("image")
def test_what_ignores_that_its_terminal_closes_goes_on(tmp_path):
    process, _ = _predict(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_native_code_that_never_ends(number):
    process = subprocess.Popen(
        [sys.executable, "-c", NATIVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "running\n"
    time.sleep(1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number


def test_a_fork_that_ends_does_not_end_the_program():
    code = (
        "import os, signal, time\n"
        "from cct_export.commands import signals\n"
        "signals.install()\n"
        "ready, tell = os.pipe()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os.write(tell, b'.')\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "os.read(ready, 1)\n"
        "os.kill(child, signal.SIGTERM)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143\n"
        "signals._RAISE_LIMIT_S = 0.1\n"
        "time.sleep(1)\n"
        "print('going on')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "going on\n", ended.stderr


def test_a_signal_that_arrives_in_a_callback_is_not_lost():
    code = (
        "import gc, os, signal, time\n"
        "from cct_export.commands import signals\n"
        "signals.install()\n"
        "def interrupt(phase, info):\n"
        "    gc.callbacks.clear()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.1)\n"
        "gc.callbacks.append(interrupt)\n"
        "gc.collect()\n"
        "time.sleep(20)\n"
        "print('going on')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")


@pytest.mark.parametrize("error", ["ImportError('of an import')", "MemoryError()"])
def test_a_signal_that_comes_out_as_another_error_is_told_by_the_exit_code(error):
    code = (
        "import os, signal, time\n"
        "from cct_export.commands import artifact, program\n"
        "def interrupted(**arguments):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(20)\n"
        "    except SystemExit:\n"
        f"        raise {error} from None\n"
        "artifact.doctor.callback = interrupted\n"
        "program.export_main()"
    )
    command = [sys.executable, "-c", code, "doctor"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")
