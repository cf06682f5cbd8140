"""State dicts on disk, and imports that must fail with one line."""

import pytest
from state_dicts import write_safetensors


@pytest.fixture
def saved(tmp_path):
    """Writes a state dict and returns the path."""
    return lambda arrays: write_safetensors(tmp_path / "m.safetensors", arrays)


@pytest.fixture
def refused(in_process, tmp_path, monkeypatch):
    """Runs an import that must fail with one line and write nothing; returns the line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=1):
        before = sorted(tmp_path.rglob("*"))
        ended = in_process("export", "import", *arguments)
        assert ended.code == code, ended.err
        (line,) = ended.err.splitlines()
        assert line.startswith("error: ")
        assert "this is a bug" not in line
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return run
