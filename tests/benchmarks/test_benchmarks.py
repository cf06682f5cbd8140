"""The suite against the stock routes, on a small model; no time that it measures decides a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(ROOT))
OURS = {"none", "fp16", "int8-dynamic", "int8", "int4-weight"}


@pytest.fixture(scope="module")
def results(tmp_path_factory, digits_run):
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, ROOT / "run.py", "--data", "digits", "--model", digits_run]
    options = ["--rounds", "2", "--images", "64", "--out", folder]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def record(results):
    return json.loads((results / "results.json").read_text())


@pytest.mark.slow
def test_every_route_is_made_proven_and_timed(record):
    rows = {row["name"]: row for row in record["rows"]}
    assert len(rows) == 9 + 12
    for format in ("tflite", "onnx"):
        assert {f"cct-export {format} {scheme}" for scheme in OURS} < set(rows)
    for name, row in rows.items():
        if name == "stock keras export onnx":
            continue
        assert not row["refused"], name
        assert {count: len(runs) for count, runs in row["times_ns"].items()} == {"1": 40, "2": 40}
        assert row["parity"]["samples"] == 64
        assert row["parity"]["sqnr_db"] > 5
        assert row["accuracy"]["samples"] == 360
        assert row["macs"] > 1e6
        assert rows[row["twin"]]["format"] == row["format"]


@pytest.mark.slow
def test_kerass_onnx_export_is_recorded_as_refused_with_the_reason(record):
    (row,) = [row for row in record["rows"] if row["name"] == "stock keras export onnx"]
    assert "StatelessRandomUniformV2" in row["refused"]
    assert row["size_bytes"] > 0, "Keras said that it succeeded"


@pytest.mark.slow
def test_ours_are_smaller_and_multiply_less(record):
    rows = {row["name"]: row for row in record["rows"]}
    for row in rows.values():
        if row["ours"]:
            assert row["size_bytes"] < rows[row["twin"]]["size_bytes"]
            assert row["macs"] < rows[row["twin"]]["macs"]


@pytest.mark.slow
def test_tables_and_picture_are_written_and_name_every_file(results, record):
    text = (results / "results.md").read_text()
    for row in record["rows"]:
        assert text.count(f"| {row['name']} |") == 2
    assert "## Promised and reached, 1 thread" in text
    assert (results / "latency-accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert str(Path.home()) not in text
    assert record["command"].startswith("python benchmarks/run.py --data digits --model run")


def row(name, twin, size, median, refused=""):
    return {
        "name": name, "twin": twin, "size_bytes": size, "median_ms": {1: median},
        "refused": refused, "precision": "float32", "macs": 10**8,
    }  # fmt: skip


def test_ratios_are_ours_over_stock():
    import report

    stock, ours = row("s", "s", 200, 4.0), row("o", "s", 100, 3.0)
    assert report.ratio(ours, stock) == 0.5
    assert report.ratio(ours, stock, 1) == 0.75
    assert report.ratio(ours, row("s", "s", 200, 4.0, refused="no"), 1) is None


def test_the_share_of_the_limit_is_the_time_of_the_products_alone():
    import report

    # 10^8 at 10^11 a second are 1 ms.
    assert report.limit_share(row("o", "s", 1, 4.0), {"float32": 1e11}, 1) == 0.25


def test_a_folder_is_named_after_the_processor():
    import run

    assert run.slug("Intel(R) Xeon(R) @ 2.20GHz") == "intel-r-xeon-r-2-20ghz"


@pytest.mark.parametrize("text", ["", "0", "1,,2", "two", "-1"])
def test_thread_counts_that_are_none_are_refused(text):
    command = [sys.executable, ROOT / "run.py", "--data", "digits", f"--threads={text}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "is no list of numbers" in done.stderr


def test_data_that_is_not_there_is_one_line(tmp_path):
    command = [sys.executable, ROOT / "run.py", "--data", tmp_path / "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr


LITERT = {
    "accelerators": ["CPU"], "fully_accelerated": True,
    "latency": {"avg_ms": 0.1612, "median_ms": 0.1596, "num_runs": 200},
}  # fmt: skip


def test_litert_benchmarks_median_is_read():
    import trust

    assert trust.litert_median_ms(LITERT) == 0.1596


@pytest.mark.parametrize("change", [{"accelerators": ["GPU"]}, {"fully_accelerated": False}])
def test_litert_benchmark_on_something_else_is_refused(change):
    import trust

    with pytest.raises(RuntimeError, match="litert-benchmark ran it on"):
        trust.litert_median_ms(LITERT | change)


@pytest.mark.slow
def test_litert_benchmark_itself_is_read(tmp_path):
    import trust

    import cct_export

    path = tmp_path / "f.tflite"
    cct_export.export_tflite("cct_keras_io", output=path)
    median = trust.litert_tool(path, 0.05, 0.5)
    assert median > 0
    assert median != round(median, 2)
    assert trust.plain(path, 0.05) > 0


def test_ratios_are_of_the_same_turn():
    import trust

    found = {"ours": [2.0, 4.0, 9.0], "plain": [1.0, 2.0, 3.0], "litert": [2.0, 4.0, 9.0]}
    assert trust._ratios(found, "plain") == (2.0, 2.0, 2.5)
    assert trust._row("f", found)[1:] == [
        "4.0000", "2.0000", "2.000 (2.000 to 2.500)", "4.0000", "1.000 (1.000 to 1.000)",
    ]  # fmt: skip


def test_another_way_is_first_in_every_turn():
    import trust

    ways = [("a", None), ("b", None), ("c", None)]
    assert [trust._rotated(ways, turn)[0][0] for turn in range(4)] == ["a", "b", "c", "a"]


def test_verdicts_are_counted_in_one_order():
    import trust

    ones = [{"status": word} for word in ("regression", "pass", "pass")]
    assert trust.counts(ones, "status") == "2 / 0 / 1"


def test_neighbours_end_whatever_happens():
    import psutil
    import trust

    with pytest.raises(ZeroDivisionError), trust.busy(1):
        (child,) = [p for p in psutil.Process().children() if "getppid" in " ".join(p.cmdline())]
        assert child.is_running()
        1 / 0  # noqa: B018
    assert not child.is_running()


def test_a_measurement_is_cut_to_its_first_process_and_slowed():
    import trust

    from cct_export.records import BenchResult

    one = BenchResult({"path": "m"}, {}, 1, (10, 20, 30), ((1, 1), (1,)))
    assert trust.first_repeat(one).times_ns == (10, 20)
    assert trust.first_repeat(one).bursts == ((1, 1),)
    assert trust.slowed(one, 1.5).times_ns == (15, 30, 45)
