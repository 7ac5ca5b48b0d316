"""The right SDE holds against torch's SGD; wrong ones must be told from it by the same comparison."""

import pytest
import torch

from noisekit.noise import GaussianNoise
from noisekit.optimizers import simulate_optimizer
from noisekit.problems import Quadratic
from noisekit.sde import SGDSDE, integrate
from noisekit.validation import compare

RATE, STEPS, REPLICATES = 0.05, 120, 4000
FACTOR = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
HESSIAN = torch.tensor([[1.0, -0.5], [-0.5, 2.0]])
NOISE = GaussianNoise(factor=FACTOR)
TRACE = float((FACTOR @ FACTOR.T).trace())
PROBLEM = Quadratic(HESSIAN, x0=torch.tensor([0.3, -0.2]))
OBSERVABLES = {
    "loss": PROBLEM.loss,
    "first": lambda x: x[:, 0].square(),
    "second": lambda x: x[:, 1].square(),
    "fourth": lambda x: x.pow(4).sum(-1),
}
ARGUMENTS = {
    "steps": STEPS,
    "replicates": REPLICATES,
    "save_every": 20,
    "observables": OBSERVABLES,
    "keep_state": False,
}


def paths(noise, *, seed=1, substeps=4):
    return integrate(
        SGDSDE(PROBLEM.gradient, noise, RATE), PROBLEM.x0, seed=seed, substeps=substeps, **ARGUMENTS
    )


@pytest.fixture(scope="module")
def runs():
    return simulate_optimizer(
        PROBLEM, lambda p: torch.optim.SGD(p, lr=RATE), PROBLEM.x0, noise=NOISE, seed=2, **ARGUMENTS
    )


def test_the_right_sde_holds(runs):
    result = compare(paths(NOISE), runs, refined=paths(NOISE, substeps=8), tolerance=0.1)
    assert result.verdict == "held"
    for observable in result.observables.values():
        assert observable.mean_std_ratio == pytest.approx(1, abs=0.15)
        assert observable.mean_discretisation_error < 0.03


@pytest.mark.parametrize(
    ("noise", "seen_by"),
    [
        (GaussianNoise(factor=2**0.5 * FACTOR), {"loss", "first", "second", "fourth"}),
        # The mean loss at rest is (η/4) Tr Σ whatever the shape of Σ, so only the directions tell.
        (GaussianNoise(scale=torch.full((2,), (TRACE / 2) ** 0.5)), {"first", "fourth"}),
        (GaussianNoise(factor=RATE**0.5 * FACTOR), {"loss", "first", "second", "fourth"}),
        (GaussianNoise(scale=torch.zeros(2)), {"loss", "first", "second", "fourth"}),
    ],
    ids=["twice the covariance", "isotropic of the same trace", "η² for η", "the ODE"],
)
def test_wrong_noise_is_missed(runs, noise, seen_by):
    result = compare(paths(noise), runs, tolerance=0.1)
    missed = {o.name for o in result.observables.values() if o.verdict == "missed"}
    assert result.verdict == "missed"
    assert seen_by <= missed
