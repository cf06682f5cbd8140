"""The page of results as text: what is on it, and what never is."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from bench_results import (
    MACHINE,
    accuracy,
    operators,
    parity,
    result,
    several,
    sustained,
    with_file,
    with_runtime,
)

from cct_export.records import Conditions, MachineInfo, OperatorProfile, RunConditions
from cct_export.report.page import page
from cct_export.report.rows import rows

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=alert(1)>\"'&\x00\u202e"


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def _without_scripts(text):
    return re.sub(r"<script.*?</script>", "", text, flags=re.S)


@pytest.fixture(scope="module")
def html():
    """A page of all kinds of results."""
    return page(MACHINE, several())


def test_a_page_is_the_same_for_the_same_results(html):
    assert page(MACHINE, several()) == html


def test_the_page_has_every_result_and_every_section(html):
    for row in rows(several()):
        assert row.artifact in html
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles == [
        "Results", "Trade-offs", "Latency", "Memory", "Operators", "Sustained load", "Confusion",
        "Each result", "Machine",
    ]  # fmt: skip


def test_every_chart_has_words_and_a_table_beside_it(html):
    figures = re.findall("<figure>.*?</figure>", html, re.S)
    assert len(figures) == 1 + 4 + 1 + 3 + 1 + 4
    for figure in figures:
        assert re.search(r'role="img" aria-label="[^"]{20,}"><svg ', figure)
        assert "<caption>" in figure


def test_every_table_has_a_caption_and_every_box_that_scrolls_takes_the_keyboard(html):
    body = _without_scripts(html)
    assert body.count("<table") == body.count("<caption>") > 10
    boxes = re.findall(r'<div class="scroll"[^>]*>', body)
    assert all('tabindex="0"' in box and "aria-label" in box for box in boxes)


def test_nothing_on_the_page_points_to_another_place(html):
    pointing = [
        value
        for _, name, value in Tags(html).attributes
        if name in ("src", "href", "action", "data", "poster", "srcset")
    ]
    assert pointing == ["data:,"]
    (policy,) = (v for t, n, v in Tags(html).attributes if t == "meta" and "default-src" in str(v))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    assert "url(" not in re.search("<style>.*?</style>", html, re.S)[0]


@pytest.fixture(scope="module")
def attacked():
    """The tags of a harmless page and of one all of whose strings are hostile."""

    def build(word):
        harmless = result("a-int8.tflite", runs=40)
        labelled = accuracy(0.8, (word, "b", word))
        profile = operators(derived=True)
        named = tuple(replace(o, name=word, kind=word, where=word) for o in profile.operators)
        measured = with_runtime(
            with_file(harmless, path=word, scheme=word, format=word),
            name=word, version=word, delegate=word, options={word: word},
        )  # fmt: skip
        return [
            replace(
                measured,
                device=word,
                warnings=(word,),
                conditions=RunConditions(Conditions(governor=word, throttled=(word,))),
                accuracy=replace(labelled, data=word),
                operators=OperatorProfile(named, 3, True, word),
                sustained=sustained(),
            ),
            replace(harmless, failure=word),
            replace(harmless, parity=replace(parity(False), failures=(word,), reference=word)),
        ]

    return {
        word: page(MachineInfo(cpu=word, os=word, versions={word: word}), build(word))
        for word in ("harmless", HOSTILE)
    }


def test_hostile_strings_add_no_tag_and_no_attribute(attacked):
    plain, hostile = (Tags(text) for text in attacked.values())
    assert hostile.tags == plain.tags
    assert [a[:2] for a in hostile.attributes] == [a[:2] for a in plain.attributes]
    assert "window.pwned=1" in "".join(hostile.texts)


def test_hostile_names_are_text_in_the_charts(attacked):
    charts = "".join(re.findall(r'<div class="chart".*?</div>', attacked[HOSTILE], re.S))
    assert "pwned" in charts
    assert not {"script", "img", "a"} & set(Tags(charts).tags)


def test_control_characters_and_turned_text_are_not_on_the_page(attacked):
    text = attacked[HOSTILE]
    assert "\x00" not in text
    assert "\u202e" not in text


def test_half_a_surrogate_pair_can_still_be_written():
    warned = result("a-int8.onnx", warnings=("half \ud800 of it",))
    page(MACHINE, [warned]).encode("utf-8")


def test_a_file_that_failed_parity_shows_no_latency():
    wrong = result("wrong-int8.onnx", 7.77, seed=1, parity=parity(False),
                   operators=operators(), sustained=sustained())  # fmt: skip
    text = page(MACHINE, [result("right-int8.onnx"), wrong])
    assert "refused: parity failed" in text
    assert "SQNR 11.2 dB is below 30 dB" in text
    assert "7.7" not in "".join(Tags(_without_scripts(text)).texts)
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert "Operators" not in titles
    assert "Sustained load" not in titles


def test_the_page_shows_unknown_parity():
    assert ">unknown<" in page(MACHINE, [result("a-int8.onnx", parity=None)])


def test_derived_times_are_marked():
    native = page(MACHINE, [result("a-int8.onnx", operators=operators())])
    derived = page(MACHINE, [result("a-int8.onnx", operators=operators(derived=True))])
    assert "derived" not in _without_scripts(native).lower()
    assert "(derived)" in derived


def test_unknown_facts_and_empty_sections_are_left_out():
    bare = replace(
        with_file(result("a-int8.onnx"), size_bytes=None, sha256=None, scheme=""),
        peak_rss_bytes=None, load_ms=None, parity=None, conditions=RunConditions(),
    )  # fmt: skip
    text = page(MachineInfo(), [bare])
    assert re.findall("<h2>(.*?)</h2>", text) == ["Results", "Latency", "Each result"]
    assert "sha256" not in text[text.index("<body>") :]
    assert re.findall("<h2>(.*?)</h2>", page(MachineInfo(), [])) == ["Results"]


def test_many_runs_make_no_larger_page():
    few, many = (page(MACHINE, [result("a-int8.onnx", runs=n)]) for n in (400, 600_000))
    assert abs(len(many) - len(few)) < 15_000


def _many(classes):
    """Twenty results with all that a page shows, on test images of so many classes."""
    names = [f"name of class {index}" for index in range(classes)]
    return [
        result(
            f"runs/cct_number_{index}-int8.{('tflite', 'onnx')[index % 2]}", 1 + 0.3 * index,
            seed=index, runs=2000, operators=operators(), sustained=sustained(),
            accuracy=accuracy(0.7 + 0.01 * index, names, index),
        )
        for index in range(20)
    ]  # fmt: skip


@pytest.mark.parametrize("classes", [10, 100])
def test_a_page_of_twenty_results_is_no_larger_than_a_photo(classes):
    assert len(page(MACHINE, _many(classes)).encode()) <= 1_500_000


def test_a_page_of_one_result_is_small():
    assert len(page(MACHINE, several()[1:2]).encode()) <= 100_000


def test_a_nan_does_not_break_the_page():
    profile = operators()
    broken = tuple(replace(operator, ms=float("nan")) for operator in profile.operators)
    measured = result("a-int8.onnx", operators=replace(profile, operators=broken))
    drawings = re.findall(r"<svg .*?</svg>", page(MACHINE, [measured]), re.S)
    assert not [drawing for drawing in drawings if re.search(r'="[^"]*(nan|inf)', drawing)]


def test_one_of_a_thing_is_not_said_in_the_plural():
    machine = replace(MACHINE, cores=1)
    lonely = result("a-int8.onnx", runs=1, bursts=((1,),), warnings=("loud",))
    text = page(machine, [lonely])
    assert "1 core, Linux" in text
    assert "1 of 1 result has warnings" in text
    assert "Histogram of 1 run of" in text
    assert "Peak memory of 1 result;" in text
    assert not re.findall(
        r"\b1 (?:cores|results|runs|images|classes|operators|others|threads)", text
    )


def test_two_of_a_thing_are_said_in_the_plural():
    text = page(MACHINE, [result(f"{name}-int8.onnx", runs=2000) for name in "ab"])
    assert "2 cores, Linux" in text
    assert "cct-bench: 2 results" in text
    assert "Histogram of 2,000 runs of" in text


def test_the_bounds_of_an_interval_stay_together():
    text = page(MACHINE, [result("a-int8.onnx", accuracy=accuracy(0.841))])
    assert '84.1% <span class="bounds">(83.4–84.8)</span></td>' in text
