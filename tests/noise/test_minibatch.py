"""Minibatch noise against the exact per-sample covariance and against minibatches really drawn."""

import math

import pytest
import torch
from torch import Tensor, nn

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise, MinibatchNoise
from noisekit.noise import minibatch as minibatch_module
from noisekit.problems.linear_regression import LinearRegression
from noisekit.problems.network import ModelProblem

N, D, B = 40, 3, 4


def regression() -> LinearRegression:
    generator = torch.Generator().manual_seed(0)
    design = torch.randn(N, D, generator=generator, dtype=torch.float64)
    response = design @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    noise = torch.randn(N, generator=generator, dtype=torch.float64).exp() - 1.5
    return LinearRegression(design, response + noise)


def exact_covariance(problem: LinearRegression, x: Tensor) -> Tensor:
    """Σ₁ by a loop over samples."""
    total = torch.zeros(D, D, dtype=torch.float64)
    mean = problem.gradient(x[None])[0]
    for a, y in zip(problem.design, problem.response, strict=True):
        g = a * (a @ x - y) - mean
        total += torch.outer(g, g)
    return total / N


def two_points() -> Tensor:
    return torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize("replacement", [True, False])
def test_square_root_and_variance_are_exact(replacement):
    problem, x = regression(), two_points()
    noise = MinibatchNoise(problem, B, replacement=replacement)
    factor = 1 / B if replacement else (N - B) / (N - 1) / B
    for row in range(2):
        expected = factor * exact_covariance(problem, x[row])
        torch.testing.assert_close(noise.covariance(x)[row], expected)
        torch.testing.assert_close(noise.variance(x)[row], expected.diagonal())


@pytest.mark.parametrize("replacement", [True, False])
def test_covariance_of_real_minibatches_is_the_one_stated(replacement):
    problem, draws = regression(), 60_000
    x = two_points()[1].expand(draws, D)
    noise = MinibatchNoise(problem, B, law="empirical", replacement=replacement)
    z = noise.sample(x, torch.Generator().manual_seed(1))
    expected = noise.covariance(two_points())[1]
    spread = expected.diagonal().sqrt()
    assert (z.mean(dim=0) / spread).abs().max() < 0.02
    assert ((torch.cov(z.T) - expected) / torch.outer(spread, spread)).abs().max() < 0.05


def test_gaussian_law_draws_with_the_covariance_at_x():
    problem, draws = regression(), 60_000
    noise = MinibatchNoise(problem, B)
    x = two_points()[1].expand(draws, D)
    z = noise.sample(x, torch.Generator().manual_seed(1))
    expected = noise.covariance(two_points())[1]
    spread = expected.diagonal().sqrt()
    assert ((torch.cov(z.T) - expected) / torch.outer(spread, spread)).abs().max() < 0.03


