"""cct-bench device setup and remove: an OpenSSH server on loopback, pip and venv are real."""

import json
import os
import sys
import threading
from importlib.metadata import version

import loopback
import pytest

pytestmark = [pytest.mark.ssh, pytest.mark.usefixtures("ssh")]

PYTHON = ("--python", os.path.realpath(sys.executable))


def test_setup_installs_the_versions_of_this_machine(ready, server):
    assert ready["folder"] == str(server.cache / "cct-export")
    for name in ("ai-edge-litert", "onnxruntime", "numpy"):
        assert ready["versions"][name] == version(name)


def test_two_setups_at_a_time_leave_one_that_works(bare, cct_bench, monkeypatch, tmp_path):
    fresh = loopback.Server(tmp_path / "fresh")
    monkeypatch.setenv("CCT_EXPORT_SSH", fresh.client()["CCT_EXPORT_SSH"])
    ended = []

    def set_up():
        ended.append(cct_bench("device", "setup", "ssh:pi", "--engine", "litert", *PYTHON))

    threads = [threading.Thread(target=set_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [done.stderr for done in ended if done.returncode]
    if any("pip" in error for error in errors):
        pytest.skip(f"no package index: {errors[0][-300:]}")
    assert errors == []
    done = cct_bench("tflite", bare, "--device", "ssh:pi", "--min-seconds", "0.1")
    fresh.stop()
    assert done.returncode == 0, done.stderr


def test_remove_takes_only_what_was_installed(ready, server, in_process, tmp_path):
    root = tmp_path / "remote" / "cct-export"
    for name in ("venv", "code", "artifacts"):
        (root / name).mkdir(parents=True)
    kept = root / "cifar10.npz"
    kept.write_text("kept by cct-export itself")
    link = server.cache / "cct-export"
    away = link.rename(server.cache / "away")
    link.symlink_to(root)
    try:
        assert in_process("bench", "device", "remove", "ssh:pi").code == 0
        assert [path.name for path in root.iterdir()] == ["cifar10.npz"]
        kept.unlink()
        link.unlink()
    finally:
        away.rename(link)


def test_a_device_without_a_python_is_reported(in_process):
    ended = in_process("bench", "device", "setup", "ssh:pi", "--python", "/no/python")
    assert ended.code == 6
    assert "has no /no/python" in ended.err


def _fake_python(path, version, script):
    """Writes a program that tells facts about itself as a Python would, and then runs a script."""
    facts = {"python": str(path), "version": version, "machine": "aarch64", "libc": ["glibc", "2"]}
    path.write_text(
        f"#!/bin/sh\n[ \"$1\" = -c ] && echo 'cct-export:{json.dumps(facts)}'\n{script}\n"
    )
    path.chmod(0o755)
    return path


def test_a_python_that_is_too_old_is_reported(in_process, tmp_path):
    old = _fake_python(tmp_path / "python-old", [3, 9], "exit 1")
    ended = in_process("bench", "device", "setup", "ssh:pi", "--python", old)
    assert ended.code == 6
    assert "has Python 3.9, and 3.11 is needed" in ended.err


def test_a_setup_that_fails_leaves_the_earlier_one(ready, server, in_process, tmp_path):
    broken = _fake_python(
        tmp_path / "python-broken",
        [3, 11],
        '[ "$1" = -c ] && exit 0\n'
        "echo 'The virtual environment was not created: ensurepip is not available' >&2; exit 1",
    )
    ended = in_process("bench", "device", "setup", "ssh:pi", "--python", broken)
    assert ended.code == 1
    assert "ensurepip is not available" in ended.err
    assert "python3-venv" in ended.err
    assert (server.cache / "cct-export" / "venv" / "bin" / "python").exists()
    (link,) = (server.cache / "cct-export").glob("venv.*")  # no other beside what venv is
    assert (server.cache / "cct-export" / "venv").resolve() == link


def test_a_device_without_a_package_index_gets_its_wheels_from_this_machine(
    in_process, monkeypatch, tmp_path
):
    offline = loopback.Server(tmp_path / "offline")
    try:
        monkeypatch.setenv("CCT_EXPORT_SSH", offline.client()["CCT_EXPORT_SSH"])
        options = ("--offline", "--engine", "litert", *PYTHON, "--json", "-")
        ended = in_process("bench", "device", "setup", "ssh:pi", *options)
        if ended.code == 6 and "cannot download wheels" in ended.err:
            pytest.skip(ended.err.strip()[-300:])
        assert ended.code == 0, ended.err
        assert "onnxruntime" not in ended.record["setup"]["versions"]
        root = offline.cache / "cct-export"
        assert (root / "venv").is_dir()
        assert not (root / "wheels").exists()
        assert in_process("bench", "device", "remove", "ssh:pi").code == 0
        assert not root.exists()
    finally:
        offline.stop()
