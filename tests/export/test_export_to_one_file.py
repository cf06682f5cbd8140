"""Two exports to one file: the one that ends last is there, with its own sidecar."""

import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cct_export.export.candidate import CandidateFile
from cct_export.export.placing import write
from cct_export.records import sidecar

ROUNDS = 60


def _export(exported, path):
    """Returns what ``placing.write`` needs to export a file again, to ``path``."""
    described = sidecar.read(exported.path)
    images = SimpleNamespace(images=described.golden.images, origin=described.golden.origin)
    workspace = SimpleNamespace(parity_images=images, reference=described.golden.logits)
    artifact = replace(described.artifact, path=path)
    passed, agrees = SimpleNamespace(passed=True), np.ones(len(described.golden.logits), bool)
    return workspace, CandidateFile(artifact, exported.path.read_bytes(), passed, agrees)


def test_two_exports_at_a_time_never_leave_the_file_of_one_with_the_sidecar_of_the_other(
    exports, tmp_path
):
    path = tmp_path / "m.tflite"
    pairs = [_export(exports("tflite", scheme), path) for scheme in ("none", "int8")]
    write(*pairs[0])
    for _ in range(ROUNDS):
        threads = [threading.Thread(target=write, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sidecar.read(path) is not None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.tflite", "m.tflite.json"]


@pytest.mark.slow
def test_two_commands_that_export_to_one_file_leave_a_file_that_is_verified(
    digits_model, tmp_path, in_process
):
    path = tmp_path / "m.tflite"
    code = "from cct_export.commands.program import export_main; export_main()"
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", code, "tflite", digits_model, "-o", path, "--quantize", scheme],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for scheme in ("none", "int8")
    ]
    for command in commands:
        _, err = command.communicate(timeout=300)
        assert command.returncode == 0, err
    assert sidecar.read(path) is not None
    ended = in_process("export", "verify", path, "--samples", 8)
    assert ended.code == 0, ended.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.tflite", "m.tflite.json"]
