"""The numbers in a file of weights: their dtypes, and whether logits are finite."""

import keras
import ml_dtypes
import numpy as np
import pytest
from state_dicts import load, state_dict

from cct_export.importers import state_dict as reader

pytest.importorskip("safetensors", reason="safetensors is not installed")

NORM = "classifier.norm.weight"


def test_finite_weights_with_infinite_logits_are_refused(refused, saved):
    arrays = state_dict(64)
    arrays["classifier.fc.weight"] *= np.float32(1e38)
    arrays[NORM] *= 100
    assert all(np.isfinite(array).all() for array in arrays.values())
    line = refused(saved(arrays))
    assert "m.safetensors cannot be used: its weights are finite, but " in line
    assert "logits that it gives for a grey image and one of random pixels are not" in line


def test_another_kind_of_model_is_run_too(refused, tmp_path):
    last = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((8, 8, 3), 2), keras.layers.Flatten(), last])
    model.save(tmp_path / "good.keras")
    assert load(tmp_path / "good.keras").model.input_shape == (None, 8, 8, 3)
    last.set_weights([np.full((192, 3), 1e38), np.zeros(3)])
    model.save(tmp_path / "bad.keras")
    assert "but 6 of the 6 logits" in refused("bad.keras", "-o", "m.keras")


def test_a_model_too_large_to_run_is_imported_with_a_note(saved):
    imported = load(saved(state_dict(64, positional=False)), image_size=1024)
    assert imported.notes[-1] == "not run: one image of 1024×1024 needs over 1 GiB of memory"


@pytest.mark.parametrize("kind", [np.int64, bool, np.complex64])
def test_a_tensor_that_is_not_floating_point_is_refused_by_name(refused, saved, kind):
    arrays = state_dict(64)
    arrays[NORM] = arrays[NORM].astype(kind)
    line = refused(saved(arrays))
    assert f"{NORM} is {np.dtype(kind).name}, and all weights of a CCT are floating" in line


def test_integer_counters_of_another_model_are_reported_as_left_over(refused, saved):
    line = refused(saved(state_dict(64) | {"num_batches_tracked": np.ones((), np.int64)}))
    assert "left over: num_batches_tracked" in line


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floating_point_types_are_converted_with_a_note(saved, kind):
    arrays = state_dict(64)
    changed = {name: array.astype(kind) for name, array in arrays.items() if "blocks" in name}
    imported = load(saved(arrays | changed))
    name = np.dtype(kind).name
    assert imported.notes[0] == f"{len(changed)} of 19 tensors converted from {name} to float32"
    kernel = next(w for w in imported.model.weights if w.path.endswith("qkv/kernel")).numpy()
    expected = changed["classifier.blocks.0.self_attn.qkv.weight"].T.astype(np.float32)
    assert np.array_equal(kernel, expected)
    assert imported.tensors == 19


def test_numbers_too_large_for_float32_are_refused(refused, saved):
    arrays = state_dict(64)
    arrays[NORM] = np.full(64, 1e300)
    assert f"64 of 64 numbers of {NORM} are not finite" in refused(saved(arrays))


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model._orig_mod.", "_orig_mod.module.model.", "module.module.", "model." * 2000],
    ids=lambda prefix: prefix[:30],
)
def test_shared_prefixes_are_removed_in_any_order(saved, prefix):
    arrays, notes = reader.read(saved({prefix + n: a for n, a in state_dict(64).items()}))
    assert list(arrays) == list(state_dict(64))
    assert notes == ()


def test_a_prefix_of_some_names_stays(saved):
    names = ["module.model.a", "module.b"]
    arrays, _ = reader.read(saved({name: np.ones(2, np.float32) for name in names}))
    assert list(arrays) == ["model.a", "b"]
