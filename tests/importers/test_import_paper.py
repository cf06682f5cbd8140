"""State dicts of the paper's code: recognized, adapted and refused ones."""

import dataclasses
import json
import struct

import numpy as np
import pytest
from state_dicts import load, state_dict

import cct_export
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.importers.source import load_model
from cct_export.model.adapting import interpolate_positions
from cct_export.model.layers import sine_table
from cct_export.model.presets import PRESETS
from cct_export.specs import ImportSpec

pytest.importorskip("safetensors", reason="safetensors is not installed")

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3)).astype(np.float32)


def _of_preset(name):
    spec = PRESETS[name]
    side = {32: {1: 16, 2: 8}, 224: {2: 14}, 384: {2: 24}}[spec.image_size][len(spec.filters)]
    return state_dict(
        spec.width, spec.layers, spec.kernel, spec.filters[:-1], side, spec.classes,
        spec.mlp_units[0] // spec.width,
    )  # fmt: skip


CORE = ("cct_2_3x2_32_sine", "cct_6_3x1_32_c100", "cct_7_7x2_224")


@pytest.mark.parametrize(
    "name",
    [
        name if name in CORE else pytest.param(name, marks=pytest.mark.slow)
        for name in PRESETS
        if name != "cct_keras_io"
    ],
)
def test_a_preset_is_recognized_from_its_shapes_and_its_table(saved, name):
    arrays = _of_preset(name)
    if PRESETS[name].positional == "sine":
        table = arrays["classifier.positional_emb"]
        arrays["classifier.positional_emb"] = sine_table(*table.shape[1:])[None].astype(np.float32)
    imported = load(saved(arrays))
    assert imported.model.spec == PRESETS[name]
    assert imported.tensors == len(arrays)
    assert imported.parameters == sum(array.size for array in arrays.values())
    assert imported.parameters == imported.model.count_params()


def test_other_sizes_than_those_of_presets_are_read_from_the_shapes(saved):
    arrays = state_dict(128, 3, 5, (24, 40), 4, 7, 2, positional=False)
    spec = load(saved(arrays), image_size=40).model.spec
    assert (spec.filters, spec.kernel, spec.padding, spec.layers) == ((24, 40, 128), 5, 2, 3)
    assert (spec.heads, spec.mlp_units, spec.positional) == (2, (256, 128), "none")
    assert (spec.image_size, spec.classes) == (40, 7)


def test_heads_must_be_given_where_no_rule_applies(saved):
    path = saved(state_dict(48))
    with pytest.raises(InvalidModel, match="give --heads a divisor of 48"):
        load(path)
    with pytest.raises(InvalidModel, match="48 channels cannot be shared by 5 heads"):
        load(path, heads=5)
    assert load(path, heads=3).model.spec.head_dim == 16
    assert load(saved(state_dict(64)), heads=4).model.spec.heads == 4


def test_an_image_size_with_as_many_tokens_changes_no_weight(saved):
    path = saved(state_dict(64))
    first, second = load(path), load(path, image_size=15)
    assert (first.model.spec.image_size, second.model.spec.image_size) == (16, 15)
    for ours, theirs in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert len(second.notes) == 1


def test_positions_are_interpolated_for_another_image_size(saved):
    arrays = state_dict(64)
    imported = load(saved(arrays), image_size=32)
    table = imported.model.get_layer("position_embedding").embeddings.numpy()
    # Between four centres their weighted mean; beyond the outermost the outermost value.
    grid = arrays["classifier.positional_emb"].reshape(8, 8, 64)
    new = table.reshape(16, 16, 64)
    np.testing.assert_allclose(new[0, 0], grid[0, 0], atol=1e-6)
    weights = np.array([0.75, 0.25])
    near = np.einsum("i,j,ijw->w", weights, weights, grid[:2, :2])
    np.testing.assert_allclose(new[1, 1], near, atol=1e-6)
    assert any("8×8 tokens interpolated to 16×16" in note for note in imported.notes)