def test_drift_and_noise_are_one_pass_of_the_two():
    problem, x = regression(), two_points()
    noise = MinibatchNoise(problem, B, replacement=False)
    z = torch.randn(2, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = noise.drift_and_noise(x, z, -0.1, 0.3)
    expected = -0.1 * problem.gradient(x) + 0.3 * noise.sqrt_covariance_product(x, z)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("budget", [2**26, 0], ids=["per-sample", "minibatches"])
def test_empirical_expected_sign_is_that_of_real_minibatches(budget, monkeypatch):
    monkeypatch.setattr(minibatch_module, "PER_SAMPLE_BUDGET", budget)
    problem, x = regression(), two_points()
    gradient = problem.gradient(x)
    noise = MinibatchNoise(problem, B, law="empirical", draws=4000)
    index = torch.randint(N, (40_000, B), generator=torch.Generator().manual_seed(9))
    for row in range(2):
        at = x[row].expand(40_000, D)
        truth = torch.sign(problem.minibatch_gradient(at, index)).mean(dim=0)
        assert (noise.expected_sign(x, gradient)[row] - truth).abs().max() < 5 / math.sqrt(4000)


def test_gaussian_expected_sign_is_erf_of_the_variance():
    problem, x = regression(), two_points()
    noise = MinibatchNoise(problem, B)
    gradient = problem.gradient(x)
    for row in range(2):
        scale = (exact_covariance(problem, x[row]).diagonal() / B).sqrt()
        expected = GaussianNoise(scale).expected_sign(x[:1], gradient[row : row + 1])[0]
        torch.testing.assert_close(noise.expected_sign(x, gradient)[row], expected)


def test_draws_are_keyed_by_the_point():
    problem, x = regression(), two_points()
    first = MinibatchNoise(problem, B, law="empirical").expected_sign(x, problem.gradient(x))
    again = MinibatchNoise(problem, B, law="empirical").expected_sign(x.clone(), problem.gradient(x))
    assert torch.equal(first, again)
    moved = x + 1e-12
    other = MinibatchNoise(problem, B, law="empirical").expected_sign(moved, problem.gradient(x))
    assert not torch.equal(first, other)


class Counting(LinearRegression):
    """Counts how often moments are asked for."""

    asked = 0

    def gradient_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += 1
        return super().gradient_moments(x)


def test_moments_are_kept_until_x_changes():
    base = regression()
    problem = Counting(base.design, base.response)
    noise = MinibatchNoise(problem, B)
    x = two_points()
    noise.variance(x)
    noise.expected_sign(x, x)
    assert problem.asked == 1
    before = noise.variance(x)
    x.add_(1.0)
    after = noise.variance(x)
    assert problem.asked == 2
    assert not torch.equal(before, after)
    noise.variance(x.clone())
    assert problem.asked == 3
    with torch.inference_mode():
        fresh = two_points()
        torch.testing.assert_close(noise.variance(fresh), before)


def test_noise_of_a_network_has_the_covariance_of_its_per_sample_gradients():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    problem = ModelProblem(model, nn.CrossEntropyLoss(), inputs, torch.randint(2, (20,), generator=generator))
    x = torch.randn(2, problem.n_parameters, generator=generator, dtype=torch.float64)
    rows = problem.per_sample_gradients(x)
    for replacement, factor in ((True, 1 / B), (False, (20 - B) / 19 / B)):
        noise = MinibatchNoise(problem, B, replacement=replacement)
        for row in range(2):
            expected = factor * torch.cov(rows[row].T, correction=0)
            torch.testing.assert_close(noise.covariance(x)[row], expected)
            torch.testing.assert_close(noise.variance(x)[row], expected.diagonal())


def test_rescaling_is_exact():
    noise, x = MinibatchNoise(regression(), B), two_points()
    torch.testing.assert_close(noise.rescale(4 * B).variance(x), noise.variance(x) / 4)


def test_whole_data_set_without_replacement_has_no_noise():
    problem, x = regression(), two_points()
    noise = MinibatchNoise(problem, N, law="empirical", replacement=False)
    assert noise.variance(x).abs().max() == 0
    assert noise.sample(x, torch.Generator().manual_seed(0)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: MinibatchNoise(object(), 4), "no samples"),
        (lambda: MinibatchNoise(regression(), 0), "at least 1"),
        (lambda: MinibatchNoise(regression(), 4, law="gausian"), "Did you mean 'gaussian'"),
        (lambda: MinibatchNoise(regression(), N + 1, replacement=False), "exceeds the 40 samples"),
        (lambda: MinibatchNoise(regression(), 4, draws=0), "draws is 0; it must be a whole number"),
        (lambda: MinibatchNoise(regression(), 4).variance(two_points()[:, :2]), "but x has 2"),
        (
            lambda: MinibatchNoise(regression(), 4).sqrt_covariance_product(two_points(), two_points()),
            "one a sample, 40",
        ),
    ],
)
def test_bad_input_is_refused(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()
