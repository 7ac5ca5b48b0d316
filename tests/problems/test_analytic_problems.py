"""Losses with formulas, against autograd of their definition and against what is known of their minima."""

import pytest
import torch

from noisekit.errors import InputError
from noisekit.problems import EmbeddedSaddle, Problem, Quadratic, Quartic, Rosenbrock


def random_points(dimension: int) -> torch.Tensor:
    return torch.randn(5, dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def symmetric(dimension: int) -> torch.Tensor:
    a = random_points(dimension)[:, :dimension].new_zeros(dimension, dimension)
    a += torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return a + a.T


PROBLEMS = {
    "quadratic-diagonal": (Quadratic(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)), 3),
    "quadratic-matrix": (Quadratic(symmetric(4)), 4),
    "embedded-saddle": (EmbeddedSaddle(torch.tensor([-1.0, 2.0], dtype=torch.float64)), 2),
    "rosenbrock": (Rosenbrock(4, dtype=torch.float64), 4),
    "quartic": (Quartic(torch.tensor([1.0, 3.0], dtype=torch.float64)), 2),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_is_the_derivative_of_the_loss(name):
    problem, dimension = PROBLEMS[name]
    assert isinstance(problem, Problem)
    x = random_points(dimension).requires_grad_()
    (expected,) = torch.autograd.grad(problem.loss(x).sum(), x)
    torch.testing.assert_close(problem.gradient(x.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_replicates_do_not_touch_each_other(name):
    problem, dimension = PROBLEMS[name]
    x = random_points(dimension)
    other = x.clone()
    other[1:] += 1.0
    assert torch.equal(problem.gradient(x)[0], problem.gradient(other)[0])
    assert torch.equal(problem.loss(x)[0], problem.loss(other)[0])


def test_quadratic_has_the_value_of_its_definition():
    hessian = symmetric(3)
    x = random_points(3)
    expected = torch.stack([0.5 * row @ hessian @ row for row in x])
    torch.testing.assert_close(Quadratic(hessian).loss(x), expected)


def test_a_vector_means_a_diagonal_matrix():
    diagonal = torch.tensor([1.0, 2.0, 5.0])
    x = random_points(3).float()
    problem, same = Quadratic(diagonal), Quadratic(torch.diag(diagonal))
    torch.testing.assert_close(problem.gradient(x), same.gradient(x))
    torch.testing.assert_close(problem.hessian_matrix, same.hessian_matrix)


def test_start_is_ones_or_what_is_given():
    assert torch.equal(Quadratic(torch.tensor([1.0, 2.0])).x0, torch.ones(2))
    assert torch.equal(Quadratic(torch.eye(2), x0=torch.tensor([3.0, 4.0])).x0, torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize(
    ("hessian", "message"),
    [
        (torch.ones(2, 3), "square"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([1.0, float("nan")]), "NaN"),
        (torch.ones(0), "shape"),
    ],
)
def test_a_wrong_hessian_is_refused(hessian, message):
    with pytest.raises(InputError, match=message):
        Quadratic(hessian)


def test_a_start_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"x0 has shape \(3,\)"):
        Quadratic(torch.ones(2), x0=torch.ones(3))


def test_known_minima():
    assert Rosenbrock(3).loss(torch.ones(1, 3)).item() == 0
    saddle = EmbeddedSaddle(torch.tensor([-1.0, 2.0], dtype=torch.float64), skew=0.0)
    minimum = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert saddle.gradient(minimum).abs().max() == 0
    assert saddle.loss(minimum).item() == -0.25
    assert saddle.loss(minimum * 0).item() == 0


def test_skew_makes_one_minimum_deeper():
    saddle = EmbeddedSaddle(torch.tensor([-1.0]), skew=0.2)
    left, right = saddle.loss(torch.tensor([[-1.0], [1.0]]))
    assert right < left


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rosenbrock(1),
        lambda: Quartic(torch.tensor([1.0, -1.0])),
        lambda: EmbeddedSaddle(torch.eye(2)),
        lambda: EmbeddedSaddle(torch.ones(2), quartic=0.0),
    ],
)
def test_wrong_arguments_are_refused(make):
    with pytest.raises(InputError, match="need"):
        make()
