"""Least squares against a loop over samples with autograd."""

import pytest
import torch

from noisekit.errors import InputError
from noisekit.problems import LinearRegression, SampledProblem, gaussian_linear_regression


@pytest.fixture
def problem():
    return gaussian_linear_regression(4, 7, seed=3, dtype=torch.float64)


@pytest.fixture
def x():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def looped_gradients(problem, x):
    rows = []
    for start in x:
        leaf = start.clone().requires_grad_()
        losses = [0.5 * (a @ leaf - y) ** 2 for a, y in zip(problem.design, problem.response, strict=True)]
        rows.append(torch.stack([torch.autograd.grad(one, leaf)[0] for one in losses]))
    return torch.stack(rows)


def test_all_gradients_agree_with_the_loop(problem, x):
    assert isinstance(problem, SampledProblem)
    expected = looped_gradients(problem, x)
    torch.testing.assert_close(problem.per_sample_gradients(x), expected)
    torch.testing.assert_close(problem.gradient(x), expected.mean(1))
    mean, second = problem.gradient_moments(x)
    torch.testing.assert_close(mean, expected.mean(1))
    torch.testing.assert_close(second, expected.square().mean(1))
    weights = torch.linspace(-1, 2, 21, dtype=torch.float64).reshape(3, 7)
    torch.testing.assert_close(
        problem.weighted_gradient(x, weights), torch.einsum("rn,rnc->rc", weights, expected)
    )
    index = torch.tensor([[0, 0], [6, 3], [2, 5]])
    batch = torch.stack([g[i].mean(0) for g, i in zip(expected, index, strict=True)])
    torch.testing.assert_close(problem.minibatch_gradient(x, index), batch)


def test_hessian_is_the_derivative_of_the_gradient(problem, x):
    def of_one(point):
        return problem.gradient(point[None])[0]

    torch.testing.assert_close(torch.autograd.functional.jacobian(of_one, x[0]), problem.hessian)


def test_gradient_vanishes_at_the_least_squares_solution(problem):
    solution = torch.linalg.lstsq(problem.design, problem.response[:, None]).solution.T
    assert problem.gradient(solution).abs().max() < 1e-12


def test_the_seed_decides(problem):
    same = gaussian_linear_regression(4, 7, seed=3, dtype=torch.float64)
    other = gaussian_linear_regression(4, 7, seed=4, dtype=torch.float64)
    assert torch.equal(problem.design, same.design)
    assert not torch.equal(problem.design, other.design)


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        LinearRegression(torch.ones(3, 2), torch.ones(2))
    with pytest.raises(InputError, match="n_samples 0"):
        gaussian_linear_regression(3, 0)
    with pytest.raises(InputError, match="noise"):
        gaussian_linear_regression(3, 3, noise=-1.0)
