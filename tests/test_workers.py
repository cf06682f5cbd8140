"""A worker that answers, raises, prints, crashes, hangs or ends."""

import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cct_export import errors, workers
from cct_export.bench.protocol import Burst, Processing
from cct_export.errors import EngineFailed
from cct_export.workers import Channel, Question, Reply


def channel(code, **options):
    return Channel([sys.executable, "-c", code], "m.tflite", **options)


REPLAYING = """
import json, sys
for line in sys.stdin:
    for reply in json.loads(line)["arguments"]["replies"]:
        print(json.dumps(reply), flush=True)
"""


def test_an_answer_is_the_record_that_the_worker_returned():
    with channel(REPLAYING) as replaying:
        replies = [{"answer": {"preprocess_ms": 1.5}}]
        assert replaying.ask("x", Processing, replies=replies) == Processing(1.5)
        assert replaying.ask("x", list[int | None], replies=[{"answer": [1, None]}]) == [1, None]
        replaying.tell("x", replies=[{"answer": None}])


def test_progress_is_reported_and_is_no_answer():
    counts = []
    replies = [{"progress": [1, 2]}, {"progress": [2, 2]}, {"answer": 1}]
    with channel(REPLAYING) as replaying:
        answer = replaying.ask("x", int, lambda *count: counts.append(count), replies=replies)
    assert answer == 1
    assert counts == [(1, 2), (2, 2)]


def test_infinity_and_nan_survive_the_channel():
    for value in (math.inf, -math.inf, math.nan):
        reply = workers._decode(workers.encode(Reply(answer=value)))
        assert reply.answer == pytest.approx(value, nan_ok=True)


def _all_errors():
    return [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CCTExportError)
    ]


class Failing:
    """A worker whose every answer is an error."""

    def __init__(self, error):
        self.error = error

    def fail(self):
        raise self.error("what is wrong")


def test_an_error_in_the_worker_is_raised_by_the_channel():
    with channel(REPLAYING) as replaying:
        for error in _all_errors():
            questions, replies = io.StringIO(workers.encode(Question("fail"))), io.StringIO()
            workers.serve(lambda _, error=error: Failing(error), questions, replies)
            with pytest.raises(error, match="what is wrong") as raised:
                replaying.ask("x", dict, replies=[json.loads(replies.getvalue())])
            assert type(raised.value) is error


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "the engine crashed (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the engine crashed (SIGSEGV)"),
        (
            "import sys; print('first\\nno such thing', file=sys.stderr); sys.exit(4)",
            "no such thing",
        ),
        ("import sys; sys.exit(4)", "the engine ended with 4"),
    ],
)
def test_a_worker_that_ends_raises_one_line_with_the_reason(code, reason):
    with channel(code) as ended, pytest.raises(EngineFailed) as raised:
        ended.ask("open", dict)
    assert str(raised.value) == f"m.tflite: {reason}"


def test_a_worker_that_hangs_is_killed():
    message = r"no answer to 'burst' within 0.3 s"
    endless = "import time; time.sleep(60)"
    with channel(endless, limit_s=0.3) as hanging, pytest.raises(EngineFailed, match=message):
        hanging.ask("burst", dict)


def test_a_line_that_is_no_reply_is_an_error():
    with channel("print('Hello')") as talking, pytest.raises(EngineFailed, match=r"but 'Hello"):
        talking.ask("open", dict)


class Odd:
    """A worker that prints, takes memory, and names processes."""

    def __init__(self, progress):
        pass

    def print(self):
        print("from Python")
        os.write(1, b"from C\n")
        return {"a": 1}

    def take(self, size):
        return len(bytearray(size))

    def number(self):
        return os.getpid()

    def sleep(self):
        time.sleep(600)


TARGET = "test_workers:Odd"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_output_of_an_engine_is_not_taken_for_an_answer():
    with workers.start(TARGET, "m.tflite") as noisy:
        assert noisy.ask("print", dict) == {"a": 1}
        assert noisy.ask("print", dict) == {"a": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no private memory")
def test_a_worker_cannot_take_more_memory_than_it_may():
    limit = 1 << 30
    with workers.start(TARGET, "m.tflite", memory_bytes=limit) as limited:
        assert limited.ask("take", int, size=limit // 4) == limit // 4
        with pytest.raises(EngineFailed, match="MemoryError"):
            limited.ask("take", int, size=limit)
    with workers.start(TARGET, "m.tflite") as another:
        assert another.ask("take", int, size=limit) == limit


def _is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_ends_when_the_process_that_started_it_is_killed():
    code = (
        "from cct_export import workers\n"
        f"channel = workers.start({TARGET!r}, 'm.tflite')\n"
        "print(channel.ask('number', int), flush=True)\n"
        "channel.tell('sleep')"
    )
    root = str(workers.package_root())
    path = os.pathsep.join([root, str(Path(__file__).parent)])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    worker = int(parent.stdout.readline())
    assert _is_alive(worker)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while _is_alive(worker) and not _is_zombie(worker):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


def _is_zombie(number):
    """Whether it has ended, and nobody has asked how: in a container there may be no init."""
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_an_error_ends_a_worker_that_is_busy():
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), workers.start(TARGET, "m.tflite") as busy:
        number = busy.ask("number", int)
        busy._process.stdin.write(workers.encode(Question("sleep")))
        busy._process.stdin.flush()
        raise KeyboardInterrupt
    assert not _is_alive(number)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    "reply",
    [
        {"answer": {"times_ns": [5], "yardstick_ms": math.nan}},
        {"answer": {"times_ns": []}},
        {"answer": {"times_ns": [0]}},
        {"answer": {"times_ns": [5], "other_cores": math.inf}},
        {"answer": None},
        {"error": "what", "kind": "system"},
    ],
)
def test_an_answer_that_cannot_be_is_an_error_of_the_engine(reply):
    with channel(REPLAYING) as replaying, pytest.raises(EngineFailed) as raised:
        replaying.ask("burst", Burst, replies=[reply])
    assert len(str(raised.value).splitlines()) == 1


def test_a_reply_that_is_nested_too_deep_is_none():
    assert workers._decode('{"answer": ' + "[" * 100_000) is None
