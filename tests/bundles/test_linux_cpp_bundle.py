"""What is in a bundle for C++ on Linux; tests/system compiles and runs one."""

import struct

import numpy as np
import pytest

from cct_export import api
from cct_export.errors import InvalidRequest
from cct_export.evaluation import parity
from cct_export.records import sidecar

HEADER = struct.Struct("<8s6I3d")


@pytest.fixture(scope="module")
def made(exports, tmp_path_factory):
    """Returns the bundle of an ``.onnx`` file in a scheme and input type."""

    def make(scheme="none", io="float32"):
        folder = tmp_path_factory.mktemp("linux-cpp") / f"{scheme} {io}"
        artifact = exports("onnx", scheme, io).path
        return api.bundle(artifact, target="linux-cpp", output=folder), sidecar.read(artifact)

    return make


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_golden_bin_holds_the_images_logits_and_bounds_of_the_sidecar(made, scheme):
    folder, beside = made(scheme)
    content = (folder / "golden.bin").read_bytes()
    magic, count, height, width, channels, classes, flips, *bounds = HEADER.unpack_from(content)
    images = np.frombuffer(content, np.uint8, beside.golden.images.size, HEADER.size)
    logits = np.frombuffer(content, "<f4", offset=HEADER.size + images.size)
    policy = parity.policy_of(scheme, golden=True)
    assert magic == b"CCTGOLD1"
    assert (count, height, width, channels) == beside.golden.images.shape
    assert np.array_equal(images.reshape(beside.golden.images.shape), beside.golden.images)
    assert np.array_equal(logits.reshape(count, classes), beside.golden.logits)
    assert flips == policy.flips
    assert bounds[:2] == [policy.sqnr_db, policy.agreement]
    largest = max(1.0, float(np.abs(beside.golden.logits).max()))
    assert bounds[2] == pytest.approx((policy.max_abs or 0) * largest)


def test_cmake_reads_the_checksums_of_what_the_program_reads(made):
    folder, _ = made()
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {line.split("  ", 1)[1] for line in lines}
    assert {"model.onnx", "labels.txt", "golden.bin", "main.cpp", "README.md"} <= listed
    assert "set(DATA model.onnx labels.txt golden.bin)" in (folder / "CMakeLists.txt").read_text()


def test_no_marker_is_left_in_a_text(made):
    folder, _ = made("int8", "uint8")
    for path in folder.rglob("*"):
        assert b"BUNDLE_" not in path.read_bytes(), path
    readme = (folder / "README.md").read_text()
    assert "scheme `int8`" in readme
    assert "32 × 32 pixels as uint8" in readme


def test_a_tflite_file_is_refused_with_the_way_to_go(exports, tmp_path):
    with pytest.raises(InvalidRequest, match=r"not \.tflite: .* cct-export onnx"):
        api.bundle(exports("tflite").path, target="linux-cpp", output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
