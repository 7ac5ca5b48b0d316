"""Laws of one optimizer that must become those of another: θ = 0, β → 0, ε → ∞, ν → ∞, no noise, η → 0."""

import math

import numpy as np
import pytest
import torch
from oracles import random_spd

from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.theory import (
    critical_noise,
    escape_time,
    loss_bound,
    noise_floor,
    regimes,
    signsgd_phase,
    stationary_law,
    transient_law,
)

HESSIAN = random_spd(3, 1, 0.5, 3.0)
SIGMA = random_spd(3, 2, 0.3, 2.0)
SCALE = torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64)
LARGE = 1e7


def path(name, eta=0.02, noise=SIGMA, **hyper):
    law = transient_law(name, HESSIAN, noise, eta, x0=[1.0, -2.0, 0.5], steps=60, **hyper)
    return np.hstack([law.mean, law.variance])


def near(one, other, tolerance):
    size = np.abs(other).max()
    assert size > 0
    np.testing.assert_allclose(one / size, other / size, atol=tolerance)


@pytest.mark.parametrize("decoupled", ["adamw", "rmspropw"])
def test_without_decay_the_two_kinds_of_it_are_one(decoupled):
    coupled = decoupled.removesuffix("w")
    near(path(decoupled), path(coupled), 1e-12)
    assert np.abs(path(decoupled, weight_decay=0.5) - path(coupled, weight_decay=0.5)).max() > 0.01
    assert noise_floor(decoupled, SIGMA, 0.1) == noise_floor(coupled, SIGMA, 0.1)
    near(loss_bound(decoupled, [0, 5, 500], **bound()), loss_bound(coupled, [0, 5, 500], **bound()), 1e-12)
    faint = stationary_law(decoupled, HESSIAN, SIGMA, 0.02, weight_decay=1e-9).covariance
    near(faint, stationary_law(coupled, HESSIAN, SIGMA, 0.02, weight_decay=1e-9).covariance, 1e-7)


def bound():
    return {
        "learning_rate": 0.05,
        "initial_excess": 2.0,
        "strong_convexity": 0.5,
        "hessian_trace": 4.0,
        "noise_std": 1.3,
    }


def test_without_averaging_of_the_gradient_there_is_no_momentum():
    near(path("sgd", momentum=1e-12), path("sgd"), 1e-9)
    assert escape_time("sgd", -1.0, [1.0], 0.01, distance=0.5, momentum=1e-12) == pytest.approx(
        escape_time("sgd", -1.0, [1.0], 0.01, distance=0.5), rel=1e-9
    )
    hyper = {"betas": (0.0, 0.999), "beta": 0.999}
    assert escape_time("adam", -1.0, [1.0], 0.01, distance=0.5, **hyper) == pytest.approx(
        escape_time("rmsprop", -1.0, [1.0], 0.01, distance=0.5, **hyper), rel=1e-12
    )
    # Bias correction aside, which ends with the memory of v.
    late = {"betas": (0.0, 0.5), "beta": 0.5}
    near(path("adam", **late)[-20:], path("rmsprop", **late)[-20:], 0.02)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "rmspropw"])
def test_a_large_epsilon_leaves_sgd(name):
    # P → ε, so a learning rate of ηε is one of η; without momentum, of which SGD here has none.
    hyper = {"betas": (0.0, 0.9), "beta": 0.9, "eps": LARGE}
    near(path(name, 0.02 * LARGE, **hyper), path("sgd"), 1e-5)
    law = stationary_law(name, HESSIAN, SIGMA, 0.02 * LARGE, **hyper)
    near(law.covariance, stationary_law("sgd", HESSIAN, SIGMA, 0.02).covariance, 1e-5)
    assert noise_floor(name, SIGMA, 0.02 * LARGE, eps=LARGE) == pytest.approx(noise_floor("sgd", SIGMA, 0.02))
    if name.startswith("rms"):
        found = escape_time(name, -1.0, [1.0], 0.01 * LARGE, distance=0.5, eps=LARGE)
        assert found == pytest.approx(escape_time("sgd", -1.0, [1.0], 0.01, distance=0.5), rel=1e-5)


