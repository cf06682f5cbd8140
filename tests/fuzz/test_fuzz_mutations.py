"""Mutated inputs: reproducible, different from their seeds, and minimized when they fail."""

import dataclasses
import io
import json
import struct
import zipfile

import numpy as np
import pytest

from fuzz import (
    archives,
    cases,
    folders,
    images,
    minimize,
    protobufs,
    regressions,
    seeds,
    table,
    trees,
)
from fuzz.kinds import KINDS
from fuzz.oracle import Ended
from fuzz.worker import Result

AVAILABLE = [name for name, kind in KINDS.items() if kind.available()]


@pytest.fixture(scope="session")
def seeds_folder(once):
    """The seeds of all kinds."""
    return once("fuzz", lambda folder: seeds.make(folder / "seeds")) / "seeds"


@pytest.mark.parametrize("kind", AVAILABLE)
def test_an_input_follows_from_its_kind_and_number(seeds_folder, kind):
    for number in range(6):
        first, second = (cases.build(seeds_folder, kind, number) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("kind", AVAILABLE)
def test_most_inputs_differ_from_their_seed(seeds_folder, kind):
    changed = 0
    for number in range(40):
        case = cases.build(seeds_folder, kind, number)
        form = next(form for form in KINDS[kind].forms if form.words == case.words)
        changed += case.files != cases.original(seeds_folder, form)
    assert changed >= 34


@pytest.mark.parametrize("kind", AVAILABLE)
def test_an_input_without_mutations_is_its_seed(seeds_folder, kind):
    case = cases.build(seeds_folder, kind, 3, kept=())
    form = next(form for form in KINDS[kind].forms if form.words == case.words)
    assert case.files == cases.original(seeds_folder, form)


def _many(mutate, content, count=200):
    return [mutate(content, np.random.default_rng(number)) for number in range(count)]


def test_every_field_of_a_json_document_is_changed_somewhere():
    document = {"a": {"b": [1, 2.5, "x"]}, "c": None, "d": True}
    before = dict(_leaves(document))
    changed = set()
    for content in _many(trees.mutate_json, json.dumps(document).encode(), 400):
        try:
            after = dict(_leaves(json.loads(content)))
        except (ValueError, RecursionError):
            continue
        changed |= {place for place in before if repr(before[place]) != repr(after.get(place))}
    assert changed == set(before)


def _leaves(node, place=()):
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*place, key))
    else:
        yield place, node


def test_json_gets_numbers_that_json_does_not_have():
    contents = _many(trees.mutate_json, b'{"top1": 0.5}', 500)
    for token in (b"NaN", b"1e999", b"[" * 1000, b"1" + b"0" * 400):
        assert any(token in content for content in contents), token


def test_the_header_of_an_npy_keeps_its_declared_length(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.float32))
    whole = (tmp_path / "x.npy").read_bytes()
    shapes = set()
    for content in _many(archives.mutate_npy, whole):
        if content[6:8] == b"\1\0" and len(content) > 12:
            (size,) = struct.unpack_from("<H", content, 8)
            shapes.add(content[10 : 10 + size].partition(b"shape")[2])
    assert len(shapes) > 20


def test_members_of_an_archive_are_renamed_removed_and_declared_larger(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3), b=np.ones(3))
    names, sizes = set(), set()
    for content in _many(archives.mutate, (tmp_path / "x.npz").read_bytes(), 1500):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names.add(tuple(archive.namelist()))
                sizes |= {info.file_size for info in archive.infolist()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            continue
    assert len(names) > 10
    assert max(sizes) > 2**30


def test_chunks_of_a_png_have_right_checksums_most_of_the_time(seeds_folder):
    import zlib

    right = 0
    for content in _many(images.mutate_png, (seeds_folder / "0.png").read_bytes(), 100):
        chunks = images._chunks(content)
        start, good = 8, bool(chunks)
        for name, data in chunks:
            checksum = content[start + 8 + len(data) :][:4]
            good &= checksum == struct.pack(">I", zlib.crc32(name + data))
            start += 12 + len(data)
        right += good
    assert 50 <= right < 100


def test_onnx_models_stay_messages_with_changed_fields(seeds_folder):
    import onnx

    whole = (seeds_folder / "m.onnx").read_bytes()
    models = set()
    for content in _many(protobufs.mutate_onnx, whole, 60):
        try:
            models.add(onnx.ModelProto.FromString(content).SerializeToString())
        except Exception:  # protobuf raises what its implementation raises
            continue
    assert len(models - {whole}) > 35


def test_records_of_a_shard_keep_right_checksums(seeds_folder):
    whole = (seeds_folder / "imagenet.tfrecord").read_bytes()
    framed = b"".join(map(protobufs.framed, protobufs._records(whole)))
    assert framed == whole, "the frames of TensorFlow's own writer"


def test_files_of_a_folder_are_linked_renamed_and_removed():
    files = {f"a/{number}.png": b"x" for number in range(3)}
    changed = _many(folders.mutate, files)
    assert any(isinstance(content, str) for each in changed for content in each.values())
    assert any(len(each) < 3 for each in changed)
    assert any("\x1b" in name for each in changed for name in each)


def test_a_failure_is_minimized_to_the_bytes_that_matter(seeds_folder):
    kind, number = next(
        ("image", number)
        for number in range(300)
        if (case := cases.build(seeds_folder, "image", number)).mutations > 1
        and len(case.files[case.target]) > 200
    )

    def fails(case):
        return len(case.files[case.target]) > 100

    whole = cases.build(seeds_folder, kind, number)
    small = minimize.minimized(seeds_folder, kind, number, fails)
    assert fails(small)
    assert len(small.files[small.target]) <= len(whole.files[whole.target])


def test_a_changed_span_shrinks_to_what_makes_the_failure():
    seed = bytes(1000)
    content = seed[:100] + bytes(range(1, 201)) + seed[300:]
    smallest = list(minimize._smaller(seed, content, lambda tried: tried[250] == content[250]))[-1]
    assert sum(a != b for a, b in zip(seed, smallest, strict=True)) == 1


@pytest.mark.parametrize("kind", ["record", "image", "onnx", "folder"])
def test_a_written_input_is_read_again(seeds_folder, tmp_path, kind):
    case = cases.build(seeds_folder, kind, 5)
    path = regressions.write(case, seeds_folder, "reason", tmp_path)
    again = regressions.read(path, seeds_folder)
    assert dataclasses.replace(again, mutations=case.mutations) == case


def test_the_table_counts_codes_and_goes_into_a_page(tmp_path):
    rows = {"onnx": table.Row(), "npz": table.Row()}
    rows["onnx"].add(Result(Ended(1, seconds=1.5, memory_bytes=3_000_000), ()))
    rows["onnx"].add(Result(Ended(None, why="hang", seconds=9.0), ("hang",)))
    rows["npz"].add(Result(Ended(0), ()))
    figures = table.markdown(rows)
    assert "| onnx | 2 | 0 | 1 | 9.0 | 3 | 1 |" in figures
    assert "| all | 3 | 1 | 1 | 9.0 | 3 | 1 |" in figures
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fuzz:figures -->\nold\n<!-- /fuzz:figures -->\nafter\n")
    table.write(page, figures)
    assert page.read_text().startswith("before\n") and page.read_text().endswith("after\n")
    assert figures in page.read_text() and "old" not in page.read_text()
    (tmp_path / "empty.md").touch()
    with pytest.raises(ValueError, match="has no"):
        table.write(tmp_path / "empty.md", figures)
