"""Order 2 under schedules, Nesterov momentum, dampening and both kinds of decay, beside torch's own update.

With V held the update of every optimizer is linear on a quadratic: its matrices are read off torch's step,
those of the SDE off ``terms``, and means and covariances of both are solved for, so that nothing is sampled.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.linalg import expm

import noisekit as nk
from noisekit.optimizers.named import build_optimizer
from noisekit.sde.base import Substep
from noisekit.sde.named import build_sde
from noisekit.validation import simulate_coupled

HESSIAN = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
FACTOR = torch.tensor([[1.0, 0.0], [0.5, 0.4]], dtype=torch.float64)
V = torch.tensor([1.5, 0.7], dtype=torch.float64)
HELD = 1 - 1e-12
"""A β₂ at which V does not move."""
LATE = 10**14
"""A step at which the bias corrections of ``HELD`` are 1."""


def cosine(progress):
    return 0.55 + 0.5 * math.cos(math.pi * progress)


def update_matrices(make, has_m, factor):
    """A and G of torch's step Y⁺ = AY + Gz, Y = x or (x, m), from Y = each unit vector and z likewise."""
    parts = 2 if has_m else 1

    def step(states, normals):
        parameter = torch.nn.Parameter(states[:, :2].clone())
        optimizer = make([parameter])
        group, state = optimizer.param_groups[0], optimizer.state[parameter]
        group["lr"] *= factor
        key = "exp_avg" if "betas" in group else "momentum_buffer"
        if has_m:
            state[key] = states[:, 2:].clone()
        if not isinstance(optimizer, torch.optim.SGD):
            state["exp_avg_sq" if "betas" in group else "square_avg"] = V.expand(len(states), 2).clone()
            state["step"] = torch.tensor(float(LATE))
        parameter.grad = parameter.detach() @ HESSIAN + normals @ FACTOR.T
        optimizer.step()
        return torch.cat([parameter.detach(), *([state[key]] if has_m else [])], dim=1).numpy().T

    like = torch.float64
    a = step(torch.eye(2 * parts, dtype=like), torch.zeros(2 * parts, 2, dtype=like))
    return a, step(torch.zeros(2, 2 * parts, dtype=like), torch.eye(2, dtype=like))


