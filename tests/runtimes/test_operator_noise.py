"""The noise of the times that are derived from prefixes of a TFLite file."""

import numpy as np

from cct_export.runtimes.litert_prefixes import BURST, operator_ms, operator_noise_ms

MS = 1_000_000


def test_steady_prefixes_have_no_noise_and_constants_none():
    steady = (MS,) * BURST * 8
    assert operator_noise_ms([steady, None, steady]) == [0.0, 0.0, 0.0]


def test_the_noise_of_a_difference_is_that_of_both_medians():
    """Over many profiles of two equal prefixes, 95 % of the differences lie within the noise."""
    random = np.random.default_rng(0)
    rounds, within = 20, 0
    for _ in range(500):
        bursts = random.normal(1.0, 0.05, (2, rounds, 1))
        times = (bursts.repeat(BURST, axis=2) * MS).astype(int).reshape(2, -1)
        difference = operator_ms(times.tolist())[1]
        within += abs(difference) <= operator_noise_ms(times.tolist())[1]
    assert 0.88 <= within / 500 <= 0.99
