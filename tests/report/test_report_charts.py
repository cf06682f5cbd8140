"""The drawings of the page: what is in them, and how large they get."""

import re
from dataclasses import replace
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from bench_results import accuracy, operators, parity, result, sustained
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cct_export.report.charts import charts
from cct_export.report.charts.axes import Scale
from cct_export.report.charts.bars import memory
from cct_export.report.charts.bars import operators as operator_bars
from cct_export.report.charts.chart import shortened
from cct_export.report.charts.confusion import confusion
from cct_export.report.charts.latency import bins, histogram
from cct_export.report.charts.pareto import front, scatters
from cct_export.report.charts.sustained import sustained as sustained_chart
from cct_export.report.rows import labels, rows


def _drawing(chart):
    return fromstring(chart.drawing)


def _texts(chart, css_class):
    """The texts of a drawing that have a class, in their order."""
    return [
        text.text
        for text in _drawing(chart).iter("text")
        if css_class in text.get("class", "").split()
    ]


def _tooltips(chart):
    return [title.text for title in _drawing(chart).iter("title")]


def _scatter(*results):
    table = rows(results)
    (chart,) = scatters(table, labels(table))
    return chart


@pytest.fixture
def scatter():
    """Three results with accuracy, of two engines."""
    return _scatter(
        result("cct-float32.tflite", 4.4, 4_000_000, accuracy=accuracy(0.841)),
        result("cct-int8.tflite", 2.3, 1_000_000, accuracy=accuracy(0.838)),
        result("cct-int8.onnx", 1.9, 1_000_000, accuracy=accuracy(0.83)),
    )


@pytest.mark.parametrize("pages", ["narrow", "medium", "wide"])
def test_points_have_the_names_of_their_files_on_pages_of_every_width(scatter, pages):
    (group,) = (g for g in _drawing(scatter).iter("g") if g.get("class") == f"names {pages}")
    assert [text.text for text in group.iter("text")] == [
        "float32.tflite", "int8.tflite", "int8.onnx",
    ]  # fmt: skip


def test_the_tooltip_of_a_point_has_its_whole_name_and_its_values(scatter):
    assert sorted(_tooltips(scatter)) == [
        "cct-float32.tflite: 4.394 ms, 84.1% (83.4–84.8)",
        "cct-int8.onnx: 1.897 ms, 83.0% (82.3–83.7)",
        "cct-int8.tflite: 2.297 ms, 83.8% (83.1–84.5)",
    ]


def test_the_area_of_a_marker_is_the_size_of_the_file(scatter):
    radii = sorted(float(circle.get("r")) for circle in _drawing(scatter).iter("circle"))
    assert (radii[2] / radii[0]) ** 2 == pytest.approx(4)


def test_a_point_is_where_its_axes_say():
    chart = _scatter(
        result("a-int8.onnx", 1.0, accuracy=accuracy(0.80)),
        result("b-int8.onnx", 3.0, accuracy=accuracy(0.90)),
    )
    drawing = _drawing(chart)
    a, b = ((float(c.get("cx").rstrip("%")), float(c.get("cy"))) for c in drawing.iter("circle"))
    ticks = {
        float(text.text): float(text.get("x").rstrip("%"))
        for text in drawing.iter("text")
        if text.get("class") == "middle"
    }
    # Latencies have noise: 1 ms and 3 ms are 0.01 ms from where the results are.
    assert a[0] == pytest.approx(ticks[1.0], abs=0.5)
    assert b[0] == pytest.approx(ticks[3.0], abs=0.5)
    assert a[1] > b[1]


def test_an_engine_has_the_same_colour_in_all_charts():
    results = [
        result("a-int8.tflite"), result("b-int8.onnx"),
        result("c-int8.tflite", accuracy=accuracy()), result("d-int8.onnx", accuracy=accuracy()),
    ]  # fmt: skip
    table = rows(results)
    sections = charts(table, labels(table), results)
    first, second = (dict(chart.legend) for chart in sections["Trade-offs"])
    assert first == second
    assert len(set(first.values())) == 2
    bars = [re.search(r'<g fill="(.*?)">', chart.drawing)[1] for chart in sections["Latency"]]
    assert bars == 2 * list(first.values())


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


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def _beats(point, other):
    return point != other and point[0] <= other[0] and point[1] >= other[1]


@given(POINTS)
def test_the_front_has_the_points_that_no_other_beats(points):
    on_it = set(front(points))
    for index, point in enumerate(points):
        assert (index in on_it) == (not any(_beats(other, point) for other in points))


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=300))
def test_a_histogram_counts_every_run_once(times):
    histogram = bins(times)
    assert sum(histogram.counts) + histogram.beyond == len(times)
    assert histogram.beyond <= 0.02 * len(times)
    assert len(histogram.edges) == len(histogram.counts) + 1 <= 81
    assert np.all(np.diff(histogram.edges) > 0)
    assert histogram.beyond == sum(time / 1e6 > histogram.edges[-1] for time in times)


def test_the_tooltips_of_a_histogram_count_the_runs_that_are_drawn():
    measured = result("a-int8.onnx")
    chart = histogram("a", measured, 0)
    counts = [int(re.fullmatch(r"[\d.]+ ms: (\d+) runs?", text)[1]) for text in _tooltips(chart)]
    assert counts == [count for count in bins(measured.times_ns).counts if count]


