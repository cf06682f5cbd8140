"""The page of results as text: what is on it, and what never is."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
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
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.errors import MissingDependency
from cct_export.records import Conditions, MachineInfo, OperatorProfile, RunConditions
from cct_export.report.charts.chart import literal
from cct_export.report.charts.confusion import confusion
from cct_export.report.charts.latency import bins, histogram
from cct_export.report.charts.pareto import front, scatters
from cct_export.report.page import page
from cct_export.report.rows import labels, rows

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


def _data(text):
    return json.loads(re.search(r'id="charts">(.*?)</script>', text, re.S)[1])


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
    tags = Tags(html)
    charts = [value for _, name, value in tags.attributes if name == "data-chart"]
    assert charts == [str(index) for index in range(len(_data(html)))]
    assert len(charts) == 1 + 4 + 1 + 3 + 1 + 4
    for figure in re.findall("<figure>.*?</figure>", html, re.S):
        assert re.search(r'role="img" aria-label="[^"]{20,}"', figure)
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
    assert "connect-src" not in policy
    assert "url(" not in re.search("<style>.*?</style>", html, re.S)[0]


def test_plotly_is_loaded_once_and_later_than_the_data(html):
    assert html.count("plotly.js v") == 1
    assert html.index('id="charts"') < html.index("plotly.js v")


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


def test_hostile_strings_leave_no_markup_for_plotly_to_read(attacked):
    figures = json.dumps(_data(attacked[HOSTILE]))
    assert "pwned" in figures
    assert "<script" not in figures
    assert "<img" not in figures


def test_data_cannot_end_the_element_that_it_stands_in(html):
    data = re.search(r'id="charts">(.*?)</script>', html, re.S)[1]
    assert "<" not in data
    assert "<b>" in json.dumps(json.loads(data))


def test_control_characters_and_turned_text_are_not_on_the_page(attacked):
    text = attacked[HOSTILE]
    assert "\x00" not in text
    assert "\u202e" not in text


@given(st.text())
def test_text_in_a_chart_has_no_tag(text):
    shown = literal(text, 20)
    assert "<" not in shown
    assert len(shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")) <= 20


def test_half_a_surrogate_pair_can_still_be_written():
    warned = result("a-int8.onnx", warnings=("half \ud800 of it",))
    page(MACHINE, [warned]).encode("utf-8")


def test_a_file_that_failed_parity_shows_no_latency():
    wrong = result("wrong-int8.onnx", 7.77, seed=1, parity=parity(False),
                   operators=operators(), sustained=sustained())  # fmt: skip
    text = page(MACHINE, [result("right-int8.onnx"), wrong])
    assert "refused: parity failed" in text
    assert "SQNR 11.2 dB is below 30 dB" in text
    assert "7.7" not in _without_scripts(text).replace("7.7 ms first", "")
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
    assert abs(len(many) - len(few)) < 5_000


def test_a_nan_does_not_break_the_data():
    profile = operators()
    broken = tuple(replace(operator, ms=float("nan")) for operator in profile.operators)
    measured = result("a-int8.onnx", operators=replace(profile, operators=broken))
    assert len(_data(page(MACHINE, [measured]))) == 4


def test_without_plotly_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingDependency, match=r"cct-export\[report\]"):
        page(MACHINE, several())


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=300))
def test_a_histogram_counts_every_run_once(times):
    histogram = bins(times)
    assert sum(histogram.counts) + histogram.beyond == len(times)
    assert histogram.beyond <= 0.02 * len(times)
    assert len(histogram.edges) == len(histogram.counts) + 1 <= 81
    assert np.all(np.diff(histogram.edges) > 0)
    assert histogram.beyond == sum(time / 1e6 > histogram.edges[-1] for time in times)


def test_a_histogram_notes_the_runs_it_leaves_out():
    times = (1_000_000, 1_010_000, 1_020_000, 1_030_000) * 100 + (90_000_000,)
    chart = histogram("a", result("a-int8.onnx", times_ns=times, bursts=()), 0)
    assert "401 runs, of which 1 slower than" in chart.note
    assert (
        "not drawn"
        not in histogram("a", result("a-int8.onnx", times_ns=times[:-1], bursts=()), 0).note
    )


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def _beats(point, other):
    return point != other and point[0] <= other[0] and point[1] >= other[1]


@given(POINTS)
def test_the_front_has_the_points_that_no_other_beats(points):
    on_it = set(front(points))
    for index, point in enumerate(points):
        assert (index in on_it) == (not any(_beats(other, point) for other in points))


def test_points_without_accuracy_have_a_chart_of_their_own():
    table = rows([
        result("a-int8.onnx", accuracy=accuracy()),
        result("b-int8.onnx", 3.0, seed=1),
        result("c-int8.onnx", 4.0, seed=2, parity=None),
        result("d-float32.onnx", parity=parity(sqnr_db=float("inf"))),
        result("e-int8.onnx", parity=parity(False), accuracy=accuracy()),
    ])  # fmt: skip
    charts = {chart.title: chart for chart in scatters(table, labels(table))}
    assert {title: [line[1] for line in chart.body] for title, chart in charts.items()} == {
        "Latency and accuracy": ["a-int8.onnx"],
        "Latency and SQNR": ["b-int8.onnx"],
        "Latency and size": ["c-int8.onnx", "d-float32.onnx"],
    }


def test_an_engine_has_the_same_colour_in_all_charts():
    text = page(MACHINE, [
        result("a-int8.tflite"), result("b-int8.onnx"),
        result("c-int8.tflite", accuracy=accuracy()), result("d-int8.onnx", accuracy=accuracy()),
    ])  # fmt: skip
    scatter, noise, *latency = _data(text)[:-3]
    colours = [
        {trace["name"]: trace["marker"]["color"] for trace in chart["data"][1:]}
        for chart in (scatter, noise)
    ]
    assert colours[0] == colours[1]
    bars = [chart["data"][0]["marker"]["color"] for chart in latency]
    assert bars == 2 * list(colours[0].values())
    assert len(set(bars)) == 2


def test_the_area_of_a_marker_is_the_size_of_the_file():
    table = rows([
        result("a-int8.onnx", size=4_000_000, accuracy=accuracy()),
        result("b-int8.onnx", size=1_000_000, accuracy=accuracy()),
    ])  # fmt: skip
    (chart,) = scatters(table, labels(table))
    big, small = chart.figure["data"][1]["marker"]["size"]
    assert (big / small) ** 2 == pytest.approx(4)


def test_a_matrix_that_is_not_square_is_not_drawn():
    assert confusion("a", replace(accuracy(), confusion=((1, 2), (3,)))) is None
    assert confusion("a", replace(accuracy(), confusion=())) is None


def test_two_classes_of_the_same_name_stay_two():
    chart = confusion("a", accuracy(0.8, ("same", "same", "other")))
    assert chart.figure["layout"]["xaxis"]["tickvals"] == [0, 1, 2]
    assert [line[0] for line in chart.body] == ["same", "same", "other"]


@given(st.integers(2, 120))
@settings(max_examples=10, deadline=None)
def test_many_classes_do_not_write_over_each_other(classes):
    chart = confusion("a", accuracy(0.8, [f"class {index}" for index in range(classes)]))
    assert len(chart.figure["layout"]["xaxis"]["ticktext"]) <= 16
    assert len(chart.body) == classes
