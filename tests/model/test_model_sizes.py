"""The size of a CCT, told without building it."""

from dataclasses import replace

import pytest

from cct_export.model.cct import CCT
from cct_export.model.presets import preset
from cct_export.model.sizes import parameters

SMALL = preset("cct_2_3x2_32")


@pytest.mark.parametrize(
    "spec",
    [
        preset("cct_keras_io"),
        replace(preset("cct_keras_io"), head_dim=48, mlp_units=(32, 64, 128), channels=1),
        SMALL,
        replace(SMALL, positional="sine", image_size=45, classes=3),
        replace(SMALL, positional="none", layers=3, mlp_units=(200, 128)),
    ],
)
def test_a_cct_has_as_many_numbers_as_its_architecture_says(spec):
    assert parameters(spec) == CCT(spec).count_params()
