"""Weak order of every SDE in η, against loops of the real update that share the noise of each step.

The loop takes ζ = Σ_j z_j/√S, the increment of the whole step, so that the gap E φ(SDE) − E φ(optimizer) is a
mean of small differences and its slope needs few paths.
"""

import math
from itertools import pairwise

import pytest
import torch

import noisekit as nk
from noisekit.sde.blocks import replicate_blocks
from noisekit.sde.brownian import Draws

HORIZON, RHO1, RHO2, EPS = 1.0, 2.0, 1.0, 0.1
REPLICATES, DIMENSION, SUBSTEPS = 1500, 10, 4
RATES = (0.2, 0.1, 0.05)


def quartic(x):
    """∇ of x²/2 + x⁴/8."""
    return x + 0.5 * x**3


def noise():
    return nk.GaussianNoise(scale=1.0)


def loop(kind, eta, first):
    x = torch.ones(REPLICATES, DIMENSION, dtype=torch.float64)
    m, v, buffer = torch.full_like(x, 0.3), torch.full_like(x, 1.5), torch.zeros_like(x)
    draws = Draws(0, replicate_blocks(REPLICATES, DIMENSION), DIMENSION, SUBSTEPS, x)
    beta1, beta2 = 1 - eta * RHO1, 1 - eta * RHO2
    for k in range(first, first + round(HORIZON / eta)):
        g = quartic(x) + draws.normals(k).sum(0) / math.sqrt(SUBSTEPS)
        if kind == "sgd":
            x = x - eta * g
        elif kind == "momentum":
            buffer = 0.5 * buffer + g
            x = x - eta * buffer
        elif kind == "rmsprop":
            v = beta2 * v + (1 - beta2) * g * g
            x = x - eta * g / (v.sqrt() + EPS)
        else:
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat, v_hat = m / (1 - beta1 ** (k + 1)), v / (1 - beta2 ** (k + 1))
            x = x - eta * m_hat / (v_hat.sqrt() + EPS)
    return x


def predict(kind, eta, first, order):
    beta1, beta2 = 1 - eta * RHO1, 1 - eta * RHO2
    if kind == "sgd":
        sde = nk.SGDSDE(quartic, noise(), eta, order=order)
    elif kind == "momentum":
        sde = nk.SGDSDE(quartic, noise(), eta, momentum=0.5)
    elif kind == "rmsprop":
        sde = nk.RMSpropSDE(quartic, noise(), eta, beta=beta2, eps=EPS, order=order)
    else:
        sde = nk.AdamSDE(quartic, noise(), eta, betas=(beta1, beta2), eps=EPS, order=order)
    ones = torch.ones(DIMENSION, dtype=torch.float64)
    given = {"m": 0.3 * ones, "v": 1.5 * ones} if kind != "momentum" else {}
    solution = nk.integrate(
        sde,
        ones,
        steps=round(HORIZON / eta),
        substeps=SUBSTEPS,
        replicates=REPLICATES,
        start_step=first,
        init_state=given,
        save_every=1000,
    )
    return solution.state["x"][:, -1]


def gaps(kind, order):
    result = []
    for eta in RATES:
        first = round(1 / eta) if kind == "adam" else 0
        difference = predict(kind, eta, first, order) - loop(kind, eta, first)
        result.append(
            (abs(float(difference.mean())), float(difference.std()) / math.sqrt(difference.numel()))
        )
    return result


@pytest.mark.parametrize(
    ("kind", "order"),
    [("sgd", 1), ("sgd", 2), ("rmsprop", 1), ("rmsprop", 2), ("adam", 1), ("adam", 2)],
)
def test_slope_of_the_mean_gap(kind, order):
    values = gaps(kind, order)
    (coarse, coarse_error), (fine, fine_error) = values[0], values[-1]
    slope = math.log(coarse / fine) / math.log(RATES[0] / RATES[-1])
    error = math.hypot(coarse_error / coarse, fine_error / fine) / math.log(RATES[0] / RATES[-1])
    assert slope == pytest.approx(order, abs=0.3 + 2 * error)
    if order == 2:
        assert fine < 0.2 * gaps(kind, 1)[-1][0]


def test_momentum_keeps_its_own_time_scale_and_still_converges():
    # β is fixed here, as in torch, so that the buffer forgets in a fixed number of steps.
    values = [gap for gap, _ in gaps("momentum", 1)]
    assert values[-1] < 0.5 * values[0]


@pytest.mark.slow
def test_adam_of_order_two_reaches_its_slope_at_small_rates():
    # Without noise nothing hides the last gaps. At η = .1 the slope is 1.8: β₁ = .6 is far from its limit.
    def gap(eta):
        beta1, beta2 = 1 - 4 * eta, 1 - eta
        gradient = quartic(torch.tensor([[1.5]], dtype=torch.float64))
        first, given = round(0.5 / eta), {"m": gradient, "v": gradient.square()}
        options = {"steps": round(1 / eta), "start_step": first, "init_state": given}
        sde = nk.AdamSDE(quartic, nk.GaussianNoise(scale=0.0), eta, betas=(beta1, beta2), order=2)
        predicted = nk.integrate(sde, torch.tensor([1.5], dtype=torch.float64), **options).state["x"][0, :, 0]
        x, m, v = 1.5, float(gradient), float(gradient) ** 2
        path = [x]
        for k in range(first, first + round(1 / eta)):
            g = x + 0.5 * x**3
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            x -= eta * (m / (1 - beta1 ** (k + 1))) / (math.sqrt(v / (1 - beta2 ** (k + 1))) + 1e-8)
            path.append(x)
        return float((predicted - torch.tensor(path, dtype=torch.float64)).abs().max())

    rates = (0.1, 0.05, 0.025, 0.0125, 0.00625)
    slopes = [math.log2(gap(a) / gap(b)) for a, b in pairwise(rates)]
    assert slopes == sorted(slopes)
    assert slopes[-1] == pytest.approx(2, abs=0.08)
