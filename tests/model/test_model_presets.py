"""The named architectures have their published sizes."""

from dataclasses import replace

import numpy as np
import pytest

from cct_export.errors import InvalidRequest
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.model.presets import (
    CIFAR,
    CIFAR100,
    IMAGENET,
    MODELS,
    PRESETS,
    preset,
    shipped_checkpoint,
    ships,
)
from cct_export.model.sizes import parameter_count

# Parameters of the authors' PyTorch code, in which a sine table counts too.
COUNTS = {
    "cct_keras_io": 416_331,
    "cct_2_3x2_32": 283_723,
    "cct_4_3x2_32": 482_123,
    "cct_6_3x1_32": 3_233_803,
    "cct_6_3x2_32": 3_326_923,
    "cct_7_3x1_32": 3_760_139,
    "cct_7_3x1_32_c100": 3_783_269,
    "cct_7_3x2_32": 3_853_259,
    "cct_7_7x2_224": 4_573_735,
    "cct_14_7x2_224": 22_367_273,
    "cct_14_7x2_384": 22_513_193,
}
TABLES = {"cct_7_3x1_32": (256, 256), "cct_7_7x2_224": (196, 256), "cct_14_7x2_384": (576, 384)}


def _core(*names):
    """Returns names of presets; those other than two small ones are slow to build."""
    quick = ("cct_keras_io", "cct_2_3x2_32")
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", COUNTS)
def test_a_preset_has_the_parameters_of_the_published_code(name):
    assert parameter_count(preset(name)) == COUNTS[name]


@pytest.mark.parametrize("name", _core(*COUNTS))
def test_a_built_preset_has_these_parameters_and_all_are_trainable(name):
    model = CCT(preset(name))
    assert model.count_params() == COUNTS[name]
    assert model.non_trainable_weights == []
    size = preset(name).image_size
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, preset(name).classes)


@pytest.mark.parametrize("name", _core(*(name for name in COUNTS if f"{name}_sine" in PRESETS)))
def test_a_preset_with_sine_positions_has_as_many_weights_and_an_untrainable_table(name):
    model = CCT(preset(f"{name}_sine"))
    assert model.count_params() == COUNTS[name]
    (table,) = model.non_trainable_weights
    assert table.path == "position_embedding/embeddings"
    if name in TABLES:
        assert tuple(table.shape) == TABLES[name]


def test_every_model_of_the_paper_has_its_variants():
    small = [name for name in COUNTS if name.endswith("_32")]
    large = [name for name in COUNTS if name.endswith(("_224", "_384"))]
    assert len(small) == 6
    expected = [f"{name}{suffix}" for name in small + large for suffix in ("", "_sine")]
    expected += [f"{name}{suffix}_c100" for name in small for suffix in ("", "_sine")]
    assert sorted(PRESETS) == sorted([*expected, "cct_keras_io"])


@pytest.mark.parametrize("name", [n for n in PRESETS if n.endswith("_c100")])
def test_a_model_for_cifar100_differs_in_head_and_normalization_only(name):
    mean, std = CIFAR100
    base = preset(name.removesuffix("_c100"))
    assert preset(name) == replace(base, name=name, classes=100, mean=mean, std=std)


@pytest.mark.parametrize("name", [n for n in PRESETS if n.endswith("_sine")])
def test_a_sine_preset_differs_in_its_positions_only(name):
    base = preset(name.removesuffix("_sine"))
    assert preset(name) == replace(base, name=name, positional="sine")


def test_pixels_are_normalized_as_the_authors_do_for_each_data_set():
    for name, spec in PRESETS.items():
        large = spec.image_size > 32
        expected = IMAGENET if large else CIFAR100 if "_c100" in name else CIFAR
        assert (spec.mean, spec.std) == (((), ()) if name == "cct_keras_io" else expected)


def test_a_normalized_model_takes_raw_pixels():
    spec = replace(preset("cct_2_3x2_32"), layers=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    scaled = np.asarray(CCT(spec).get_layer("rescaling")(images))
    mean, std = (np.array(part) for part in CIFAR)
    np.testing.assert_allclose(scaled, (images / 255 - mean) / std, atol=1e-5)


def test_a_preset_without_weights_is_refused_with_what_to_do():
    with pytest.raises(InvalidRequest, match="preset cct_7_3x1_32 ships no weights: train it"):
        shipped_checkpoint("cct_7_3x1_32")


@pytest.mark.parametrize("name", filter(ships, MODELS))
def test_weights_that_ship_are_of_their_preset(name):
    model = checkpoint.load(shipped_checkpoint(name))
    architecture = name.removesuffix("_example")
    assert (model.spec.name, model.count_params()) == (architecture, COUNTS[architecture])
    assert len(model.spec.labels) == 10