@pytest.mark.parametrize(("df", "tolerance"), [(1e3, 3e-3), (LARGE, 1e-5)])
def test_many_degrees_of_freedom_are_gaussian(df, tolerance):
    heavy, gaussian = StudentTNoise(scale=SCALE, df=df), GaussianNoise(scale=SCALE)
    for name in ("sgd", "signsgd", "rmsprop", "adam"):
        near(path(name, 0.005, heavy), path(name, 0.005, gaussian), 2 * tolerance)
        assert noise_floor(name, heavy, 0.1) == pytest.approx(noise_floor(name, gaussian, 0.1), rel=tolerance)
    assert critical_noise(heavy, 0.1) == pytest.approx(critical_noise(gaussian, 0.1), rel=tolerance)
    near(
        signsgd_phase([1.0, -1.0, 0.2], heavy).ratio,
        signsgd_phase([1.0, -1.0, 0.2], gaussian).ratio,
        tolerance,
    )
    one = StudentTNoise(scale=SCALE[:1], df=df)
    found = escape_time("signsgd", -1.0, one, 0.01, distance=0.3)
    assert found == pytest.approx(escape_time("signsgd", -1.0, [0.25], 0.01, distance=0.3), rel=tolerance)


def test_few_degrees_of_freedom_are_not():
    heavy, gaussian = StudentTNoise(scale=SCALE, df=3.0), GaussianNoise(scale=SCALE)
    for name in ("sgd", "signsgd", "rmsprop", "adam"):
        assert noise_floor(name, heavy, 0.1) > 1.05 * noise_floor(name, gaussian, 0.1)


def test_without_noise_the_mean_is_the_optimizer_itself():
    eta, x = 0.02, np.array([1.0, -2.0, 0.5])
    law = transient_law("sgd", HESSIAN, [0.0, 0.0, 0.0], eta, x0=x, steps=60)
    for _ in range(60):
        x = x - eta * HESSIAN @ x
    np.testing.assert_allclose(law.mean[-1], x, rtol=1e-12)
    np.testing.assert_allclose(law.variance, 0.0, atol=1e-30)
    assert noise_floor("sgd", [0.0], eta) == noise_floor("signsgd", [0.0], eta) == 0.0


@pytest.mark.parametrize("name", ["sgd", "signsgd", "rmsprop", "adam"])
def test_small_steps_end_at_the_floor(name):
    ratios = []
    for eta in (4e-3, 1e-3):
        hyper = {"beta": 1 - eta, "betas": (1 - 10 * eta, 1 - eta)}
        excess = stationary_law(name, HESSIAN, SIGMA, eta, **hyper).excess_loss
        ratios.append(excess / noise_floor(name, SIGMA, eta))
    assert ratios[1] == pytest.approx(1, abs=0.004)
    assert abs(ratios[1] - 1) < 0.4 * abs(ratios[0] - 1)


def test_a_constant_schedule_is_none():
    steps = [0, 3, 40]
    for name in ("sgd", "signsgd", "adam"):
        constant = loss_bound(name, steps, schedule=lambda k: 1.0, **bound())
        near(constant, loss_bound(name, steps, **bound()), 1e-12)
        near(path(name, schedule=lambda k: 1.0), path(name), 1e-14)
        near(path(name, schedule=lambda k: 0.5), path(name, 0.01), 1e-12)


def test_no_decay_is_no_lag():
    (lag,) = (g for g in regimes("adamw", 0.1, weight_decay=0.0) if g.name == "momentum_lag")
    assert (lag.value, lag.verdict) == (0.0, "ok")
    published = stationary_law("adamw", HESSIAN, SIGMA, 0.02, source="published").covariance
    near(
        stationary_law("adamw", HESSIAN, SIGMA, 0.02, source="published", variant="lag").covariance,
        published,
        1e-12,
    )
    assert math.isfinite(published.sum())
