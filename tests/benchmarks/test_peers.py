"""The comparison with other engines; no time that it measures decides a test."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import peer_candidates  # noqa: E402
import peer_environments  # noqa: E402
import peer_picture  # noqa: E402
import peer_record  # noqa: E402
import peer_tables  # noqa: E402
import peer_worker  # noqa: E402
import peers  # noqa: E402
import record  # noqa: E402

from cct_export.errors import EngineFailed, NotAvailable  # noqa: E402
from cct_export.records import MachineInfo  # noqa: E402


def _ask(worker, *questions):
    lines = io.StringIO("".join(json.dumps(question) + "\n" for question in questions))
    replies = io.StringIO()
    peer_worker.serve(worker, lines, replies)
    return [json.loads(line) for line in replies.getvalue().splitlines()]


def _question(method, **arguments):
    return {"method": method, "arguments": arguments}


# The worker and its protocol


class _Engine:
    """An engine whose logits are the means of the channels."""

    convert = staticmethod(lambda source, precision, images, folder: source)
    parts = staticmethod(lambda path: [path])

    class Session:
        def __init__(self, path, precision):
            assert (path.name, precision) == ("m.onnx", "float32")

        def prepare(self, image):
            return image

        def run(self, image):
            return image.mean(axis=(1, 2))


def test_a_worker_answers_every_question_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peer_engines.small", _Engine)
    images, logits = str(tmp_path / "images.npy"), tmp_path / "logits.npy"
    np.save(images, np.arange(3, dtype=np.uint8).repeat(8 * 8 * 2).reshape(3, 8, 8, 2))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"12345")
    source = {"precision": "float32", "calibration": images, "folder": str(tmp_path)}
    replies = _ask(
        peer_worker.Worker("small"),
        _question("convert", source=str(path), **source),
        _question("open", path=str(path), precision="float32", images=images),
        _question("logits", images=images, output=str(logits)),
        _question("burst", runs=4, warmup=1),
    )
    assert replies[0]["answer"]["path"] == str(path)
    assert replies[0]["answer"]["size_bytes"] == 5
    assert np.load(logits).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert len(replies[3]["answer"]["times_ns"]) == 4


def test_what_an_engine_raises_is_an_answer_of_one_line_without_folders():
    class Broken:
        def burst(self):
            raise ValueError("cannot read\n /home/me/models/m.onnx, see https://a.b/c/d")

    (reply,) = _ask(Broken(), _question("burst"))
    assert reply == {
        "error": "ValueError: cannot read m.onnx, see https://a.b/c/d", "kind": "EngineFailed",
    }  # fmt: skip


def test_a_worker_whose_engine_is_missing_says_so(tmp_path):
    candidate = _candidate("a", engine="no_such_engine", path=tmp_path)
    with (
        peers.start(candidate, Path(sys.executable)) as channel,
        pytest.raises(EngineFailed, match=r"No module named 'peer_engines\.no_such_engine'"),
    ):
        channel.ask("burst", peers.Times, runs=1, warmup=0)


def test_a_worker_needs_nothing_of_this_package():
    for path in [ROOT / "benchmarks/peer_worker.py", *ROOT.glob("benchmarks/peer_engines/*.py")]:
        assert not re.search(r"^\s*(import|from) cct_export", path.read_text(), re.MULTILINE), path


def test_the_scripts_of_mnn_which_run_pip_are_not_used():
    text = (ROOT / "benchmarks/peer_engines/mnn.py").read_text()
    assert "MNN.tools" not in text and "subprocess" not in text
    assert peer_worker.ENVIRONMENT["PIP_NO_INDEX"] == "1"


# Environments


def test_every_version_is_exact():
    for peer in peer_environments.PEERS.values():
        for pin in (*peer.pins, *peer.alone):
            assert re.fullmatch(r"[A-Za-z0-9_-]+==\d+(\.\d+)*", pin), pin


def test_an_environment_is_another_one_for_other_versions(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = {peer_environments.Peer("a", (f"b=={version}",)).folder for version in (1, 2)}
    assert len(folders) == 2
    assert all(folder.parent == tmp_path / "cct-export" / "peers" for folder in folders)


def test_an_environment_is_made_once_and_one_that_failed_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls, code = [], 1

    def run(command, **options):
        calls.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)
        installing = "install" in command
        return subprocess.CompletedProcess(command, code * installing, "", "ERROR: no b\nhint: x")

    monkeypatch.setattr(subprocess, "run", run)
    peer = peer_environments.Peer("a", ("b==1",), ("c==2",))
    with pytest.raises(NotAvailable, match=r"^a cannot be installed: ERROR: no b$"):
        peer_environments.python_of(peer)
    code = 0
    assert peer_environments.python_of(peer) == peer.folder / "bin" / "python"
    assert list(calls[-1][-2:]) == ["--no-deps", "c==2"]
    count = len(calls)
    peer_environments.python_of(peer)
    assert len(calls) == count


def test_an_installation_that_fails_is_tried_once_in_a_run():
    tries = []

    def refused():
        tries.append(1)
        raise NotAvailable("no")

    python = peer_candidates.once(refused)
    for _ in range(2):
        with pytest.raises(NotAvailable, match="no"):
            python()
    assert len(tries) == 1


# The run


def _candidate(name, engine="litert", path=Path(), python=None, make=None):
    python = python or (lambda: Path(sys.executable))
    source = path / f"{name}.tflite"
    return peer_candidates.Candidate(name, engine, "float32", source, make or _no_file, python)


def _no_file(path):
    raise ValueError("no\nfile")


def test_a_peer_that_cannot_be_installed_or_converted_is_a_row(tmp_path):
    def refused():
        raise NotAvailable("a cannot be installed: ERROR: no a")

    images = peers.Images(tmp_path / "c.npy", tmp_path / "t.npy", np.zeros((1, 2)), np.zeros(1))
    for candidate, error in (
        (_candidate("a", path=tmp_path, python=refused), "a cannot be installed: ERROR: no a"),
        (_candidate("b", path=tmp_path), "no file"),
    ):
        row, channel = peers.ready(candidate, images, tmp_path)
        assert (row.name, row.error, channel) == (candidate.name, error, None)


class _Channel:
    def __init__(self, name, asked, fails_at=None):
        self.name, self.asked, self.fails_at = name, asked, fails_at

    def ask(self, method, kind, **arguments):
        assert (method, arguments) == ("burst", {"runs": 20, "warmup": 5})
        self.asked.append(self.name)
        if self.asked.count(self.name) == self.fails_at:
            raise EngineFailed("the engine crashed")
        return peers.Times((1, 2))


def test_another_file_is_first_in_every_round_and_a_crash_ends_one_only():
    asked = []
    running = [
        peers.Running(peer_record.PeerRow(name, "e", "float32"), _Channel(name, asked, fails_at))
        for name, fails_at in (("a", None), ("b", 2), ("c", None))
    ]
    rows = {row.name: row for row in peers.time_interleaved(running, 3)}
    assert "".join(asked) == "abc" + "bca" + "ca"
    assert rows["a"].times_ns == (1, 2) * 3
    assert (rows["b"].error, rows["b"].times_ns) == ("the engine crashed", ())


def test_logits_that_are_not_numbers_are_an_error(tmp_path):
    class Channel:
        def tell(self, method, images, output):
            np.save(output, np.full((2, 10), np.nan, np.float32))

    images = peers.Images(tmp_path, tmp_path, np.zeros((1, 10), np.float32), np.zeros(2))
    with pytest.raises(ValueError, match="100% of its logits are not numbers"):
        peers.verified(peer_record.PeerRow("a", "e", "float32"), Channel(), images, tmp_path)


def test_an_unknown_engine_is_refused_with_the_known_ones():
    done = CliRunner().invoke(peers.main, ["--data", "digits", "--engines", "openvno"])
    assert done.exit_code == 2
    assert "no engine 'openvno': choose from stock, openvino, mnn" in " ".join(done.output.split())


def test_a_run_needs_images_or_a_page():
    done = CliRunner().invoke(peers.main, [])
    assert done.exit_code == 2
    assert "name the images with --data, or a page with --write" in done.output


# Results


def _results():
    def row(name, precision, ms, **fields):
        parity = record.Parity(30.0, 0.1, 0.99, 10)
        times = (int(ms * 1e6),) * 3
        return peer_record.PeerRow(
            name, "e", precision, size_bytes=1000, parity=parity, top1=0.9, times_ns=times, **fields
        )

    rows = (
        row("openvino bf16", "bf16", 3.0), row("mnn int8", "int8", 1.0),
        peer_record.PeerRow("executorch int8", "executorch", "int8", error="no torch"),
        row("cct-export tflite float32", "float32", 2.0),
        row("cct-export tflite int8", "int8", 0.5),
    )  # fmt: skip
    return peer_record.PeerResults("", "m", "d", MachineInfo(cpu="x"), {"MNN": "1"}, 10, 20, rows)


def test_results_are_written_as_they_are_read_and_shown(tmp_path):
    results = _results()
    record.write(results, tmp_path)
    assert peer_record.read(tmp_path) == results
    text = peer_tables.peers(str(tmp_path))
    assert "| openvino bf16 | 1 | 3.000 | 1.50 | 3.000 | 30.0 | 0.990 | 90.00 |" in text
    assert "| mnn int8 | 1 | 1.000 | 2.00 | 1.000 |" in text
    assert "| executorch int8 | – | – | – | – | – | – | failed |" in text
    assert "- executorch int8: no torch" in text
    assert "| **cct-export tflite int8** |" in peer_tables.results_page(results)


def test_the_picture_has_a_bar_for_each_row_with_figures_by_precision(tmp_path):
    results = _results()
    assert [bar.name for bar in peer_picture.bars(results)] == [
        "cct-export tflite float32", "openvino bf16", "cct-export tflite int8", "mnn int8",
    ]  # fmt: skip
    peer_picture.draw([results, results], tmp_path / "peers.png")
    from PIL import Image

    with Image.open(tmp_path / "peers.png") as image:
        assert image.info[peer_picture.DIGEST_KEY] == peer_picture.digest([results, results])


def test_a_view_without_results_names_the_command(tmp_path):
    assert "python benchmarks/peers.py" in peer_tables.peers(str(tmp_path))
    assert peer_tables.peers_picture("p.png", str(tmp_path)) == peer_tables.NOT_MEASURED


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_picture_of_a_page_shows_the_results(page):
    from PIL import Image

    text = (ROOT / page).read_text()
    (arguments,) = re.findall("<!-- results:peers_picture (.*?) -->", text)
    path, *folders = arguments.split()
    found = peer_tables.measured(tuple(folders))
    assert len(found) == len(folders), "every model of the picture was measured"
    with Image.open((ROOT / page).parent / path) as image:
        shown = image.info[peer_picture.DIGEST_KEY]
    assert shown == peer_picture.digest(found), f"run python benchmarks/peers.py --write {page}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ncnn_runs_in_an_environment_of_its_own(tmp_path, digits_run, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    try:
        peer_environments.python_of(peer_environments.PEERS["ncnn"])
    except NotAvailable as error:
        pytest.skip(str(error))
    options = ["--engines", "ncnn,ours", "--images", "64", "--rounds", "2", "--out", tmp_path]
    arguments = ["--data", "digits", "--model", digits_run, *options]
    done = CliRunner().invoke(peers.main, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = peer_record.read(tmp_path / Path(digits_run).name)
    assert results.versions["ncnn"] == "1.0.20261020"
    assert results.row("cct-export ncnn float32").parity.sqnr_db > 90
    assert results.row("cct-export ncnn int8").parity.sqnr_db > 10
    for row in results.measured:
        assert len(row.times_ns) == 40
    assert str(Path.home()) not in (tmp_path / Path(digits_run).name / "results.json").read_text()
