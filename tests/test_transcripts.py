"""What the pages show is what the program prints."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WRITER = ROOT / "docs/write_transcripts.py"
spec = importlib.util.spec_from_file_location("write_transcripts", WRITER)
transcripts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(transcripts)
# The output of --help, by docs/write_commands.py.
WRITTEN = [page for page in transcripts.PAGES if page.name != "commands.md"]
FAST = [page for page in WRITTEN if "<!-- transcript: fast" in page.read_text()]
name = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)


def block(commands, made="fast"):
    return f"Text.\n\n<!-- transcript: {made} -->\n```console\n{commands}```\n\nMore.\n"


@pytest.mark.parametrize("page", FAST, ids=lambda page: page.name)
def test_a_page_shows_what_its_commands_print(page):
    text = page.read_text()
    today = transcripts.masked(transcripts.rewritten(text, {"fast"})).splitlines()
    assert today == transcripts.masked(text).splitlines(), (
        f"run python docs/write_transcripts.py {page}"
    )


@name
def test_every_console_block_says_how_it_was_made_and_begins_with_a_command(page):
    text = page.read_text()
    marked = list(transcripts.TRANSCRIPT.finditer(text))
    assert len(marked) == len(re.findall(r"^ *```console", text, re.MULTILINE))
    assert len(marked) == text.count("<!-- transcript:")
    for match in marked:
        assert list(transcripts.shown(match["body"]))


@name
def test_what_a_program_prints_is_in_a_console_block(page):
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.DOTALL):
        assert language != "text" or "├── " in body, f"no folder tree: {body}"
        assert language, f"a block without its language: {body}"
        assert language == "console" or not body.startswith("$ "), body


def test_both_streams_are_written_in_the_order_of_the_lines():
    code = "import sys; print(1); print(2, file=sys.stderr); print(3)"
    page = block(f"$ python -c '{code}'\n9\n8\n")
    assert transcripts.rewritten(page, {"fast"}) == block(f"$ python -c '{code}'\n1\n2\n3\n")


def test_commands_share_a_folder_with_those_above_them_and_with_the_setup():
    page = block("$ cat a | tr a b && \\\n    cat b\n", "fast\necho a > a\n") + block(
        "$ echo c > c\n$ cat c\n"
    )
    written = transcripts.rewritten(page.replace("$ cat a", "$ echo b > b && cat a"), {"fast"})
    assert "    cat b\nb\nb\n```" in written
    assert "$ cat c\nc\n```" in written


def test_slow_transcripts_and_those_from_elsewhere_stay():
    page = block("$ false\nslow\n", "slow") + block("$ false\nelsewhere\n", "elsewhere")
    assert transcripts.rewritten(page, {"fast"}) == page


def test_a_transcript_is_made_where_the_module_that_it_needs_is_installed():
    page = block("$ echo today\nformer\n", "slow, needs no_such_module")
    assert transcripts.rewritten(page, {"slow"}) == page
    page = page.replace("no_such_module", "json")
    assert transcripts.rewritten(page, {"slow"}) == page.replace("former", "today")


def test_the_last_command_has_to_end_with_the_exit_code_of_the_page():
    assert transcripts.rewritten(block("$ exit 3\n", "fast, exit 3"), {"fast"})
    with pytest.raises(ValueError, match="'exit 3' ends with 3, not 0"):
        transcripts.rewritten(block("$ exit 3\n"), {"fast"})
    with pytest.raises(ValueError, match="'true' ends with 0, not 6"):
        transcripts.rewritten(block("$ true\n", "fast, exit 6"), {"fast"})


@pytest.mark.parametrize(
    ("former", "kept"),
    [
        ("x\nx", "a\nb 1.5\nc\nd\ne"),
        ("x\n…", "a\n…"),
        ("x\n…\nd", "a\n…\nd\ne"),
        ("x\n…\nb 2.5\n…", "a\n…\nb 1.5\n…"),
        ("x\n…\nb no more\n…", "a\n…\nb 1.5\n…"),
        ("…\nb 0.1\nx\n…\ne", "…\nb 1.5\nc\n…\ne"),
    ],
)
def test_lines_that_the_page_leaves_out_stay_out(former, kept):
    printed = ["a", "b 1.5", "c", "d", "e"]
    assert transcripts.kept(printed, former.splitlines()) == kept.splitlines()


def test_a_line_that_is_printed_no_more_is_named():
    with pytest.raises(ValueError, match="'gone'"):
        transcripts.kept(["a", "b"], ["a", "…", "gone"])


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("p50 0.162 ms,  64 MB", "p50 11.5 ms, 1,064 MB"),
        ("max |difference| 1.90e-01, top-1 90.1%", "max |difference| 2.0e+00, top-1 100%"),
        ("range -14 … 15.5", "range 3 … 4"),
    ],
)
def test_measured_numbers_may_differ(text, other):
    assert transcripts.masked(text) == transcripts.masked(other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("344,904 bytes", "344,905 bytes"),
        ("200 training images", "20 training images"),
        ("cct_2_3x2_32.tflite", "cct_2_3x1_32.tflite"),
        ("tokenizer/0/conv 108/108", "tokenizer/1/conv 108/108"),
        ("p50 ms  kB", "p50 ms  MB"),
        ("passed 0.1 ms", "passed – ms"),
    ],
)
def test_words_names_counts_and_sizes_may_not_differ(text, other):
    assert transcripts.masked(text) != transcripts.masked(other)
