"""The documentation agrees with the program and with the measured results."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import click
import pytest

import cct_export
from cct_export import api
from cct_export.commands import program

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "benchmarks/README.md"]


def _writer(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _python(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_command_page_is_what_help_prints():
    page = _writer("write_commands").page()
    assert (ROOT / "docs/commands.md").read_text() == page, "run python docs/write_commands.py"


@pytest.mark.slow
def test_the_table_of_models_is_what_the_presets_are():
    page = _writer("write_models").page()
    assert (ROOT / "docs/models.md").read_text() == page, "run python docs/write_models.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_figures_of_a_page_are_those_of_the_results(page):
    import tables

    text = page.read_text()
    command = f"run python benchmarks/run.py --write {page.relative_to(ROOT)}"
    assert tables.rendered(text) == text, command
    assert not re.search(r"^ *<!-- results:figure", text, re.MULTILINE), "would be a block of HTML"


def test_the_picture_of_the_readme_shows_the_results():
    import picture
    import record
    from PIL import Image

    (arguments,) = re.findall("<!-- results:picture (.*?) -->", (ROOT / "README.md").read_text())
    path, *folders = arguments.split()
    with Image.open(ROOT / path) as image:
        shown = image.info[picture.DIGEST_KEY]
    expected = picture.digest([record.read(folder) for folder in folders])
    assert shown == expected, "run python benchmarks/run.py --write README.md"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1500
    assert len(re.findall(r"^\|", text, re.MULTILINE)) <= 25


def test_every_function_of_the_api_is_on_its_page():
    page = (ROOT / "docs/python-api.md").read_text()
    for name in api.__all__:
        assert f"cct_export.{name}(" in page, name


def _run(blocks, names):
    for block in blocks:
        exec(compile(block, "docs/python-api.md", "exec"), names)


def test_the_examples_of_the_api_page_run(tmp_path, monkeypatch, digits_run):
    blocks = [block for block in _python("docs/python-api.md") if "cct_export.train(" not in block]
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run, "runs/digits")
    names = {}
    _run(blocks, names)
    assert names["report"].passed
    assert names["logits"].shape == (1, 10)


@pytest.mark.slow
def test_the_training_examples_of_the_api_page_run(tmp_path, monkeypatch):
    blocks = [block for block in _python("docs/python-api.md") if "cct_export.train(" in block]
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names = {"cct_export": cct_export}
    _run(blocks, names)
    assert names["trained"].best.is_file()


@pytest.mark.slow
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    _run(_python("README.md"), names)
    assert names["exported"].parity.passed


def _examples(text):
    """Yields the words of every cct-export and cct-bench command in the blocks of a page."""
    for kind, body in re.findall(r"^```(bash|console)\n(.*?)^```$", text, re.M | re.DOTALL):
        start = r"^\$ .*?" if kind == "console" else ""
        for line in re.findall(
            start + r"\b(cct-(?:export|bench) .*)", body.replace("\\\n", " "), re.M
        ):
            yield shlex.split(line, comments=True)


def _command(words):
    """Returns the click command that ``words`` begin with, and the words after it."""
    name, *words = words
    command = {"cct-export": program.export, "cct-bench": program.bench}[name]
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(click.Context(command), name)
        assert command, name
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_and_options_in_the_examples_of_a_page_exist(page):
    for example in _examples(page.read_text()):
        command, words = _command(example)
        known = {name for option in command.params for name in option.opts + option.secondary_opts}
        used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert used <= known, example


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_links_between_the_pages_lead_somewhere():
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_to_sections_lead_to_headings():
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            text = ((page.parent / target) if target else page).read_text()
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{page.name}: {target}#{anchor}"
