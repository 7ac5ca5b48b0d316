"""Paths of the SDEs against runs of the real torch optimizers, from the same start."""

import math

import pytest
import torch

import noisekit as nk

ETA = 0.01
PROBLEM = nk.Quadratic(torch.ones(4))
NOISE = nk.GaussianNoise(scale=1.0)
REPLICATES = 1500


def curves(solution):
    x = solution.state["x"]
    return x.mean((0, 2)), x.var(0).mean(-1)


def gap(sde, make_optimizer, steps, *, first=None, **options):
    start, given = 0, None
    if first is not None:
        warm = nk.simulate_optimizer(
            PROBLEM, make_optimizer, torch.ones(4), steps=first, replicates=REPLICATES, noise=NOISE, seed=7
        )
        start, given = first, warm.state_at(first)
    x0 = torch.ones(4) if given is None else None
    shared = {
        "steps": steps,
        "replicates": REPLICATES,
        "start_step": start,
        "init_state": given,
        "save_every": 5,
    }
    real = nk.simulate_optimizer(PROBLEM, make_optimizer, x0, noise=NOISE, **shared)
    predicted = nk.integrate(sde, x0, seed=1, **shared, **options)
    (mean, variance), (real_mean, real_variance) = curves(predicted), curves(real)
    # Two independent ensembles of 4 coordinates each.
    error = float(real_variance[-1].sqrt()) * math.sqrt(2 / (4 * REPLICATES))
    return float((mean - real_mean).abs().max()) / error, variance[1:] / real_variance[1:]


def test_sgd():
    sigmas, ratio = gap(nk.SGDSDE(PROBLEM.gradient, NOISE, ETA), lambda p: torch.optim.SGD(p, lr=ETA), 60)
    assert sigmas < 5
    assert (ratio - 1).abs().max() < 0.1


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_sgd(nesterov):
    sde = nk.SGDSDE(PROBLEM.gradient, NOISE, ETA, momentum=0.8, nesterov=nesterov)
    sigmas, ratio = gap(sde, lambda p: torch.optim.SGD(p, lr=ETA, momentum=0.8, nesterov=nesterov), 60)
    # The SDE's own distance is about 5 of these errors: order η with 1/(1 − μ) steps of memory.
    assert sigmas < 8
    assert (ratio[-4:] - 1).abs().max() < 0.1


def test_signsgd():
    sigmas, ratio = gap(nk.SignSGDSDE(PROBLEM.gradient, NOISE, ETA), lambda p: nk.SignSGD(p, ETA), 60)
    assert sigmas < 5
    assert (ratio - 1).abs().max() < 0.1


def test_signsgd_with_decoupled_decay():
    sde = nk.SignSGDSDE(PROBLEM.gradient, NOISE, ETA, weight_decay=0.5)
    sigmas, ratio = gap(sde, lambda p: nk.SignSGD(p, ETA, weight_decay=0.5), 100)
    assert sigmas < 6
    assert (ratio - 1).abs().max() < 0.1
    # Without it the mean would be elsewhere by far more than that.
    plain, _ = gap(nk.SignSGDSDE(PROBLEM.gradient, NOISE, ETA), lambda p: nk.SignSGD(p, ETA, 0.5), 100)
    assert plain > 50


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_rmsprop_from_the_state_of_the_optimizer(decay):
    sde = nk.RMSpropSDE(PROBLEM.gradient, NOISE, ETA, weight_decay=decay)
    sigmas, ratio = gap(sde, lambda p: nk.RMSpropW(p, ETA, weight_decay=decay), 60, first=20)
    assert sigmas < 5
    assert (ratio - 1).abs().max() < 0.1


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_adam_from_the_state_of_the_optimizer(decay):
    sde = nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, weight_decay=decay)
    sigmas, ratio = gap(sde, lambda p: torch.optim.AdamW(p, ETA, weight_decay=decay), 60, first=20)
    assert sigmas < 8
    assert (ratio - 1).abs().max() < 0.1


def test_l2_decay_is_that_of_torch_adam():
    sde = nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, weight_decay=0.5, decay="l2")
    sigmas, ratio = gap(sde, lambda p: torch.optim.Adam(p, ETA, weight_decay=0.5), 60, first=20)
    assert sigmas < 8
    assert (ratio - 1).abs().max() < 0.1


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_one_substep_from_zero_is_the_optimizer_in_law(name):
    # A surrogate of one substep has the optimizer's own V, so that even the first steps agree.
    kinds = {"rmsprop": (nk.RMSpropSDE, torch.optim.RMSprop), "adam": (nk.AdamSDE, torch.optim.Adam)}
    equation, optimizer = kinds[name]
    sde = equation(PROBLEM.gradient, NOISE, ETA)
    sigmas, ratio = gap(sde, lambda p: optimizer(p, lr=ETA), 20, substeps=1)
    assert sigmas < 5
    assert (ratio - 1).abs().max() < 0.1


def test_schedules_act_on_the_step_and_not_on_the_averages():
    def schedule(step):
        return 1 / (1 + step / 10)

    sde = nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, schedule=schedule)
    shared = {"steps": 40, "replicates": REPLICATES, "save_every": 40}
    real = nk.simulate_optimizer(
        PROBLEM,
        lambda p: torch.optim.Adam(p, lr=ETA),
        torch.ones(4),
        noise=NOISE,
        schedule=schedule,
        **shared,
    )
    plain = nk.integrate(nk.AdamSDE(PROBLEM.gradient, NOISE, ETA), torch.ones(4), **shared)
    predicted = nk.integrate(sde, torch.ones(4), **shared)
    target = float(curves(real)[0][-1])
    assert float(curves(predicted)[0][-1]) == pytest.approx(target, abs=0.01)
    assert abs(float(curves(plain)[0][-1]) - target) > 0.05


def test_negative_controls_fail():
    wrong = nk.SGDSDE(PROBLEM.gradient, nk.GaussianNoise(scale=math.sqrt(2)), ETA)
    _, ratio = gap(wrong, lambda p: torch.optim.SGD(p, lr=ETA), 60)
    assert (ratio - 2).abs().max() < 0.25
    published = nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, variant="malladi")
    _, ratio = gap(published, lambda p: torch.optim.Adam(p, lr=ETA), 60, first=20)
    assert ratio[-1] > 1.15
