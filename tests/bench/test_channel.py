"""A worker that answers, raises, prints, crashes, hangs or ends."""

import io
import json
import sys

import pytest

from cct_export import errors
from cct_export.bench import worker
from cct_export.bench.hosts.channel import Channel
from cct_export.errors import EngineFailed


def channel(code, **options):
    return Channel([sys.executable, "-c", code], "m.tflite", **options)


ANSWERING = """
import json, sys
for line in sys.stdin:
    question = json.loads(line)
    for reply in question.pop("replies"):
        print(json.dumps(reply), flush=True)
"""


def test_an_answer_is_what_the_worker_wrote():
    with channel(ANSWERING) as worker_:
        assert worker_.ask("x", replies=[{"a": 1.5}]) == {"a": 1.5}
        assert worker_.ask("x", replies=[{"b": [1, None]}]) == {"b": [1, None]}


def test_progress_is_told_and_is_no_answer():
    told = []
    with channel(ANSWERING) as worker_:
        replies = [{"progress": [1, 2]}, {"progress": [2, 2]}, {"a": 1}]
        answer = worker_.ask("x", lambda done, total: told.append((done, total)), replies=replies)
    assert answer == {"a": 1}
    assert told == [(1, 2), (2, 2)]


def _all_errors():
    return [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CCTExportError)
    ]


@pytest.mark.parametrize("error", _all_errors())
def test_an_error_in_the_worker_is_the_same_error_here(error, monkeypatch):
    def fail(self, **arguments):
        raise error("what is wrong")

    monkeypatch.setattr(worker.Worker, "conditions", fail)
    answers = io.StringIO()
    worker.serve(io.StringIO('{"ask": "conditions"}\n'), answers)
    reply = json.loads(answers.getvalue())
    with channel(ANSWERING) as worker_, pytest.raises(error, match="what is wrong") as raised:
        worker_.ask("x", replies=[reply])
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
def test_a_worker_that_ends_is_one_line_that_says_how(code, reason):
    with channel(code) as worker_, pytest.raises(EngineFailed) as raised:
        worker_.ask("open")
    assert str(raised.value) == f"m.tflite: {reason}"


def test_a_worker_that_hangs_is_ended():
    said = r"no answer to 'burst' within 0.3 s"
    endless = "import time; time.sleep(60)"
    with channel(endless, limit_s=0.3) as worker_, pytest.raises(EngineFailed, match=said):
        worker_.ask("burst")


def test_what_an_engine_prints_is_no_answer(monkeypatch, tmp_path):
    code = (
        "import os\n"
        "from cct_export.bench import worker\n"
        "def noisy(self):\n"
        "    print('from Python'); os.write(1, b'from C\\n'); return {'a': 1}\n"
        "worker.Worker.conditions = noisy\n"
        "worker.main()\n"
    )
    with channel(code) as worker_:
        assert worker_.ask("conditions") == {"a": 1}
        assert worker_.ask("conditions") == {"a": 1}
