"""Floors without a Hessian, against laws that know it and against the simulated optimizer."""

import math

import numpy as np
import pytest
import torch
from oracles import gaussian_draw, random_spd, simulated_covariance

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.theory import critical_noise, noise_floor, stationary_law, transient_law

NOISE = random_spd(4, 5, 0.2, 2.0)
STD = np.sqrt(np.diag(NOISE))
FLOORS = {
    "sgd": np.trace(NOISE) / 4,
    "signsgd": math.sqrt(math.pi / 2) * STD.sum() / 4,
    "rmsprop": STD.sum() / 4,
    "adamw": STD.sum() / 4,
}


@pytest.mark.parametrize("name", FLOORS)
def test_floor_does_not_depend_on_the_hessian(name):
    assert noise_floor(name, NOISE, 1.0) == pytest.approx(FLOORS[name], rel=1e-10)
    assert noise_floor(name, torch.tensor(np.diag(NOISE)), 0.5) == pytest.approx(FLOORS[name] / 2, rel=1e-10)
    for seed in range(3):
        hessian = random_spd(4, 10 + seed, 0.2, 5.0)
        law = stationary_law(name, hessian, NOISE, 1e-4)
        assert law.excess_loss == pytest.approx(1e-4 * FLOORS[name], rel=5e-3)


@pytest.mark.parametrize("name", ["sgd", "signsgd", "adam"])
def test_floor_is_reached_by_the_simulated_optimizer(name):
    hessian = random_spd(4, 6, 0.7, 2.0)
    _, covariance = simulated_covariance(
        name, hessian, gaussian_draw(NOISE), 0.01, steps=2000, burn_in=1000, replicates=1024
    )
    assert np.trace(hessian @ covariance) / 2 == pytest.approx(noise_floor(name, NOISE, 0.01), rel=0.03)


def test_models_mappings_and_student_t():
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert noise_floor("adam", GaussianNoise(scale=scale), 0.4) == pytest.approx(0.25, rel=1e-9)
    parts = {"a": torch.tensor([[0.25]]), "b": torch.tensor([4.0])}
    assert noise_floor("adam", parts, 0.4) == pytest.approx(0.25, rel=1e-6)
    cauchy = noise_floor("signsgd", StudentTNoise(scale=scale, df=1.0), 0.4)
    assert cauchy == pytest.approx(0.1 * 2.5 * math.pi / 2, rel=1e-5)  # s/ℓ₁, ℓ₁ = 2/π
    near = noise_floor("signsgd", StudentTNoise(scale=scale, df=1e7), 0.4)
    assert near == pytest.approx(0.1 * 2.5 * math.sqrt(math.pi / 2), rel=1e-5)
    assert noise_floor("sgd", StudentTNoise(scale=scale, df=4.0), 0.4) == pytest.approx(
        0.1 * 2 * 4.25, rel=1e-6
    )
    with pytest.raises(InfiniteVarianceError, match="signsgd"):
        noise_floor("sgd", StudentTNoise(scale=scale, df=2.0), 0.4)


def test_unequilibrated_directions_lower_the_floor():
    hessian, variance, eta, steps = np.array([0.01, 2.0]), np.array([1.0, 1.0]), 0.02, 500
    law = transient_law("sgd", hessian, variance, eta, x0=np.zeros(2), steps=steps, save_every=steps)
    shared = noise_floor("sgd", variance, eta, curvature=hessian, time=eta * steps)
    assert shared == pytest.approx(law.loss[-1], rel=0.03)
    assert noise_floor("sgd", variance, eta) > 1.5 * shared
    for name, size in (("adam", 1.0), ("signsgd", math.sqrt(math.pi / 2))):
        dead = noise_floor(name, [0.0, 1.0], eta, curvature=[0.0, 1.0], time=100.0)
        assert dead == pytest.approx(size * eta / 4, rel=1e-6)


def test_critical_noise_is_where_the_floors_cross():
    for against in ("signsgd", "adam"):
        factor = critical_noise(NOISE, 0.1, against=against, sgd_learning_rate=0.3)
        scaled = factor**2 * NOISE
        assert noise_floor("sgd", scaled, 0.3) == pytest.approx(noise_floor(against, scaled, 0.1), rel=1e-9)
        above = 1.44 * scaled
        assert noise_floor("sgd", above, 0.3) > noise_floor(against, above, 0.1)
    assert critical_noise(StudentTNoise(scale=torch.ones(2), df=1.5), 0.1) == 0
    with pytest.raises(InfiniteVarianceError):
        critical_noise(StudentTNoise(scale=torch.ones(2), df=1.5), 0.1, against="adam")


def test_bad_input():
    with pytest.raises(InputError, match="belong together"):
        noise_floor("sgd", [1.0], 0.1, time=1.0)
    with pytest.raises(InputError, match="1 value"):
        noise_floor("sgd", [1.0], 0.1, curvature=[-1.0], time=1.0)
    with pytest.raises(InputError, match="NaN"):
        noise_floor("sgd", [float("nan")], 0.1)
    with pytest.raises(InputError, match="at=x"):
        noise_floor("sgd", GaussianNoise(scale=1.0), 0.1)
    for curvature, words in (([], "empty"), ([math.nan], "NaN")):
        with pytest.raises(InputError, match=words):
            noise_floor("sgd", [1.0], 0.1, curvature=curvature, time=1.0)
    with pytest.raises(InputError, match="sgd_learning_rate = 0"):
        critical_noise([1.0], 0.1, sgd_learning_rate=0)
    with pytest.raises(InputError, match="name the optimizer"):
        critical_noise([1.0], 0.1, against="sgd")
