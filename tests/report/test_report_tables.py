"""The Markdown table and the CSV of results, and the rows that both are made of."""

import csv as formats
import io
import re
from dataclasses import replace

import pytest
from bench_results import parity, result, several, with_file, with_runtime
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.bench import statistics
from cct_export.report.rows import REFUSED, columns, csv, labels, markdown, rows

CELL = re.compile(r"(?<!\\)\|")


def _cells(line):
    return [cell.strip() for cell in CELL.split(line.strip())[1:-1]]


def _read(text):
    return list(formats.DictReader(io.StringIO(text)))


def test_ratios_are_to_the_first_result():
    results = several()
    table = rows(results)
    assert table[0].ratio is None
    for row, measured in list(zip(table, results, strict=True))[1:4]:
        assert row.ratio == statistics.ratio(measured, results[0])
        assert row.ratio.value == pytest.approx(row.latency_ms / table[0].latency_ms)


def test_figures_are_those_of_the_result():
    measured = several()[0]
    (row,) = rows([measured])
    assert row.latency_ms == statistics.headline_ms(measured)
    assert row.throughput == pytest.approx(1e3 / row.latency_ms)
    assert row.kilobytes == measured.artifact.size_bytes / 1000
    assert row.peak_megabytes == measured.peak_rss_bytes / 1e6
    assert row.top1 == (measured.accuracy.top1, *measured.accuracy.top1_interval)


def test_the_latency_is_the_percentile_of_the_headline():
    table = rows([result("a-int8.onnx", headline=90), result("b-int8.onnx")])
    assert table[0].latency_ms > table[1].latency_ms
    table = markdown([result("a-int8.onnx", headline=90)])
    assert "p90 ms" in _cells(table.splitlines()[0])


def test_a_file_that_failed_parity_has_no_latency_anywhere():
    wrong = result("a-int8.onnx", parity=parity(False))
    (row,) = rows([wrong])
    assert (row.latency_ms, row.throughput, row.ratio) == (None, None, None)
    assert row.refused == REFUSED == "refused: parity failed"
    assert REFUSED in _cells(markdown([wrong]).splitlines()[2])
    (line,) = _read(csv([wrong]))
    assert (line["latency_ms"], line["throughput"], line["refused"]) == ("", "", REFUSED)


def test_a_reference_that_failed_parity_leaves_no_ratios():
    table = rows([result("a-int8.onnx", parity=parity(False)), result("b-int8.onnx")])
    assert table[1].latency_ms is not None
    assert table[1].ratio is None


@pytest.mark.parametrize("change", [{"batch": 4}, {"headline": 90}])
def test_different_work_has_no_ratio(change):
    table = rows([result("a-int8.onnx"), result("b-int8.onnx", **change)])
    assert table[1].latency_ms is not None
    assert table[1].ratio is None


def test_the_throughput_counts_images():
    single, four = rows([result("a-int8.onnx"), result("a-int8.onnx", batch=4)])
    assert four.throughput == pytest.approx(4 * single.throughput)


def test_a_failure_is_a_row_with_its_reason():
    broken = result("a-int8.onnx", failure="the engine crashed (SIGSEGV)", times_ns=(), bursts=())
    header, _, line = map(_cells, markdown([broken]).splitlines())
    cells = dict(zip(header, line, strict=True))
    assert cells["latency ms" if "latency ms" in cells else "p50 ms"] == (
        "failed: the engine crashed (SIGSEGV)"
    )


def test_labels_of_one_file_name_the_settings_that_differ():
    single = result("out/a-int8.tflite")
    two = with_runtime(single, threads=2)
    four = replace(two, batch=4)
    table = rows([single, two, four, four, result("out/b-int8.tflite")])
    assert labels(table) == [
        "a-int8.tflite, 1 thread",
        "a-int8.tflite, 2 threads, batch 1",
        "a-int8.tflite, 2 threads, batch 4 (no. 3)",
        "a-int8.tflite, 2 threads, batch 4 (no. 4)",
        "b-int8.tflite",
    ]


def test_files_of_the_same_name_keep_their_folders():
    table = rows([result("x/a-int8.onnx"), result("y/a-int8.onnx"), result("y/b-int8.onnx")])
    assert [row.artifact for row in table] == ["x/a-int8.onnx", "y/a-int8.onnx", "b-int8.onnx"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(1, 2)), max_size=8))
def test_labels_are_unique(settings):
    (row,) = rows([result("a-int8.onnx", runs=8)])
    table = [
        replace(row, number=index, artifact=name, threads=threads, batch=batch)
        for index, (name, threads, batch) in enumerate(settings, start=1)
    ]
    assert len(set(labels(table))) == len(table)


@given(st.text())
@settings(deadline=None, max_examples=50)
def test_no_name_breaks_the_markdown_table(name):
    measured = result("a-int8.onnx", runs=8)
    hostile = with_file(measured, path=name, scheme=name)
    lines = markdown([hostile]).split("\n")
    assert len(lines) == 4
    assert len(_cells(lines[2])) == len(_cells(lines[0])) == len(columns(rows([hostile])))


def test_markdown_shows_markup_as_text():
    measured = result("a-int8.onnx")
    hostile = with_file(measured, scheme="<b>|[x](y)")
    assert r"&lt;b&gt;\|\[x\](y)" in markdown([hostile])


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1))
@settings(deadline=None, max_examples=50)
def test_csv_reads_back_the_same_text(scheme):
    measured = result("a-int8.onnx", runs=8)
    (line,) = _read(csv([with_file(measured, scheme=scheme)]))
    guard = "'" if scheme[0] in "=+-@\t＝＋－＠" else ""
    assert line["scheme"] == guard + scheme


def test_csv_keeps_all_digits():
    results = several()
    for line, row in zip(_read(csv(results)), rows(results), strict=True):
        assert line["latency_ms"] == ("" if row.latency_ms is None else repr(row.latency_ms))
        assert line["ratio_high"] == ("" if row.ratio is None else repr(row.ratio.high))
        assert line["top1_low"] == ("" if row.top1 is None else repr(row.top1.low))


def test_the_device_is_a_column_only_where_there_are_several():
    local, phone = result("a-int8.onnx"), result("a-int8.onnx", device="phone")
    assert "device" not in _cells(markdown([local, local]).splitlines()[0])
    assert "device" in _cells(markdown([local, phone]).splitlines()[0])


def test_no_results_are_a_header():
    assert len(markdown([]).splitlines()) == 2
    assert len(csv([]).splitlines()) == 1
