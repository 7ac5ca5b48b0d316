"""The rule of every insight can say that it failed, and does not take noise for agreement."""

import numpy as np
import pytest

from noisekit.truth.insights import (
    batch_scaling,
    decoupled_decay,
    floor_from_record,
    heavy_tails,
    noise_floors,
    signsgd_phases,
    signsgd_stationary,
)


def rule(insight):
    """Return the function that decides, which stands beside the insight."""
    return insight.__globals__["_finding"]


@pytest.mark.parametrize(
    ("slope", "error", "finding"),
    [(1.0, 0.02, "held"), (1.0, 0.3, "held in part"), (1.2, 0.02, "held in part"), (1.6, 0.02, "failed")],
)
def test_noise_floors(slope, error, finding):
    values = np.array([[2.0, slope, 1.0, 1.0]] * 2)
    both = np.stack([values, np.full((2, 4), error)], axis=-1)
    assert rule(noise_floors)(both, np.array([2.0, 1.0, 1.0, 1.0])) == finding


@pytest.mark.parametrize(
    ("ratio", "error", "distance", "finding"),
    [
        (1.01, 0.01, 0.05, "held"),
        (1.10, 0.01, 0.05, "failed"),
        (1.01, 0.01, 0.30, "failed"),
        (1.10, 0.20, 0.05, "failed"),
    ],
)
def test_signsgd_stationary(ratio, error, distance, finding):
    shape = (6, 3)
    found = {
        "ratio": np.full(shape, ratio),
        "ratio_error": np.full(shape, error),
        "distance": np.full(shape, distance),
        "distance_floor": np.full(6, 0.02),
    }
    assert rule(signsgd_stationary)(found) == finding
    found["ratio"][:2] = 1.0
    found["distance"][:2] = 0.0
    assert rule(signsgd_stationary)(found) == finding  # two of six laws are not enough


@pytest.mark.parametrize(
    ("sign_lost", "sde", "error", "sgd_lost", "finding"),
    [
        (0.0, 1.02, 0.02, 1.0, "held"),
        (0.0, 1.30, 0.02, 1.0, "held in part"),
        (0.0, 1.30, 0.30, 1.0, "held in part"),
        (0.0, 1.02, 0.02, 0.1, "held in part"),
        (0.2, 1.02, 0.02, 1.0, "failed"),
    ],
)
def test_heavy_tails(sign_lost, sde, error, sgd_lost, finding):
    sizes = heavy_tails.__globals__["Sizes"]()
    lost = np.zeros((3, 4))
    lost[-1, :2] = sgd_lost, sign_lost
    real = np.stack([np.ones((3, 4)), np.full((3, 4), error)], axis=-1)
    found = {"lost": lost, "late_median": real, "sde_late_median": real * [sde, 1.0]}
    assert rule(heavy_tails)(found, 9.0, sizes) == finding


@pytest.mark.parametrize(
    ("decoupled", "l2", "error", "excess", "finding"),
    [
        (0.1, 1.0, 0.05, 0.7, "held"),
        (0.1, 1.0, 0.50, 0.7, "held in part"),
        (0.1, 1.0, 0.05, 1.2, "held in part"),
        (0.1, 0.2, 0.05, 0.7, "held in part"),
        (0.9, 1.0, 0.05, 0.7, "failed"),
    ],
)
def test_decoupled_decay(decoupled, l2, error, excess, finding):
    growth = np.array([[decoupled, decoupled, l2, l2]] * 2)
    assert rule(decoupled_decay)(growth, np.full((2, 4), error), excess, 0.01) == finding


@pytest.mark.parametrize(
    ("kept", "others", "error", "finding"),
    [
        (0.02, 0.5, 0.02, "held"),
        (0.02, 0.5, 0.20, "held in part"),
        (0.20, 0.5, 0.02, "failed"),
        (0.02, 0.01, 0.02, "failed"),
    ],
)
def test_batch_scaling(kept, others, error, finding):
    change = np.full((3, 1, 5, 4), others)
    change[:, :, 0] = kept
    change[..., 1] = 0  # the original
    both = {name: (change, np.full(change.shape, error)) for name in ("floor", "time")}
    assert rule(batch_scaling)(both) == finding


@pytest.mark.parametrize(
    ("sgd", "sign", "error", "finding"),
    [
        (1.1, 1.2, 0.1, "held"),
        (1.1, 5.0, 0.1, "held in part"),
        (1.6, 5.0, 0.1, "failed"),
        (1.1, 1.2, 0.5, "failed"),
    ],
)
def test_floor_from_record(sgd, sign, error, finding):
    column = {
        "ratio": np.array([sgd, 1.0, sign, -13.0]),
        "ratio_error": np.full(4, error),
        "penalty": np.array([0.01, 0.01, 0.01, 0.0]),
        "optimizer": np.array(["sgd", "adam", "signsgd", "sgd"]),
    }
    assert rule(floor_from_record)(column) == finding


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({}, "held"),
        ({"line at 1": (0.33, 0.01)}, "held in part"),
        ({"phase 3, tangent": (1.3, 0.01)}, "held in part"),
        ({"phase 2": (1.2, 0.01)}, "failed"),
        ({"erf gap in errors": (9.0, 0.0)}, "failed"),
        ({"sde gap, one coordinate": (0.2, 0.2)}, "failed"),
    ],
)
def test_signsgd_phases(changed, finding):
    names = ("phase 1", "phase 2", "phase 3, secant", "phase 3, tangent")
    numbers = dict.fromkeys(names, (0.95, 0.001))
    numbers |= {"line at 1": (0.01, 0.001), "erf gap in errors": (3.0, 0.0)}
    numbers |= {
        f"sde gap, {name} coordinate{s}": (0.01, 0.005) for name, s in (("one", ""), ("correlated", "s"))
    }
    assert rule(signsgd_phases)(numbers | changed) == finding
