"""Controls change exactly what their name says, and nothing else."""

import pytest
import torch

from noisekit.noise import GaussianNoise, MinibatchNoise
from noisekit.problems import load_problem
from noisekit.sde import integrate
from noisekit.sde.named import build_sde
from noisekit.truth.arms import ARMS, find_arm
from noisekit.truth.controls import (
    DriftOfNoise,
    IndependentSigns,
    IsotropicNoise,
    ScaledNoise,
    WithoutSquareNoise,
    no_noise,
    with_gaussian_law,
)

X = torch.zeros(4000, 3)
FACTOR = torch.tensor([[1.0, 0.0], [0.8, 0.3], [0.0, 0.5]])


@pytest.fixture
def noise():
    return GaussianNoise(factor=FACTOR)


@pytest.fixture
def data():
    problem = load_problem("linear-regression", dimension=3, n_samples=40)
    return MinibatchNoise(problem, 4, law="empirical")


def test_double_covariance(noise):
    wrong = ScaledNoise(noise, 2.0)
    torch.testing.assert_close(wrong.covariance(X[:1])[0], 2 * FACTOR @ FACTOR.T)
    torch.testing.assert_close(wrong.variance(X[:1])[0], (2 * FACTOR @ FACTOR.T).diagonal())
    gradient = torch.tensor([[0.3, -1.0, 2.0]])
    expected = torch.erf(gradient / (2 * (2 * FACTOR @ FACTOR.T).diagonal()).sqrt())
    torch.testing.assert_close(wrong.expected_sign(X[:1], gradient), expected)


def test_scaled_samples_are_scaled_samples_of_the_data(data):
    drawn = [n.sample(X[:5], torch.Generator().manual_seed(1)) for n in (data, ScaledNoise(data, 4.0))]
    torch.testing.assert_close(2 * drawn[0], drawn[1])


def test_isotropic_noise_keeps_the_trace_only(noise):
    wrong = IsotropicNoise(noise)
    covariance = wrong.covariance(X[:1])[0]
    right = FACTOR @ FACTOR.T
    torch.testing.assert_close(covariance.trace(), right.trace())
    torch.testing.assert_close(covariance, torch.eye(3) * right.trace() / 3)


def test_independent_signs_keep_variances_only(noise):
    wrong = IndependentSigns(noise)
    assert wrong.independent
    assert not noise.independent
    drawn = wrong.sample(X, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.T.cov().diagonal(), (FACTOR @ FACTOR.T).diagonal(), rtol=0.1, atol=0)
    assert drawn.T.corrcoef()[0, 1].abs() < 0.06
    gradient = torch.tensor([[0.3, -1.0, 2.0]])
    assert torch.equal(wrong.expected_sign(X[:1], gradient), noise.expected_sign(X[:1], gradient))


def test_no_noise_has_none(noise):
    assert float(no_noise(noise).variance(X[:1]).max()) == 0


def test_the_drift_of_noise_keeps_what_is_no_fluctuation(noise):
    wrong = DriftOfNoise(noise)
    gradient = torch.tensor([[0.3, -1.0, 2.0]])
    assert torch.equal(wrong.variance(X[:1]), noise.variance(X[:1]))
    assert torch.equal(wrong.expected_sign(X[:1], gradient), noise.expected_sign(X[:1], gradient))
    assert float(wrong.sample(X[:5]).abs().max()) == 0
    assert float(wrong.sqrt_covariance_product(X[:1], torch.ones(1, 2)).abs().max()) == 0


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
def test_without_square_noise_only_v_is_quiet(optimizer, order):
    noise = GaussianNoise(scale=0.5)
    sde = build_sde(optimizer, lambda x: x, noise, 0.01, order=order)
    start = {"v": torch.ones(3)} | ({"m": torch.zeros(3)} if optimizer == "adamw" else {})
    run = {"steps": 1, "substeps": 2, "replicates": 500, "init_state": start, "start_step": 50, "seed": 1}
    own, quiet = (integrate(one, torch.zeros(3), **run) for one in (sde, WithoutSquareNoise(sde)))
    v, still = (paths.state["v"][:, -1].std(0) for paths in (own, quiet))
    # What is left comes from the moves of x alone: V tends to x² + σ².
    assert (still < 0.01 * v).all()
    ratio = quiet.state["x"][:, -1].std(0) / own.state["x"][:, -1].std(0)
    torch.testing.assert_close(ratio, torch.ones(3), rtol=0.02, atol=0)
    assert quiet.optimizer == own.optimizer
    assert quiet.settings == own.settings


def test_gaussian_law_keeps_the_covariance(data):
    other = with_gaussian_law(data)
    assert (other.law, data.law) == ("gaussian", "empirical")
    torch.testing.assert_close(other.variance(X[:1]), data.variance(X[:1]))


def test_arms_are_found_by_name():
    assert all(find_arm(name).name == name for name in ARMS)
    assert (ARMS["surrogate"].substeps(8), ARMS["fine"].substeps(8)) == (1, 16)
    with pytest.raises(ValueError, match="Did you mean 'isotropic'"):
        find_arm("isotropc")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_control_differs_by_its_noise_and_not_by_the_way_it_is_computed(optimizer):
    """An SDE takes one pass where noise and gradient share data; a control cannot, which must not matter."""
    problem = load_problem("linear-regression", dimension=3, n_samples=40)
    paths = []
    for wrap in (lambda noise: noise, lambda noise: ScaledNoise(noise, 1.0)):
        noise = wrap(MinibatchNoise(problem, 4))
        sde = build_sde(optimizer, problem.gradient, noise, 0.05)
        paths.append(integrate(sde, problem.x0, steps=30, substeps=2, replicates=64, save_every=30, seed=1))
    own, control = (p.state["x"][:, -1] for p in paths)
    assert float((own - control).abs().max()) < 0.02 * float(own.std(0).mean())
