"""Bounds bound what they say they bound: simulated optimizers on random quadratics."""

import math

import numpy as np
import pytest
import torch
from oracles import gaussian_draw, random_spd, run_optimizer

from noisekit.errors import InputError
from noisekit.theory import loss_bound, stationary_law

HESSIAN = random_spd(3, 30, 0.5, 2.0)
TRACE, LOW, HIGH = float(np.trace(HESSIAN)), 0.5, 2.0
NOISE = random_spd(3, 31, 0.3, 1.0)
SIGMA = float(np.sqrt(np.diag(NOISE).max()))
START = np.array([0.6, -0.5, 0.4])


def mean_losses(name, lr, steps, every, x0=START, hessian=HESSIAN, noise=NOISE, schedule=None, **hyper):
    h, losses = torch.tensor(hessian), []

    def visit(k, x):
        if k % every == 0:
            losses.append(float((x * (x @ h)).sum(1).mean() / 2))

    draw = gaussian_draw(noise)
    if schedule is None:
        run_optimizer(name, lambda x: x @ h, draw, x0, lr, steps, replicates=2048, visit=visit, **hyper)
        return np.array(losses)
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor(x0).expand(2048, -1).clone()
    for k in range(steps):
        visit(k, x)
        g = x @ h + draw(x.shape, generator)
        x = x - lr * schedule(k) * (g.sign() if name == "signsgd" else g)
    visit(steps, x)
    return np.array(losses)


def common(x0=START, hessian=HESSIAN):
    return {
        "initial_excess": float(x0 @ hessian @ x0) / 2,
        "strong_convexity": LOW,
        "hessian_trace": TRACE,
        "noise_std": SIGMA,
    }


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sgd", {}),
        ("signsgd", {}),
        ("rmspropw", {"weight_decay": 2.0}),
        ("rmspropw", {}),
        ("rmsprop", {"weight_decay": 2.0}),
    ],
    ids=str,
)
def test_mean_loss_stays_below_the_bound(name, hyper):
    steps = np.arange(0, 1001, 50)
    simulated = mean_losses(name, 0.01, 1000, 50, **hyper)
    bound = loss_bound(name, steps, learning_rate=0.01, smoothness=HIGH, **common(), **hyper)
    assert (simulated <= 1.02 * bound).all()
    assert bound[0] == pytest.approx(simulated[0])
    assert bound[-1] < 6 * simulated[-1]


def test_tangent_of_phase_3_is_no_bound_at_its_edge_and_the_secant_is():
    hessian, noise, x0 = np.array([[1.0]]), np.array([[1.0]]), np.array([math.sqrt(2)])  # Y = 1
    steps = np.arange(0, 301, 50)
    simulated = mean_losses("signsgd", 0.01, 300, 50, x0=x0, hessian=hessian, noise=noise)
    arguments = {
        "learning_rate": 0.01,
        "initial_excess": 1.0,
        "strong_convexity": 1.0,
        "hessian_trace": 1.0,
        "noise_std": 1.0,
    }
    secant = loss_bound("signsgd", steps, **arguments)
    tangent = loss_bound("signsgd", steps, slope="tangent", **arguments)
    assert (simulated <= 1.001 * secant).all()
    assert (simulated[1:4] > 1.1 * tangent[1:4]).all()


def test_phase_2_bounds_the_first_steps_inside_the_phase():
    hessian, noise, x0 = np.array([[1.0]]), np.array([[1.0]]), np.array([1.5 * math.sqrt(2)])
    steps = np.arange(0, 61, 10)  # |Y| falls from 1.5 to 1.1
    simulated = mean_losses("signsgd", 0.01, 60, 10, x0=x0, hessian=hessian, noise=noise)
    bound = loss_bound(
        "signsgd",
        steps,
        learning_rate=0.01,
        initial_excess=float(simulated[0]),
        strong_convexity=1.0,
        hessian_trace=1.0,
        noise_std=1.0,
        phase=2,
        dimension=1,
    )
    assert (simulated <= bound * 1.001).all()


