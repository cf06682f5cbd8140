"""classify.py of a Raspberry Pi's bundle: the answers of ``cct-export predict``, anywhere."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kinds import FAST, every_kind


def _records(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@every_kind
def test_classify_answers_as_predict_does(bundle_of, run, kind, exports, pictures, in_process):
    done = run(bundle_of(kind) / "classify.py", "--json", pictures)
    assert done.returncode == 0, done.stderr
    paths = sorted(path for path in pictures.iterdir() if path.suffix != ".txt")
    ended = in_process("export", "predict", exports(*kind).path, *paths, "--json", "-")
    records = _records(done)
    assert [record["image"] for record in records] == [str(path) for path in paths]
    for record, prediction in zip(records, ended.record["predictions"], strict=True):
        assert len(record["top"]) == 5
        for ours, wanted in zip(record["top"], prediction["top"], strict=True):
            assert ours["label"] == wanted["label"]
            assert ours["probability"] == pytest.approx(wanted["probability"], abs=1e-6)


def test_people_get_a_line_per_image(bundle_of, run, pictures):
    done = run(bundle_of(FAST) / "classify.py", pictures / "a.png", pictures / "d.png", "--top", 2)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        str(pictures / name) for name in ("a.png", "d.png")
    ]
    assert all(line.count("%") == 2 for line in lines)


def test_a_broken_image_is_told_and_the_others_are_classified(bundle_of, run, pictures, tmp_path):
    whole = (pictures / "b c.JPG").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    images = tmp_path / "half.jpg", tmp_path / "none.png", pictures / "a.png"
    done = run(bundle_of(FAST) / "classify.py", *images)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    told = [line for line in done.stderr.splitlines() if "no readable image" in line]
    assert [Path(line.partition(": ")[0]).name for line in told] == ["half.jpg", "none.png"]


@pytest.mark.parametrize("arguments", [[], ["--top", "0", "a.png"]])
def test_a_command_that_asks_for_nothing_is_refused(bundle_of, run, arguments):
    done = run(bundle_of(FAST) / "classify.py", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def _stand_in(folder, name, script):
    """Puts a program where the camera's would be."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@pytest.mark.parametrize("name", ["rpicam-still", "libcamera-still"])
def test_a_photo_comes_from_the_cameras_program(bundle_of, run, pictures, tmp_path, name):
    photo = pictures / "b c.JPG"
    script = f'echo "$@" > {tmp_path}/asked; cat "{photo}"'
    path = _stand_in(tmp_path / "bin", name, script)
    camera = run(bundle_of(FAST) / "classify.py", "--camera", "--json", path=path)
    assert camera.returncode == 0, camera.stderr
    from_file = run(bundle_of(FAST) / "classify.py", "--json", photo)
    assert _records(camera)[0]["top"] == _records(from_file)[0]["top"]
    assert "--output -" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("script", "said"), [("echo no cameras available >&2; exit 255", "no cameras"), (None, "apt")]
)
def test_without_a_camera_one_line_says_so(bundle_of, run, tmp_path, script, said):
    path = "/nowhere"
    if script:
        path = _stand_in(tmp_path / "bin", "rpicam-still", script)
    done = run(bundle_of(FAST) / "classify.py", "--camera", path=path)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture
def watching(bundle_of, tmp_path):
    """A process that watches a folder: the folder, what it says, and the process."""
    folder, said = tmp_path / "watched", tmp_path / "said.txt"
    folder.mkdir()
    with said.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(bundle_of(FAST) / "classify.py"), "--watch", str(folder)],
            stdout=stream, stderr=subprocess.STDOUT, cwd=tmp_path, env={"PATH": os.defpath},
        )  # fmt: skip
    try:
        yield folder, lambda: said.read_text().splitlines(), process
    finally:
        process.kill()
        process.wait()


def _lines_about(said, name, count, limit_s=60):
    """Waits until there are ``count`` lines that begin with ``name``; returns all of them."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = [line for line in said() if line.startswith(name)]
        if len(found) >= count:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not {count} lines about {name}: {said()}")


def test_a_watched_folder_gives_a_line_per_image_and_survives_broken_ones(watching, pictures):
    folder, said, process = watching
    whole = (pictures / "b c.JPG").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "nothing.png").touch()
    (folder / ".hidden.png").write_bytes((pictures / "a.png").read_bytes())
    (folder / "folder.png").mkdir()
    (folder / "a\nb.png").write_bytes((pictures / "a.png").read_bytes())
    (folder / "z.png").write_bytes((pictures / "a.png").read_bytes())
    assert "%" in _lines_about(said, "z.png", 1)[0]
    assert "no readable image" in _lines_about(said, "half.jpg", 1)[0]
    assert "no readable image" in _lines_about(said, "nothing.png", 1)[0]
    assert "%" in _lines_about(said, r"'a\nb.png'", 1)[0]
    (folder / "half.jpg").write_bytes(whole)  # its other half arrives
    assert "%" in _lines_about(said, "half.jpg", 2)[1]
    (folder / "later.png").write_bytes((pictures / "d.png").read_bytes())
    assert "%" in _lines_about(said, "later.png", 1)[0]
    assert process.poll() is None
    names = [line.partition(": ")[0] for line in said() if "%" in line or "readable" in line]
    assert sorted(names) == sorted(
        ["z.png", "half.jpg", "half.jpg", "nothing.png", r"'a\nb.png'", "later.png"]
    )


def test_a_watch_ends_quietly_when_it_is_stopped(watching, pictures):
    folder, said, process = watching
    shutil.copy(pictures / "a.png", folder / "a.png")
    _lines_about(said, "a.png", 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert "Traceback" not in "\n".join(said())


def test_a_folder_that_is_not_there_is_no_traceback(bundle_of, run, tmp_path):
    done = run(bundle_of(FAST) / "classify.py", "--watch", tmp_path / "no such folder")
    assert done.returncode == 1
    assert "no such folder" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_probabilities_do_not_overflow_and_stay_what_they_are(bundle_of):
    folder = bundle_of(FAST)
    code = f"""
import sys; sys.path.insert(0, {str(folder)!r}); sys.dont_write_bytecode = True
import json, numpy as np
from classify import classify
class Model:
    contract = {{"labels": ["a", "b", "c"]}}
    prepare = answer = staticmethod(lambda x: x)
    def logits(self, rows): return rows.astype(np.float32)
for row in ([[1e4, 0, -1e4]], [[0.7, 0.2, 0.1]]):
    print(json.dumps(classify(Model(), np.array(row), 2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    large, ready = map(json.loads, io.StringIO(done.stdout))
    assert large == [{"label": "a", "probability": 1.0}, {"label": "b", "probability": 0.0}]
    assert [one["label"] for one in ready] == ["a", "b"]
    assert ready[0]["probability"] == pytest.approx(0.7)
