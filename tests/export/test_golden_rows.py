"""The golden images that a sidecar keeps."""

import numpy as np
import pytest

from cct_export.export.placing import _golden_rows
from cct_export.records import sidecar


@pytest.mark.parametrize("count", [1, 5, sidecar.GOLDEN_IMAGES, 1000])
def test_they_are_spread_over_images_on_which_the_file_decides_as_its_model(count):
    agrees = np.arange(2 * count) % 2 == 0
    rows = _golden_rows(agrees)
    assert len(rows) == len(set(rows)) == min(count, sidecar.GOLDEN_IMAGES)
    assert agrees[rows].all()
    assert rows[0] == 0
    assert rows[-1] == 2 * (count - 1) or count == 1


def test_where_it_decides_otherwise_everywhere_they_are_spread_over_all_images():
    assert _golden_rows(np.zeros(3, bool)).tolist() == [0, 1, 2]
