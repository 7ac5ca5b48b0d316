"""The right SDE of SignSGD, RMSprop and Adam holds against torch's optimizer; wrong noise is told from it."""

import pytest
import torch

from noisekit.noise import GaussianNoise
from noisekit.optimizers import SignSGD, simulate_optimizer
from noisekit.problems import Quadratic
from noisekit.sde import AdamSDE, RMSpropSDE, SignSGDSDE, integrate
from noisekit.validation import compare

RATE, STEPS, REPLICATES = 0.02, 200, 3000
FACTOR = torch.tensor([[1.0, 0.0], [0.6, 0.3]])
HESSIAN = torch.tensor([[1.0, -0.5], [-0.5, 2.0]])
NOISE = GaussianNoise(factor=FACTOR)
VARIANCE = FACTOR.square().sum(1)
PROBLEM = Quadratic(HESSIAN, x0=torch.tensor([0.3, -0.2]))
BETAS = (0.8, 0.98)
SDES = {
    "signsgd": lambda noise, rate: SignSGDSDE(PROBLEM.gradient, noise, rate),
    "rmsprop": lambda noise, rate: RMSpropSDE(PROBLEM.gradient, noise, rate, beta=BETAS[1]),
    "adam": lambda noise, rate: AdamSDE(PROBLEM.gradient, noise, rate, betas=BETAS),
}
OPTIMIZERS = {
    "signsgd": lambda p: SignSGD(p, lr=RATE),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=RATE, alpha=BETAS[1]),
    "adam": lambda p: torch.optim.Adam(p, lr=RATE, betas=BETAS),
}
WRONG = {
    "twice the covariance": GaussianNoise(factor=2**0.5 * FACTOR),
    "isotropic of the same trace": GaussianNoise(scale=(VARIANCE.mean() ** 0.5).expand(2).clone()),
    "uncorrelated": GaussianNoise(scale=VARIANCE.sqrt()),
    "η² for η": GaussianNoise(factor=RATE**0.5 * FACTOR),
    "the ODE": GaussianNoise(scale=torch.full((2,), 1e-3)),
}
ARGUMENTS = {
    "steps": STEPS,
    "replicates": REPLICATES,
    "save_every": 20,
    "observables": {
        "loss": PROBLEM.loss,
        "first": lambda x: x[:, 0].square(),
        "second": lambda x: x[:, 1].square(),
        "product": lambda x: (x[:, 0] - x[:, 1]).square(),
    },
    "keep_state": False,
    # Warm, as the first steps from zero are sign steps that no SDE sees.
    "start_step": 100,
    "init_state": {"m": torch.zeros(2), "v": VARIANCE},
}


def paths(name, noise, rate=RATE):
    return integrate(SDES[name](noise, rate), PROBLEM.x0, seed=1, substeps=4, **ARGUMENTS)


@pytest.fixture(scope="module", params=sorted(SDES))
def reality(request):
    runs = simulate_optimizer(
        PROBLEM, OPTIMIZERS[request.param], PROBLEM.x0, noise=NOISE, seed=2, **ARGUMENTS
    )
    return request.param, runs


def test_the_right_sde_holds(reality):
    name, runs = reality
    result = compare(paths(name, NOISE), runs, tolerance=0.1)
    assert result.verdict == "held", result


@pytest.mark.parametrize("control", sorted(WRONG))
def test_wrong_noise_is_missed(reality, control):
    name, runs = reality
    assert compare(paths(name, WRONG[control]), runs, tolerance=0.1).verdict == "missed"
