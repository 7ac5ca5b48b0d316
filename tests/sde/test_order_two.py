"""The law at rest of the order-2 SDE of SGD beside that of the update itself, solved and not sampled."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

import noisekit as nk
from noisekit.optimizers.named import build_optimizer
from noisekit.sde.base import Substep
from noisekit.sde.named import build_sde
from noisekit.sde.second_order import own_share

HESSIAN = np.array([[2.0, 0.6], [0.6, 1.0]])
FACTOR = np.array([[1.0, 0.0], [0.5, 0.4]])


def discrete_covariance(eta, momentum):
    """Of the update B⁺ = μB + Hx + ζ, x⁺ = x − ηB⁺."""
    eye = np.eye(2)
    update = np.block([[eye - eta * HESSIAN, -eta * momentum * eye], [HESSIAN, momentum * eye]])
    noise = np.vstack([-eta * FACTOR, FACTOR])
    return solve_discrete_lyapunov(update, noise @ noise.T)[:2, :2]


def sde_covariance(eta, momentum, order, variant):
    """Of the SDE whose drift and noise are those of ``terms``, read off column by column."""
    hessian, factor = torch.tensor(HESSIAN), torch.tensor(FACTOR)
    noise = nk.GaussianNoise(factor=factor)
    sde = nk.SGDSDE(lambda x: x @ hessian, noise, eta, momentum=momentum, order=order, variant=variant)
    n = 2 * len(sde.state_names)

    def columns(states, normals):
        parts = {name: states[:, 2 * i : 2 * i + 2] for i, name in enumerate(sde.state_names)}
        at = Substep(0, 0, 4, eta, 1.0, 0.0, normals, None)
        drift, random = sde.terms(parts, at)
        return [torch.cat([part[k] for k in sde.state_names], dim=1).numpy().T for part in (drift, random)]

    drift, _ = columns(torch.eye(n, dtype=torch.float64), torch.zeros(n, 2, dtype=torch.float64))
    _, random = columns(torch.zeros(2, n, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    return solve_continuous_lyapunov(drift, -random @ random.T)[:2, :2]


@pytest.mark.parametrize("with_momentum", [False, True])
def test_the_law_at_rest_is_right_to_relative_second_order(with_momentum):
    def error(step, order, variant="consistent"):
        # With momentum a step takes the time √η: μ = 1 − 3√η keeps the friction where η goes to 0.
        eta, momentum = (step**2, 1 - 3 * step) if with_momentum else (step, 0.0)
        exact = discrete_covariance(eta, momentum)
        return np.linalg.norm(sde_covariance(eta, momentum, order, variant) - exact) / np.linalg.norm(exact)

    steps = [0.04, 0.02, 0.01]
    for order in (1, 2):
        errors = [error(step, order) for step in steps]
        slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
        assert slopes == pytest.approx(order, abs=0.25), (order, errors)
    if with_momentum:
        errors = {variant: error(0.02, 1, variant) for variant in ("midpoint", "kinetic")}
        assert errors["midpoint"] < 0.01 * error(0.02, 2)
        assert errors["kinetic"] < 0.03 * error(0.02, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmsprop", "adamw"])
def test_the_floor_of_adaptive_optimizers_is_nearer_than_at_order_1(name):
    eta, n = 0.05, 8000
    problem, noise = nk.Quadratic(torch.tensor([3.0])), nk.GaussianNoise(scale=0.5)
    settings = {"beta": 0.999} if name == "rmsprop" else {"betas": (0.8, 0.999), "weight_decay": 0.5}
    state = {"v": torch.full((n, 1), 0.25)} | ({"m": torch.zeros(n, 1)} if name == "adamw" else {})
    run = {"steps": 100, "save_every": 100, "replicates": n, "init_state": state, "start_step": 10_000}
    real = nk.simulate_optimizer(
        problem, build_optimizer(name, eta, **settings), torch.zeros(1), noise=noise, seed=1, **run
    )

    def off(order):
        sde = build_sde(name, problem.gradient, noise, eta, order=order, **settings)
        paths = nk.integrate(sde, torch.zeros(1), seed=2, substeps=4, **run)
        return float(paths.state["x"][:, -1].square().mean() / real.state["x"][:, -1].square().mean() - 1)

    # Each ratio has a Monte-Carlo error of .022.
    assert off(1) < -0.07
    assert abs(off(2)) < 0.07


@pytest.mark.parametrize(("weight", "relative"), [(0.01, 0.001), (0.1, 0.005)])
def test_the_share_of_a_step_is_that_of_the_exact_variance(weight, relative):
    nodes, parts = np.polynomial.hermite_e.hermegauss(80)
    exact = (parts * nodes**2 / (1 - weight + weight * nodes**2)).sum() / parts.sum()
    one = torch.ones((), dtype=torch.float64)
    assert float(own_share(one, one, weight) ** 2) == pytest.approx(exact, rel=relative)
    # With no V at all a step is a sign step of size 1/√weight, and without noise nothing is shared.
    assert float(own_share(1e-6 * one, one, weight)) == pytest.approx((1e-6 / weight) ** 0.5, rel=1e-3)
    assert float(own_share(0 * one, 0 * one, weight)) == 1


@pytest.mark.parametrize(("name", "settings"), [("rmsprop", {"beta": 0.9}), ("adam", {"betas": (0.5, 0.9)})])
def test_the_floor_is_right_where_the_memory_of_v_is_short(name, settings):
    eta, d, n, root = 0.05, 50, 400, 0.05**0.5
    generator = torch.Generator().manual_seed(0)
    problem, noise = nk.Quadratic(torch.ones(d)), nk.GaussianNoise(scale=1.0)
    x = torch.randn(n, d, generator=generator) * root / 2**0.5
    state = {"v": torch.ones(n, d)} | ({"m": torch.zeros(n, d)} if name == "adam" else {})
    run = {"steps": 60, "save_every": 15, "replicates": n, "init_state": state, "start_step": 10_000}
    real = nk.simulate_optimizer(
        problem, build_optimizer(name, eta, **settings), x, noise=noise, seed=1, **run
    )
    sde = build_sde(name, problem.gradient, noise, eta, order=2, **settings)
    paths = nk.integrate(sde, x, seed=2, substeps=4, **run)
    squares = [solution.state["x"][:, 2:].square().mean() for solution in (paths, real)]
    # Each has a Monte-Carlo error of about .008; without the share the ratio would be 1.18 and 1.07.
    assert float(squares[0] / squares[1]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_a_coordinate_that_never_had_a_gradient_stays_finite(name):
    curvature = torch.tensor([1.0, 0.0])
    noise = nk.GaussianNoise(scale=torch.tensor([0.1, 0.0]))
    state = {"v": torch.tensor([[1.0, 0.0]])} | ({"m": torch.zeros(1, 2)} if name == "adam" else {})
    sde = build_sde(name, nk.Quadratic(curvature).gradient, noise, 0.01, order=2)
    paths = nk.integrate(sde, torch.ones(2), steps=5, init_state=state, start_step=50)
    x = paths.state["x"][0, -1]
    assert torch.isfinite(x).all()
    assert float(x[1]) == 1
    assert float(x[0]) < 1
