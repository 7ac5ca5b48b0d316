"""Stationary laws of the integrated SDEs against closed forms and the exact law of the discrete optimizer."""

import math

import pytest
import torch

import noisekit as nk

ETA = 0.01


def stationary_variance(sde, *, steps=1000, replicates=2000, substeps=4):
    solution = nk.integrate(
        sde,
        torch.zeros(1, dtype=torch.float64),
        steps=steps,
        replicates=replicates,
        substeps=substeps,
        save_every=200,
        start_step=10_000,
        init_state={"v": torch.ones(1, dtype=torch.float64)},
    )
    x = solution.state["x"][:, 3:, 0]
    assert (solution.diverged == -1).all()
    # Saved 200 steps apart the values are nearly independent (e^{-2·2}).
    return float(x.var()), math.sqrt(2 / x.numel())


def unit(x):
    return x


def test_sgd_variance_is_half_eta_over_curvature():
    variance, error = stationary_variance(nk.SGDSDE(unit, nk.GaussianNoise(scale=1.0), ETA))
    assert variance == pytest.approx(ETA / 2, rel=5 * error + 0.005)


def test_signsgd_variance_is_that_of_simulated_sign_descent():
    variance, error = stationary_variance(nk.SignSGDSDE(unit, nk.GaussianNoise(scale=1.0), ETA))
    assert variance == pytest.approx(6.27e-3, rel=5 * error + 0.005)


@pytest.mark.parametrize(("df", "simulated"), [(1.0, 7.9e-3), (2.0, 7.07e-3), (3.0, 6.87e-3)])
def test_signsgd_variance_under_student_t_noise(df, simulated):
    variance, error = stationary_variance(nk.SignSGDSDE(unit, nk.StudentTNoise(scale=1.0, df=df), ETA))
    assert variance == pytest.approx(simulated, rel=5 * error + 0.01)


@pytest.mark.parametrize("theta", [0.0, 1.0])
def test_rmspropw_variance(theta):
    sde = nk.RMSpropSDE(unit, nk.GaussianNoise(scale=1.0), ETA, beta=0.999, weight_decay=theta)
    variance, error = stationary_variance(sde)
    assert variance == pytest.approx(ETA / 2 / (1 + theta), rel=5 * error + 0.01)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("consistent", 0.991), ("malladi", 1.0), ("published", 0.802)],
)
def test_adam_variance_by_variant(variant, expected):
    # Over the exact discrete variance, which is close to η/2 here; the published variant is off by about β₁².
    sde = nk.AdamSDE(unit, nk.GaussianNoise(scale=1.0), ETA, variant=variant)
    variance, error = stationary_variance(sde)
    discrete = discrete_adam_variance(0.9)
    assert variance / discrete == pytest.approx(expected, abs=5 * error + 0.02)


def discrete_adam_variance(beta):
    """The exact law of x⁺ = x − ηm⁺, m⁺ = βm + (1 − β)(x + z), with V frozen at 1."""
    a = torch.tensor([[1 - ETA * (1 - beta), -ETA * beta], [1 - beta, beta]], dtype=torch.float64)
    b = torch.tensor([-ETA * (1 - beta), 1 - beta], dtype=torch.float64)
    system = torch.eye(4, dtype=torch.float64) - torch.kron(a, a)
    return float(torch.linalg.solve(system, torch.outer(b, b).flatten())[0])


def test_adamw_variance_has_the_lag_of_the_momentum():
    sde = nk.AdamSDE(unit, nk.GaussianNoise(scale=1.0), ETA, weight_decay=1.0)
    variance, error = stationary_variance(sde)
    assert variance == pytest.approx(2.28e-3, rel=5 * error + 0.015)


def test_correlated_sign_noise_has_the_covariance_of_the_signs():
    # P(signs agree) of two standard normals with correlation r gives Cov = (2/π) arcsin r.
    r = 0.8
    factor = torch.linalg.cholesky(torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64))
    sde = nk.SignSGDSDE(lambda x: torch.zeros_like(x), nk.GaussianNoise(factor=factor), ETA)
    solution = nk.integrate(
        sde, torch.zeros(2, dtype=torch.float64), steps=50, replicates=4000, save_every=50
    )
    x = solution.state["x"][:, -1]
    covariance = torch.cov(x.T) / (ETA**2 * 50)
    expected = 2 / math.pi * math.asin(r)
    assert covariance[0, 1] == pytest.approx(expected, abs=0.08)
    assert covariance[0, 0] == pytest.approx(1.0, abs=0.12)
