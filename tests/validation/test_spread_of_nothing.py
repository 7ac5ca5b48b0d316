"""A prediction without noise is not held to be right because its mean is."""

import numpy as np
import pytest

from noisekit.validation import compare_curves

REFERENCE = 1 + np.random.default_rng(0).normal(0, 0.1, (400, 5))


def test_a_prediction_that_does_not_spread_is_missed():
    found = compare_curves("loss", np.ones_like(REFERENCE), REFERENCE)
    assert found.mean_relative_gap < 0.01
    assert found.verdict == "missed"
    assert "does not spread at all" in found.verdict_text
    assert found.mean_std_ratio == 0


def test_two_ensembles_without_spread_agree():
    same = np.ones((4, 5))
    found = compare_curves("loss", same, same.copy())
    assert found.verdict == "held"
    assert np.isnan(found.mean_std_ratio)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_prediction_that_spreads_is_judged_by_its_ratio(scale):
    other = 1 + scale * (REFERENCE[::-1] - 1)
    found = compare_curves("loss", other, REFERENCE)
    assert found.mean_std_ratio == pytest.approx(scale, rel=1e-6)
    assert found.verdict == ("held" if scale == 1 else "missed")