def test_interpolation_reproduces_linear_tables_and_keeps_the_same_size_unchanged():
    rows, columns = np.mgrid[:6, :6].astype(np.float32)
    table = np.stack([rows, columns], -1).reshape(36, 2)
    assert np.array_equal(interpolate_positions(table, (6, 6), (6, 6)), table)
    resized = interpolate_positions(table, (6, 6), (12, 12)).reshape(12, 12, 2)
    inner = resized[1:-1, 1:-1]
    expected = (np.arange(1, 11) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(inner[:, 3, 0], expected, atol=1e-6)
    np.testing.assert_allclose(inner[3, :, 1], expected, atol=1e-6)


def test_a_sine_table_is_computed_anew_for_another_image_size(saved):
    arrays = state_dict(64)
    arrays["classifier.positional_emb"] = sine_table(64, 64)[None].astype(np.float32)
    imported = load(saved(arrays), image_size=32)
    assert imported.model.spec.positional == "sine"
    table = imported.model.get_layer("position_embedding").embeddings.numpy()
    np.testing.assert_allclose(table, sine_table(256, 64), atol=1e-6)


def test_another_number_of_classes_replaces_the_head_alone(saved):
    path = saved(state_dict(64))
    ten, five = load(path).model, load(path, classes=5)
    assert five.model.output_shape == (None, 5)
    assert five.model.name == f"{ten.name}_c5"
    assert any("a new head for 5 classes in place of 10" in note for note in five.notes)
    for old, new in zip(ten.weights[:-2], five.model.weights[:-2], strict=True):
        assert np.array_equal(old, new)
    assert load(path, classes=10).notes == load(path).notes


def test_labels_name_the_classes_and_give_their_number(saved):
    path = saved(state_dict(64))
    assert load(path, labels=("a", "b", "c")).model.spec.labels == ("a", "b", "c")
    with pytest.raises(InvalidRequest, match="3 labels for 10 classes"):
        load(path, labels=("a", "b", "c"), classes=10)


@pytest.mark.parametrize(
    ("options", "mean"),
    [({}, 0.4914), ({"normalize": "imagenet"}, 0.485), ({"normalize": "cifar100"}, 0.5071)],
)
def test_the_normalization_is_part_of_the_model(saved, options, mean):
    path = saved(state_dict(64))
    model = load(path, **options).model
    plain = load(path, normalize="none").model
    assert model.spec.mean[0] == mean
    assert plain.spec.mean == ()
    normalized = 255 * (IMAGES / 255 - model.spec.mean) / model.spec.std
    expected = plain(normalized.astype(np.float32), training=False)
    np.testing.assert_allclose(model(IMAGES, training=False), expected, rtol=1e-4, atol=1e-4)


def test_a_state_dict_is_exported_and_verified_directly(saved, tmp_path):
    path = saved(state_dict(64))
    loaded = load_model(str(path))
    assert loaded.model.output_shape == (None, 10)
    exported = cct_export.export_tflite(str(path), output=tmp_path / "m.tflite", parity_samples=8)
    assert exported.parity.passed
    assert cct_export.verify(tmp_path / "m.tflite", samples=8).passed


def test_an_import_writes_a_keras_file_and_reports_the_source(
    saved, tmp_path, in_process, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    arguments = (saved(state_dict(64)), "--labels", "names.txt", "--json", "-")
    ended = in_process("export", "import", *arguments)
    assert ended.code == 0, ended.err
    record = ended.record["imported"]
    assert record["path"] == "m.keras"
    assert record["tensors"] == len(state_dict(64))
    assert "19 tensors, 31,691 parameters, all used" in ended.err
    model = cct_export.load("m.keras").model
    assert model.spec.labels == tuple("abcdefghij")
    source = load_model("m.safetensors").model
    expected = source(IMAGES, training=False)
    np.testing.assert_array_equal(model(IMAGES, training=False), expected)


def _without(name):
    arrays = state_dict(64)
    del arrays[name]
    return arrays


def _with_nan():
    arrays = state_dict(64)
    arrays["classifier.norm.weight"][3] = np.nan
    return arrays


QKV = "classifier.blocks.0.self_attn.qkv.weight"
CONV = "tokenizer.conv_layers.0.0.weight"
REFUSED = {
    "a tensor missing": (lambda: _without(QKV), rf"missing: {QKV}"),
    "a tensor left over": (
        lambda: state_dict(64) | {"classifier.class_emb": np.zeros((1, 1, 64), np.float32)},
        r"left over: classifier\.class_emb",
    ),
    "a tensor of another shape": (
        lambda: state_dict(64) | {QKV: np.zeros((64, 64), np.float32)},
        r"of another shape: .*qkv\.weight \(64, 64\) instead of \(192, 64\)",
    ),
    "a NaN": (_with_nan, r"1 of 64 numbers of classifier\.norm\.weight are not"),
    "a vision transformer": (
        lambda: {"cls_token": np.zeros((1, 1, 8)), "patch.proj.weight": np.zeros((8, 3, 4, 4))},
        r"not a state dict of a CCT: tokenizer\.conv_layers\.0\.0\.weight of 4 dimensions is "
        "missing; .* cls_token",
    ),
    "a residual network": (
        lambda: {"conv1.weight": np.zeros((8, 3, 3, 3)), "fc.weight": np.zeros((10, 8))},
        r"not a state dict of a CCT",
    ),
    "nothing": (dict, "not a state dict of a CCT"),
    "positions of no square image": (
        lambda: state_dict(64) | {"classifier.positional_emb": np.zeros((1, 60, 64))},
        "60 positions do not come from a square image",
    ),
    "positions of another rank": (
        lambda: state_dict(64) | {"classifier.positional_emb": np.zeros((64, 64))},
        "0 positions do not come from a square image",
    ),
    # A model with such shapes would fill the memory.
    "a billion classes without numbers": (
        lambda: state_dict(64) | {"classifier.fc.weight": np.zeros((10**9, 0))},
        r"classifier\.fc\.weight has no numbers",
    ),
    "convolutions wider than all else": (
        lambda: state_dict(64) | {CONV: np.zeros((10**6, 3, 1, 1))},
        r"missing|of another shape: .* instead of \(1, 64, 1000000\)",
    ),
    "a block of a high number": (
        lambda: state_dict(64) | {f"classifier.blocks.{'9' * 5000}.norm1.bias": np.zeros(64)},
        r"left over: classifier\.blocks\.999",
    ),
    "a convolution that is a number": (
        lambda: state_dict(64) | {"tokenizer.conv_layers.1.0.weight": np.zeros(())},
        r"conv_layers\.1\.0\.weight of 4 dimensions is missing",
    ),
    "a convolution that is a matrix": (
        lambda: state_dict(64) | {CONV: np.zeros((64, 3))},
        r"conv_layers\.0\.0\.weight of 4 dimensions is missing",
    ),
    "a bias that is a number": (
        lambda: state_dict(64) | {"classifier.blocks.0.linear1.bias": np.zeros(())},
        r"linear1\.bias \(\) instead of \(64,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_another_architecture_is_refused_with_the_difference(refused, saved, kind):
    make, reason = REFUSED[kind]
    arrays = {name: np.asarray(array, np.float32) for name, array in make().items()}
    with pytest.raises(InvalidModel, match=reason):
        load(saved(arrays))
    assert "m.safetensors" in refused("m.safetensors")


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(refused, saved, part):
    path = saved(state_dict(64))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "is not a readable .safetensors file" in refused(path)


def test_a_header_that_claims_terabytes_is_refused(refused, tmp_path):
    entry = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}
    text = json.dumps({"tokenizer.conv_layers.0.0.weight": entry}).encode()
    for name, size in (("tensor", len(text)), ("header", 1 << 60)):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(struct.pack("<Q", size) + text + bytes(16))
        assert "is not a readable .safetensors file" in refused(path)


def test_invalid_options_are_refused(refused, saved):
    path = saved(state_dict(64))
    assert "does not end in .keras" in refused(path, "-o", "m.h5", code=2)
    (path.parent / "names.txt").write_text("cat\ndog\n")
    named = (path, "--labels", "names.txt")
    assert "2 labels for 10 classes" in refused(*named, "--classes", 10, code=2)
    assert "holds no labels" in refused(path, "--labels", path)
    (path.parent / "names.txt").write_text("\n \n")
    assert "holds no labels" in refused(path, "--labels", "names.txt")
    with pytest.raises(InvalidRequest, match="image_size must be at most 4096, not 10000"):
        cct_export.import_model(path, output=path.with_suffix(".keras"), image_size=10_000)


def test_a_byte_order_mark_is_not_part_of_a_label(in_process, saved, tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    output = tmp_path / "m.keras"
    path = saved(state_dict(64, classes=2))
    ended = in_process("export", "import", path, "--labels", tmp_path / "names.txt", "-o", output)
    assert ended.code == 0, ended.err
    assert load_model(str(output)).model.spec.labels == ("cat", "dog")


def test_every_field_of_the_import_spec_is_checked():
    for field in dataclasses.fields(ImportSpec):
        if field.name != "labels":
            with pytest.raises(ValueError, match=field.name):
                ImportSpec(**{field.name: "other" if field.name in ("normalize", "gelu") else 0})
