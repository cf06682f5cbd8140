"""The documentation says what the program does."""

import importlib.util
import re
from pathlib import Path

import pytest

import cct_export

ROOT = Path(__file__).parent.parent


def _writer(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_page_is_what_help_prints():
    page = _writer("write_commands").page()
    assert (ROOT / "docs/commands.md").read_text() == page, "run python docs/write_commands.py"


@pytest.mark.slow
def test_the_table_of_models_is_what_the_presets_are():
    page = _writer("write_models").page()
    assert (ROOT / "docs/models.md").read_text() == page, "run python docs/write_models.py"


def test_every_function_of_the_api_is_on_its_page():
    page = (ROOT / "docs/python-api.md").read_text()
    for name in cct_export.__all__:
        if not name.startswith("__"):
            assert f"cct_export.{name}(" in page, name


@pytest.mark.slow
def test_the_examples_of_the_api_page_run(tmp_path, monkeypatch):
    page = (ROOT / "docs/python-api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "docs/python-api.md", "exec"), names)
    assert names["report"].passed
    assert names["logits"].shape == (1, 10)


def test_links_between_the_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
