"""A worker that answers, raises, prints, crashes, hangs or ends."""

import io
import json
import math
import sys

import pytest

from cct_export import errors
from cct_export.bench import protocol, worker
from cct_export.bench.protocol import Channel, Processing, Question, Reply
from cct_export.errors import EngineFailed


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
        reply = protocol._decode(protocol.encode(Reply(answer=value)))
        assert reply.answer == pytest.approx(value, nan_ok=True)


def _all_errors():
    return [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CCTExportError)
    ]


def test_an_error_in_the_worker_is_raised_by_the_channel(monkeypatch):
    with channel(REPLAYING) as replaying:
        for error in _all_errors():

            def fail(self, error=error):
                raise error("what is wrong")

            monkeypatch.setattr(worker.Worker, "conditions", fail)
            replies = io.StringIO()
            worker.serve(io.StringIO(protocol.encode(Question("conditions"))), replies)
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


def test_output_of_an_engine_is_not_taken_for_an_answer():
    code = (
        "import os\n"
        "from cct_export.bench import worker\n"
        "def noisy(self):\n"
        "    print('from Python'); os.write(1, b'from C\\n'); return {'a': 1}\n"
        "worker.Worker.conditions = noisy\n"
        "worker.main()\n"
    )
    with channel(code) as noisy:
        assert noisy.ask("conditions", dict) == {"a": 1}
        assert noisy.ask("conditions", dict) == {"a": 1}


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
        replaying.ask("burst", protocol.Burst, replies=[reply])
    assert len(str(raised.value).splitlines()) == 1


def test_a_reply_that_is_nested_too_deep_is_none():
    assert protocol._decode('{"answer": ' + "[" * 100_000) is None
