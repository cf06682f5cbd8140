"""What stands beside the programs of a Raspberry Pi's bundle."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from kinds import FAST, KINDS, every_kind


def test_the_service_watches_the_folder_that_the_readme_names(bundle_of):
    import configparser

    folder = bundle_of(FAST)
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(folder / "cct-watch.service")
    command = unit["Service"]["ExecStart"].split()
    assert command[0].startswith(unit["Service"]["WorkingDirectory"])
    assert (folder / command[1]).is_file()
    assert command[2:] == ["--watch", "%h/pictures"]
    page = (folder / "README.md").read_text()
    assert "~/pictures" in page
    assert ":classifier" in page


def test_systemd_understands_the_service(bundle_of, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    program = tmp_path / "classifier" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", bundle_of(FAST) / "cct-watch.service"],
        env=os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""


def test_requirements_are_exact_and_are_what_runs_here(bundle_of):
    from importlib import metadata

    for kind, engine in ((FAST, "ai-edge-litert"), (KINDS[3], "onnxruntime")):
        lines = (bundle_of(kind) / "requirements.txt").read_text().splitlines()
        pins = dict(line.split("==") for line in lines)
        assert {"numpy", "pillow", engine} <= pins.keys()
        assert not pins.keys() & {"tensorflow", "keras", "onnx", "cct-export"}
        assert all(metadata.version(name) == version for name, version in pins.items())


def test_the_page_of_a_bundle_quotes_its_name(bundle_of):
    page = (bundle_of(FAST) / "README.md").read_text()
    assert "$" not in page.replace('"$USER"', "")
    assert "scp -r 'it'\"'\"'s tflite-int8-uint8' pi@" in page
    files = {path.name for path in bundle_of(FAST).iterdir()} - {"README.md"}
    assert all(f"`{name}`" in page or f"{name}`" in page for name in files)


def test_the_programs_import_nothing_that_the_requirements_do_not_bring(bundle_of):
    allowed = {*sys.stdlib_module_names, "model", "numpy", "PIL", "ai_edge_litert", "onnxruntime"}
    for path in bundle_of(FAST).glob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        found = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in found} <= allowed


@every_kind
def test_the_model_and_its_contract_say_the_same(bundle_of, exports, kind):
    folder = bundle_of(kind)
    about = json.loads((folder / "model.json").read_text())
    content = (folder / about["model"]).read_bytes()
    assert content == exports(*kind).path.read_bytes()
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    assert about["input"]["dtype"] == kind[2]
    assert (about["format"], about["scheme"]) == kind[:2]
    assert about["labels"] == [str(digit) for digit in range(10)]
    assert (folder / "labels.txt").read_text().split() == about["labels"]
