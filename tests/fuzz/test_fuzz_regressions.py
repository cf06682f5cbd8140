"""Inputs that once failed, and the seeds themselves, on the real commands in a watched process."""

import pytest

from fuzz import cases, regressions, seeds
from fuzz.kinds import KINDS
from fuzz.pool import Worker
from fuzz.worker import Task

FILES = sorted(regressions.FOLDER.glob("*.json"))
# What no command accepts, though nothing in it is damaged.
REFUSED = {"recipe": 1, "saved-model": 1}


@pytest.fixture(scope="module")
def seeds_folder(once):
    """The seeds of all kinds."""
    return once("fuzz", lambda folder: seeds.make(folder / "seeds")) / "seeds"


@pytest.fixture(scope="module")
def worker(seeds_folder):
    """A process that runs commands."""
    worker = Worker(seeds_folder)
    yield worker
    worker.stop()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_input_that_once_failed_ends_as_promised(worker, seeds_folder, path):
    case = regressions.read(path, seeds_folder)
    if KINDS[case.kind].available():
        result = worker.run(Task(case.kind, case.number, case=case))
        assert result.failures == (), result.ended


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.available()])
def test_a_seed_is_accepted(worker, seeds_folder, kind):
    form = KINDS[kind].forms[0]
    files = cases.original(seeds_folder, form)
    case = cases.Case(kind, 0, form.words, files, form.target, 0)
    result = worker.run(Task(kind, case=case))
    assert result.failures == (), result.ended
    assert result.ended.code == REFUSED.get(kind, 0), result.ended.err