def test_phase_1_reaches_the_minimum_in_finite_time():
    curved = {"strong_convexity": 0.5, "hessian_trace": 1.0, "noise_std": 1e-3}
    bound, limit = (
        loss_bound(
            "signsgd",
            [0, 100, 10_000],
            learning_rate=0.01,
            initial_excess=4.0,
            phase=1,
            slope=slope,
            **curved,
        )
        for slope in ("secant", "tangent")
    )
    np.testing.assert_allclose(limit, [4.0, 1.5**2, 0.0])
    np.testing.assert_allclose(bound[1], (2 - 0.5 * math.erf(1.5)) ** 2 + 0.005 * (1 - math.erf(1.5) ** 2))
    simulated = mean_losses(
        "signsgd", 0.01, 100, 50, x0=np.array([4.0]), hessian=np.array([[0.5]]), noise=np.array([[1e-6]])
    )
    assert simulated[1] < simulated[0]
    assert simulated[-1] <= 1.0001 * limit[1]


def test_phase_1_is_a_bound_down_to_its_edge_and_its_limit_is_not():
    """From |Y| = 2 to |Y| = 3/2, by simulation of the optimizer."""
    curved = {"strong_convexity": 1.0, "hessian_trace": 1.0, "noise_std": 1.0, "learning_rate": 0.01}
    start = 2 * np.sqrt(2)
    simulated = mean_losses(
        "signsgd", 0.01, 71, 70, x0=np.array([start]), hessian=np.array([[1.0]]), noise=np.array([[1.0]])
    )
    bound, limit = (
        loss_bound("signsgd", [70], initial_excess=start**2 / 2, phase=1, slope=slope, **curved)
        for slope in ("secant", "tangent")
    )
    assert simulated[-1] <= bound[0]
    assert simulated[-1] > 1.005 * limit[0]


def test_decoupled_decay_bounds_the_floor_at_any_noise_and_l2_does_not():
    def floor(name, sigma):
        curved = {"strong_convexity": 1.0, "hessian_trace": 1.0, "smoothness": 1.0, "weight_decay": 1.0}
        return float(
            loss_bound(name, 10**9, learning_rate=0.01, initial_excess=1.0, noise_std=sigma, **curved)
        )

    def exact(name, sigma):
        return stationary_law(name, [1.0], [sigma**2], 0.01, weight_decay=1.0).excess_loss

    for sigma in (1.0, 10.0, 100.0):
        for name in ("rmspropw", "rmsprop"):
            assert floor(name, sigma) == pytest.approx(exact(name, sigma), rel=0.02)
    assert floor("rmspropw", 1e6) == pytest.approx(0.01 / 4, rel=1e-3)
    assert floor("rmsprop", 1e6) > 1e3


@pytest.mark.parametrize("name", ["sgd", "signsgd"])
def test_a_slow_schedule_leads_the_loss_down(name):
    def schedule(k):
        return 1 / math.sqrt(1 + k / 200)

    steps = np.arange(0, 4001, 500)
    simulated = mean_losses(name, 0.02, 4000, 500, schedule=schedule)
    bound = loss_bound(name, steps, learning_rate=0.02, schedule=schedule, **common())
    assert (simulated <= 1.02 * bound).all()
    constant = loss_bound(name, steps, learning_rate=0.02, **common())
    assert bound[-1] == pytest.approx(constant[-1] * schedule(4000), rel=0.1)
    assert simulated[-1] < 0.6 * simulated[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": [-1]}, "steps has the value -1"),
        ({"steps": math.inf}, "steps has 1 infinite"),
        ({"hessian_trace": 0.4}, "no Hessian has"),
        ({"weight_decay": 1.0}, "no bound of sgd with weight decay"),
        ({"schedule": 0.5}, "a function from the step"),
        ({"optimizer": "signsgd", "phase": 2, "dimension": -1}, "dimension = -1"),
        ({"optimizer": "adamw", "weight_decay": 1.0, "smoothness": "L"}, "smoothness = 'L'"),
        ({"noise_std": 0.0}, "noise_std = 0.0"),
        ({"optimizer": "adamw", "weight_decay": 1.0}, "smoothness = None"),
        ({"optimizer": "signsgd", "phase": 4}, "phases 1, 2 and 3"),
        ({"optimizer": "signsgd", "phase": 2}, "dimension=d"),
        ({"optimizer": "signsgd", "slope": "chord"}, "'secant'"),
        ({"schedule": lambda k: -1.0}, r"schedule\(0\) = -1.0"),
    ],
)
def test_bad_input(change, words):
    arguments = {"optimizer": "sgd", "steps": 10, "learning_rate": 0.1, **common()} | change
    with pytest.raises(InputError, match=words):
        loss_bound(**arguments)
