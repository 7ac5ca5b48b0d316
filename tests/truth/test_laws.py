"""Distances between laws, and what two samples of one law show."""

import numpy as np
import pytest
import xarray as xr

from noisekit.truth.laws import loss_laws, parameter_laws
from noisekit.truth.measure import OBSERVABLES, _compared, _limit, _worst

RNG = np.random.default_rng(0)


def falling(n, *, shift=0.0, common=None):
    """Return n losses that fall from 3 to 1 with noise in which ``common`` (replicate, time) is shared."""
    own = RNG.normal(0, 0.1, (n, 21))
    return np.linspace(3, 1, 21) + shift + (own if common is None else (own + 3 * common) / np.sqrt(10))


def test_pairs_of_one_law_are_as_far_apart_as_their_exchanges():
    """Pairs that start alike end alike, so that exchanges of all values would promise too much distance."""
    distances, nulls = [], []
    for _ in range(30):
        common = RNG.normal(0, 0.1, (200, 21))
        found = loss_laws(falling(200, common=common), falling(200, common=common))
        distances.append(found["wasserstein"])
        nulls.append(found["wasserstein_null"])
    assert np.mean(distances) == pytest.approx(np.mean(nulls), rel=0.1)
    independent = loss_laws(falling(200), falling(200))
    assert np.mean(nulls) < 0.8 * independent["wasserstein_null"]


def test_a_shifted_law_is_seen_in_the_last_loss_and_in_the_passage():
    found = loss_laws(falling(400, shift=0.2), falling(400))
    assert found["wasserstein"] == pytest.approx(2.0, rel=0.1)
    assert found["wasserstein_null"] < 0.3
    assert found["hitting_level"] == pytest.approx(2.0, abs=0.05)
    assert found["hitting_distance"] > 0.5
    assert found["hitting_p_value"] < 1e-6


def test_paths_that_start_below_the_level_have_no_passage():
    rising = falling(200)[:, ::-1], falling(200)[:, ::-1]
    assert np.isnan(loss_laws(*rising)["hitting_p_value"])
    # Beside them those that do fall are counted as if they were alone.
    alone = loss_laws(falling(100, shift=0.2), falling(100))
    low = [np.concatenate([falling(100, shift=s), rising[0] - 1e-9]) for s in (0.2, 0)]
    assert loss_laws(*low)["hitting_distance"] == pytest.approx(alone["hitting_distance"], abs=0.15)


def test_parameters_of_one_law_are_as_far_apart_as_their_null():
    def ensemble():
        x = RNG.normal(size=(500, 1, 4))
        values = {"x_mean": (("time", "c"), x.mean(0)), "x_variance": ("time", x.var(0).sum(-1))}
        return xr.Dataset(values | {"diverged": ("replicate", np.full(500, -1))})

    found = [parameter_laws(ensemble(), ensemble()) for _ in range(60)]
    square = np.mean([f["parameter_mean_distance"] ** 2 for f in found])
    assert square == pytest.approx(np.mean([f["parameter_mean_null"] ** 2 for f in found]), rel=0.25)


def test_the_worst_instant_is_not_hidden_by_the_mean():
    real = np.exp(-np.arange(21) / 4) * (1 + RNG.normal(0, 0.01, (100, 21)))
    predicted = real.copy()
    predicted[:, -1] *= 1.3
    found = _compared("loss", predicted, real, None)
    assert found.mean_relative_gap < 0.01
    worst, error = _worst(found)
    assert worst == pytest.approx(0.3, abs=0.01)
    assert 0 < error < 0.01


def test_the_limit_removes_a_bias_that_is_linear_in_dt():
    def ensemble(bias):
        losses = 1 + noise + bias + RNG.normal(0, 0.01, (500, 4))
        values = dict.fromkeys(OBSERVABLES, (("replicate", "time"), losses))
        return xr.Dataset(values | {"diverged": ("replicate", np.full(500, -1))})

    noise = RNG.normal(0, 0.1, (500, 4))
    found = _limit(ensemble(0.10), ensemble(0.0), ensemble(0.05))
    assert found["limit_gap"][0] < 4 * found["limit_gap_error"][0] < 0.01
    # What the step size hid comes out.
    flattered = _limit(ensemble(0.0), ensemble(0.0), ensemble(0.05))
    assert flattered["limit_gap"][0] == pytest.approx(0.10, abs=0.01)