def test_a_histogram_notes_the_runs_it_leaves_out():
    times = (1_000_000, 1_010_000, 1_020_000, 1_030_000) * 100 + (90_000_000,)
    chart = histogram("a", result("a-int8.onnx", times_ns=times, bursts=()), 0)
    assert chart.note == "401 runs, of which 1 slower than 1.030 ms is not drawn."
    whole = histogram("a", result("a-int8.onnx", times_ns=times[:-1], bursts=()), 0)
    assert whole.note == "400 runs."
    assert histogram("a", result("a-int8.onnx", times_ns=times[:1], bursts=()), 0).note == "1 run."


def test_the_longest_bar_is_as_wide_as_the_page():
    table = rows([result("a-int8.onnx", size=9_000_000), result("b-int8.onnx", size=1_000_000)])
    chart = memory(table, labels(table))
    widths = [rect.get("width") for rect in _drawing(chart).iter("rect")]
    assert widths == ["100%", "88.57%"]
    assert _tooltips(chart) == ["70 MB a-int8.onnx", "62 MB b-int8.onnx"]


def test_many_operators_are_one_bar_and_all_of_them_are_in_the_table():
    profile = operators()
    chart = operator_bars("a", profile)
    assert len(_tooltips(chart)) == 13
    assert _tooltips(chart)[-1].endswith("16 others")
    assert len(chart.body) == len(profile.operators) == 28
    one_more = replace(profile, operators=profile.operators[:13])
    assert _tooltips(operator_bars("a", one_more))[-1].endswith(" 1 other")


def test_a_derived_time_below_zero_has_no_bar():
    profile = operators(derived=True)
    first = replace(profile.operators[0], ms=-0.5)
    chart = operator_bars("a", replace(profile, operators=(first, *profile.operators[1:3])))
    assert [rect.get("width") for rect in _drawing(chart).iter("rect")][-1] == "0%"


def test_sustained_load_draws_a_line_for_what_is_known_and_a_gap_for_what_is_not():
    measured = sustained()
    temperatures = (None, *measured.temperature_c[1:3], None, *measured.temperature_c[4:])
    chart = sustained_chart(
        "a", replace(measured, temperature_c=temperatures, frequency_mhz=(None,) * 30)
    )
    assert [name for name, _ in chart.legend] == ["p50", "p90", "temperature"]
    lines = [path.get("d") for path in _drawing(chart).iter("path")]
    assert [line.count("M") for line in lines] == [1, 1, 2]
    assert _tooltips(chart)[1] == "2.0 minutes: p50 2.313 ms, p90 2.451 ms, temperature 52.500 °C"


def test_the_tooltips_of_a_matrix_have_its_counts():
    labelled = accuracy()
    chart = confusion("a", labelled)
    assert len(_tooltips(chart)) == np.count_nonzero(labelled.confusion)
    assert f"cat predicted as cat: {labelled.confusion[3][3]} (84.0%)" in _tooltips(chart)
    assert sorted(_texts(chart, "count")) == sorted(
        str(count) for row in labelled.confusion for count in row if count
    )


def test_a_matrix_that_is_not_square_is_not_drawn():
    assert confusion("a", replace(accuracy(), confusion=((1, 2), (3,)))) is None
    assert confusion("a", replace(accuracy(), confusion=())) is None


def test_a_class_without_images_and_one_without_errors_have_no_figures():
    chart = confusion(
        "a", replace(accuracy(0.8, "xyz"), confusion=((5, 0, 0), (0, 0, 0), (1, 0, 3)))
    )
    assert chart.body == (
        ("x", "5", "100.0%", "–"),
        ("y", "0", "–", "–"),
        ("z", "4", "75.0%", "x (1)"),
    )
    assert "Most often z is mistaken for x: 1 time." in chart.note


def test_two_classes_of_the_same_name_stay_two():
    chart = confusion("a", accuracy(0.8, ("same", "same", "other")))
    assert _texts(chart, "label") == 2 * ["same", "same", "other"]
    assert [line[0] for line in chart.body] == ["same", "same", "other"]


@given(st.integers(2, 120))
@settings(max_examples=10, deadline=None)
def test_many_classes_do_not_write_over_each_other(classes):
    chart = confusion("a", accuracy(0.8, [f"class {index}" for index in range(classes)]))
    assert len(_texts(chart, "label")) <= 16 + 25
    assert len(chart.body) == min(classes, 100)
    assert ("least accurate classes" in chart.note) == (classes > 100)


def test_a_matrix_of_a_thousand_classes_is_not_much_larger_than_one_of_a_hundred():
    hundred, thousand = (
        confusion("a", accuracy(0.7, [f"class {index}" for index in range(classes)]))
        for classes in (100, 1000)
    )
    assert len(hundred.drawing) < 40_000
    assert len(thousand.drawing) < 60_000


@given(st.text())
def test_text_in_a_chart_is_one_line_that_fits(text):
    shown = shortened(text, 20)
    assert len(shown) <= 20
    assert shown.isprintable()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
@example(1e6, 1e-3, False)
@example(0.0, 1e-6, False)
def test_ticks_are_few_round_and_on_the_axis(low, span, whole):
    scale = Scale(low, low + span, whole=whole)
    ticks = scale.ticks()
    assert len(ticks) <= 6
    assert all(-1e-6 <= scale.share(value) <= 1 + 1e-6 for value, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)
    if whole:
        assert all(value == round(value) for value, _ in ticks)


@given(st.floats(1e-3, 1e3), st.floats(8, 1e6))
def test_a_logarithmic_axis_has_at_least_one_tick_and_no_more_than_six(low, factor):
    scale = Scale(low, low * factor, logarithmic=True)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 6
    assert all(float(text.replace(",", "")) == pytest.approx(value) for value, text in ticks)