def flow_matrices(sde, factor):
    """Φ and Q of one step of the SDE: E Y ← Φ E Y, Cov Y ← Φ Cov Y Φᵀ + Q (Van Loan 1978)."""
    names = [name for name in sde.state_names if name != "v"]
    n = 2 * len(names)

    def columns(states, normals):
        state = {name: states[:, 2 * i : 2 * i + 2] for i, name in enumerate(names)}
        state |= {"v": V.expand(len(states), 2).clone()} if "v" in sde.state_names else {}
        found = sde.terms(state, Substep(LATE, 0, 4, sde.learning_rate, factor, 0.0, normals, None))
        return [torch.cat([part[name] for name in names], dim=1).numpy().T for part in found]

    drift, _ = columns(torch.eye(n, dtype=torch.float64), torch.zeros(n, 2, dtype=torch.float64))
    _, noise = columns(torch.zeros(2, n, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    whole = expm(sde.learning_rate * np.block([[-drift, noise @ noise.T], [np.zeros((n, n)), drift.T]]))
    flow = whole[n:, n:].T
    return flow, flow @ whole[:n, n:]


def linear_gaps(name, settings, eta, steps, order, variant="consistent"):
    """Largest error of E x, and of Cov x over the largest covariance, along a cosine schedule."""
    damped = settings.get("dampening", 0.0)
    own = {key: value for key, value in settings.items() if key != "dampening"} | {"variant": variant}
    noise = nk.GaussianNoise(factor=FACTOR)
    sde = build_sde(name, lambda x: x @ HESSIAN, noise, (1 - damped) * eta, order=order, **own)
    has_m = "m" in sde.state_names
    make = build_optimizer(name, eta, **settings)
    real = np.eye(2)[0] - np.eye(2)[1]
    real = np.concatenate([real, np.zeros(2)]) if has_m else real
    predicted, size = real, len(real)
    real_cov = predicted_cov = np.zeros((size, size))
    mean, covariance, largest = 0.0, 0.0, 0.0
    for k in range(steps):
        factor = cosine(k / steps)
        a, g = update_matrices(make, has_m, factor)
        flow, spread = flow_matrices(sde, factor)
        real, real_cov = a @ real, a @ real_cov @ a.T + g @ g.T
        predicted, predicted_cov = flow @ predicted, flow @ predicted_cov @ flow.T + spread
        mean = max(mean, np.abs(real - predicted)[:2].max())
        covariance = max(covariance, np.abs(real_cov - predicted_cov)[:2, :2].max())
        largest = max(largest, np.abs(real_cov[:2, :2]).max())
    return mean, covariance / largest


LINEAR = {
    "sgd": ("sgd", lambda step: {"weight_decay": 0.5}),
    "momentum": ("sgd", lambda step: {"momentum": 1 - 2 * step, "weight_decay": 0.5}),
    "nesterov": ("sgd", lambda step: {"momentum": 1 - 2 * step, "nesterov": True, "weight_decay": 0.5}),
    "dampening": ("sgd", lambda step: {"momentum": 1 - 2 * step, "dampening": 0.4}),
    "rmsprop, l2": ("rmsprop", lambda step: {"beta": HELD, "weight_decay": 0.5}),
    "rmspropw": ("rmspropw", lambda step: {"beta": HELD, "weight_decay": 0.5}),
    "adam, l2": ("adam", lambda step: {"betas": (1 - 4 * step, HELD), "weight_decay": 0.5}),
    "adamw": ("adamw", lambda step: {"betas": (1 - 4 * step, HELD), "weight_decay": 0.5}),
}


@pytest.mark.parametrize("case", LINEAR)
def test_means_and_covariances_of_linear_updates_are_right_to_second_order(case):
    name, settings = LINEAR[case]
    steps = (0.02, 0.01)
    for order in (1, 2):
        # A step of momentum takes the time √η: 1 − μ = 2√η keeps the friction where η goes to 0.
        errors = np.array(
            [linear_gaps(name, settings(s), s * s if name == "sgd" and "momentum" in settings(s) else s,
                         round(2 / s), order) for s in steps]
        )  # fmt: skip
        slopes = np.log(errors[0] / errors[1]) / math.log(2)
        assert slopes == pytest.approx(order, abs=0.15), (order, errors)


@pytest.mark.parametrize("case", ["momentum", "nesterov", "dampening"])
def test_the_midpoint_equation_of_momentum_has_order_2_of_its_own(case):
    def errors(variant):
        found = [
            linear_gaps("sgd", LINEAR[case][1](s), s * s, round(2 / s), 1, variant) for s in (0.02, 0.01)
        ]
        return np.array(found)

    midpoint = errors("midpoint")
    assert np.log2(midpoint[0] / midpoint[1]) == pytest.approx(2, abs=0.15)
    if case != "nesterov":
        kinetic = errors("kinetic")
        # Its law at rest is as good; from an empty buffer it is half a step behind.
        assert np.log2(kinetic[0] / kinetic[1])[0] == pytest.approx(1, abs=0.2)
        assert (midpoint < 0.1 * kinetic).all()


@pytest.mark.parametrize("nesterov", [False, True])
def test_at_a_fixed_momentum_order_2_and_midpoint_are_nearer_by_a_factor(nesterov):
    settings = {"momentum": 0.9, "nesterov": nesterov}
    one, two = (np.array(linear_gaps("sgd", settings, 0.004, 100, order)) for order in (1, 2))
    assert (two < 0.1 * one).all()
    assert (one > 0.01).all()
    assert (np.array(linear_gaps("sgd", settings, 0.004, 100, 1, "midpoint")) < two).all()


class Quartic(nk.Problem):
    """f(x) = ½xᵀHx + ¼Σx⁴."""

    name = "quartic"
    x0 = torch.tensor([1.5, -1.2], dtype=torch.float64)

    def loss(self, x):
        return ((x @ HESSIAN) * x).sum(-1) / 2 + x.pow(4).sum(-1) / 4

    def gradient(self, x):
        return x @ HESSIAN + x.pow(3)


def with_schedule(make, schedule, first, parameters):
    """The optimizer under torch's LambdaLR, which moves after each of its steps."""
    optimizer = make(parameters)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: schedule(k + first))
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    return optimizer


def loss_gap(name, settings, eta, duration, order, variant="consistent"):
    """Largest gap of the mean loss on a quartic along a cosine schedule, and its error, over one path."""
    problem, noise, replicates = Quartic(), nk.GaussianNoise(factor=FACTOR), 1000
    steps, first = round(1 / duration), round(0.5 / eta) if name.startswith("adam") else 0
    gradient = problem.gradient(problem.x0[None])[0]

    def schedule(k):
        return cosine(min(1, max(0, (k - first) / steps)))

    state = {"m": gradient} if name.startswith("adam") else {}
    if name == "sgd":
        state = {"m": gradient / (1 - settings["momentum"])}
    else:
        state["v"] = gradient.square() + noise.variance(problem.x0[None])[0]
    run = {"steps": steps, "replicates": replicates, "save_every": steps // 5, "start_step": first}
    run |= {"observables": {"loss": problem.loss}, "init_state": state}
    make = partial(with_schedule, build_optimizer(name, eta, **settings), schedule, first)
    real = simulate_coupled(problem, make, problem.x0, noise, **run)
    sde = build_sde(
        name, problem.gradient, noise, eta, order=order, schedule=schedule, variant=variant, **settings
    )
    paths = nk.integrate(sde, problem.x0, substeps=4, **run)
    difference = paths.observables["loss"] - real.observables["loss"]
    at = int(difference.mean(0).abs().argmax())
    return abs(float(difference[:, at].mean())), float(difference[:, at].std()) / math.sqrt(replicates)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "rmspropw", "adam", "adamw"])
def test_losses_that_are_not_quadratic_are_right_to_second_order(name):
    def settings(duration):
        if name == "sgd":
            return {"momentum": 1 - 3 * duration, "nesterov": True, "weight_decay": 0.3}
        if name.startswith("rmsprop"):
            return {"beta": 1 - duration, "weight_decay": 0.5}
        return {"betas": (1 - 4 * duration, 1 - duration), "weight_decay": 0.5}

    durations = (0.05, 0.025)
    for order in (1, 2):
        found = [loss_gap(name, settings(d), d * d if name == "sgd" else d, d, order) for d in durations]
        slope = math.log2(found[0][0] / found[1][0])
        error = math.hypot(*(e / gap for gap, e in found)) / math.log(2)
        # Without schedule in one of the two, or the wrong kind of decay, the slope would be 0.
        assert slope == pytest.approx(order, abs=0.3 + 2 * error), (order, found)
    if name == "sgd":
        found = [loss_gap(name, settings(d), d * d, d, 1, "midpoint")[0] for d in durations]
        assert math.log2(found[0] / found[1]) == pytest.approx(2, abs=0.4)
