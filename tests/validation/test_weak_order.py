"""The slope of the gap over the learning rate: of known curves, and of SDEs against torch's optimizers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise
from noisekit.optimizers import RMSpropW, SignSGD
from noisekit.sde import SGDSDE, AdamSDE, RMSpropSDE, SignSGDSDE, integrate
from noisekit.validation import fit_order, simulate_coupled, weak_order

RATES = [0.1, 0.05, 0.025, 0.0125]
NOISE = GaussianNoise(factor=torch.tensor([[1.0, 0.0], [0.5, 0.7]], dtype=torch.float64))


class Bowl:
    """f(x) = ½ xᵀHx + ¼ Σ x⁴."""

    name = "bowl"
    hessian = torch.tensor([[1.0, 0.4], [0.4, 2.0]], dtype=torch.float64)
    x0 = torch.tensor([1.5, -1.2], dtype=torch.float64)

    def loss(self, x):
        return ((x @ self.hessian) * x).sum(-1) / 2 + x.pow(4).sum(-1) / 4

    def gradient(self, x):
        return x @ self.hessian + x.pow(3)


BOWL = Bowl()


def order_of(sde, optimizer, *, warm, replicates=400, substeps=8, rates=RATES):
    """Return the weak order over one unit of time from x₀.

    ``warm`` starts at step ½/η with m = ∇f and v = (∇f)² + diag Σ, the same for every learning rate.
    """
    gradient = BOWL.gradient(BOWL.x0[None])[0]
    v = gradient.square() + NOISE.variance(BOWL.x0[None])[0]
    common = {"replicates": replicates, "observables": {"loss": BOWL.loss}, "keep_state": False}

    def when(rate):
        start = {"start_step": round(0.5 / rate), "init_state": {"m": gradient, "v": v}} if warm else {}
        return {"steps": round(1 / rate), "save_every": round(0.5 / rate)} | start | common

    def reference(rate):
        return simulate_coupled(BOWL, optimizer(rate), BOWL.x0, NOISE, **when(rate))

    def prediction(rate):
        return integrate(sde(rate), BOWL.x0, substeps=substeps, **when(rate))

    return weak_order(prediction, reference, rates, paired=True)


def betas(rate):
    return 1 - 4 * rate, 1 - rate


FIRST_ORDER = {
    "sgd": (lambda r: SGDSDE(BOWL.gradient, NOISE, r), lambda r: lambda p: torch.optim.SGD(p, lr=r), False),
    "rmsprop": (
        lambda r: RMSpropSDE(BOWL.gradient, NOISE, r, beta=1 - r),
        lambda r: lambda p: torch.optim.RMSprop(p, lr=r, alpha=1 - r),
        True,
    ),
    "rmspropw": (
        lambda r: RMSpropSDE(BOWL.gradient, NOISE, r, beta=1 - r, weight_decay=1.0),
        lambda r: lambda p: RMSpropW(p, lr=r, alpha=1 - r, weight_decay=1.0),
        True,
    ),
    "adam": (
        lambda r: AdamSDE(BOWL.gradient, NOISE, r, betas=betas(r)),
        lambda r: lambda p: torch.optim.Adam(p, lr=r, betas=betas(r)),
        True,
    ),
    "adamw": (
        lambda r: AdamSDE(BOWL.gradient, NOISE, r, betas=betas(r), weight_decay=1.0),
        lambda r: lambda p: torch.optim.AdamW(p, lr=r, betas=betas(r), weight_decay=1.0),
        True,
    ),
}


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_sdes_are_of_weak_order_1(name):
    sde, optimizer, warm = FIRST_ORDER[name]
    found = order_of(sde, optimizer, warm=warm)
    assert found.resolved
    assert found.slope == pytest.approx(1, abs=0.15)


def test_signsgd_is_of_weak_order_1():
    found = order_of(
        lambda r: SignSGDSDE(BOWL.gradient, NOISE, r),
        lambda r: lambda p: SignSGD(p, lr=r),
        warm=False,
        replicates=60_000,
        substeps=2,
    )
    assert found.resolved
    assert found.slope == pytest.approx(1, abs=0.15)


def test_adam_from_zero_state_is_slower_than_first_order():
    sde, optimizer, _ = FIRST_ORDER["adam"]
    found = order_of(sde, optimizer, warm=False)
    assert found.slope == pytest.approx(0.8, abs=0.15)  # η log 1/η


def test_order_2_of_sgd_is_steeper():
    found = order_of(
        lambda r: SGDSDE(BOWL.gradient, NOISE, r, order=2),
        lambda r: lambda p: torch.optim.SGD(p, lr=r),
        warm=False,
    )
    assert found.slope == pytest.approx(2, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_order_2_of_adaptive_optimizers_is_steeper(name):
    sde = {
        "rmsprop": lambda r: RMSpropSDE(BOWL.gradient, NOISE, r, beta=1 - r, order=2),
        "adam": lambda r: AdamSDE(BOWL.gradient, NOISE, r, betas=betas(r), order=2),
    }[name]
    found = order_of(
        sde, FIRST_ORDER[name][1], warm=True, replicates=10_000, substeps=4, rates=[0.04, 0.028, 0.02, 0.01]
    )
    assert found.resolved
    assert found.slope == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(
    ("variant", "order", "slope"), [("consistent", 1, 1), (None, 2, 2), ("midpoint", 1, 2)]
)
def test_momentum_has_its_order_in_the_root_of_the_learning_rate(variant, order, slope):
    # 1 − μ = 3√η keeps the friction where η goes to 0; a step takes the time √η.
    steps, n = [0.05, 0.025, 0.0125, 0.00625], 2000 if variant == "midpoint" else 400

    def when(rate):
        count = round(rate**-0.5)
        return {"steps": count, "save_every": count // 2, "replicates": n, "keep_state": False}

    def reference(rate):
        make = lambda p: torch.optim.SGD(p, lr=rate, momentum=1 - 3 * rate**0.5)  # noqa: E731
        return simulate_coupled(BOWL, make, BOWL.x0, NOISE, observables={"loss": BOWL.loss}, **when(rate))

    def prediction(rate):
        sde = SGDSDE(BOWL.gradient, NOISE, rate, momentum=1 - 3 * rate**0.5, order=order, variant=variant)
        return integrate(sde, BOWL.x0, substeps=4, observables={"loss": BOWL.loss}, **when(rate))

    found = weak_order(prediction, reference, [h**2 for h in steps], paired=True)
    slopes = 2 * found.local_slope
    assert slopes[-1] == pytest.approx(slope, abs=0.15)
    assert slopes.mean() == pytest.approx(slope, abs=0.25)  # it rises to its limit


def test_malladi_has_no_order_where_the_gradient_is_not_small():
    # V without (∇f)² is wrong at order 0 there.
    found = order_of(
        lambda r: AdamSDE(BOWL.gradient, NOISE, r, betas=betas(r), variant="malladi"),
        lambda r: lambda p: torch.optim.Adam(p, lr=r, betas=betas(r)),
        warm=True,
    )
    assert found.slope < 0.6


def test_coupled_runs_follow_the_sde_path_by_path():
    runs = simulate_coupled(
        BOWL, lambda p: torch.optim.SGD(p, lr=0.01), BOWL.x0, NOISE, steps=100, replicates=50, save_every=50
    )
    for substeps in (1, 8):
        paths = integrate(
            SGDSDE(BOWL.gradient, NOISE, 0.01),
            BOWL.x0,
            steps=100,
            substeps=substeps,
            replicates=50,
            save_every=50,
        )
        joined = np.corrcoef(runs.state["x"][:, -1, 0].numpy(), paths.state["x"][:, -1, 0].numpy())
        assert joined[0, 1] > 0.999
    adam = simulate_coupled(
        BOWL, lambda p: torch.optim.Adam(p, lr=0.01), BOWL.x0, NOISE, steps=4, replicates=3, save_every=2
    )
    assert set(adam.state) == {"x", "m", "v"}
    assert adam.state["v"].shape == (3, 3, 2)
    assert (adam.state["v"][:, 0] == 0).all()
    assert (adam.state["v"][:, 1:] > 0).all()


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
def test_fit_recovers_a_known_slope_and_its_error(order):
    rates = np.array([0.1, 0.05, 0.025, 0.0125, 0.00625])
    rng = np.random.default_rng(0)
    exact = 3 * rates**order
    slopes, errors = [], []
    for _ in range(300):
        fit = fit_order(rates, exact * np.exp(0.05 * rng.normal(size=5)), 0.05 * exact)
        slopes.append(fit.slope)
        errors.append(fit.slope_error)
    assert np.mean(slopes) == pytest.approx(order, abs=0.01)
    assert np.median(errors) == pytest.approx(np.std(slopes), rel=0.2)
    assert fit.resolved
    assert not fit_order(rates, exact, exact).resolved
    assert "take more replicates" in repr(fit_order(rates, exact, exact))
    assert f"slope {order:.2f} ± " in repr(fit_order(rates, exact, 0.01 * exact))


def test_bad_input():
    with pytest.raises(InputError, match="at least 4"):
        weak_order(lambda r: None, lambda r: None, [0.1, 0.2, 0.2, 0.4])
    with pytest.raises(InputError, match="one value each"):
        fit_order(RATES, np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="A gap is zero"):
        fit_order(np.array(RATES), np.zeros(4), np.zeros(4))
    runs = simulate_coupled(BOWL, lambda p: torch.optim.SGD(p, lr=0.1), BOWL.x0, NOISE, steps=2, replicates=3)
    with pytest.raises(InputError, match=r"0\.2 was made with 0\.1"):
        weak_order(lambda r: runs, lambda r: runs, [0.2, 0.15, 0.1, 0.05])
    with pytest.raises(InputError, match="no observable 'loss'"):
        weak_order(lambda r: replace(runs, learning_rate=r), lambda r: replace(runs, learning_rate=r), RATES)
