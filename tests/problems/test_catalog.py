"""Loading by name: every row is true, seeds decide, wrong names are answered with the nearest."""

import pytest
import torch

from noisekit.errors import InputError
from noisekit.problems import (
    ModelProblem,
    Problem,
    SampledProblem,
    list_problems,
    load_problem,
    problem_options,
)

ROWS = {info.name: info for info in list_problems()}


@pytest.mark.parametrize("name", ROWS)
def test_the_row_describes_the_problem(name):
    problem = load_problem(name)
    info = ROWS[name]
    assert isinstance(problem, Problem)
    assert problem.name == name
    assert len(problem.x0) == info.parameters
    assert isinstance(problem, SampledProblem) == (info.samples is not None)
    if info.samples is not None:
        assert problem.n_samples == info.samples
    if isinstance(problem, ModelProblem):
        assert problem.metadata["dataset"] == info.data
        assert len(problem.metadata["dataset_sha256"]) == 64
        assert len(problem.test_inputs) == len(problem.test_targets) > 0
    x = problem.x0.repeat(2, 1)
    assert problem.loss(x).shape == (2,)
    assert problem.gradient(x).shape == x.shape
    assert problem.gradient(x).abs().max() > 0


@pytest.mark.parametrize("name", ["quadratic", "linear-regression", "digits-mlp", "shakespeare-gpt"])
def test_the_seed_decides_and_the_global_generator_is_left_alone(name):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    x = torch.ones(1, len(load_problem(name).x0))
    one, same, other = (load_problem(name, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.x0, same.x0)
    assert torch.equal(one.gradient(x), same.gradient(x))
    changed = not torch.equal(one.x0, other.x0) or not torch.equal(one.gradient(x), other.gradient(x))
    assert changed


@pytest.mark.parametrize(
    "name", ["quadratic", "rosenbrock", "embedded-saddle", "quartic", "linear-regression"]
)
def test_analytic_problems_take_a_dimension_and_a_dtype(name):
    problem = load_problem(name, dimension=3, dtype=torch.float64)
    assert problem.x0.shape == (3,)
    assert problem.gradient(problem.x0[None]).dtype == torch.float64
    with pytest.raises(InputError, match="dimension"):
        load_problem(name, dimension=0)


def test_networks_take_a_dtype():
    problem = load_problem("breast-cancer-mlp", dtype=torch.float64)
    assert problem.gradient(problem.x0[None]).dtype == torch.float64
    assert problem.test_inputs.dtype == torch.float64


def test_quadratic_has_the_eigenvalues_that_are_asked_for():
    eigenvalues = torch.linalg.eigvalsh(
        load_problem("quadratic", dimension=3, condition=16.0, dtype=torch.float64).hessian
    )
    torch.testing.assert_close(eigenvalues, torch.tensor([1 / 16, 1 / 4, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match="condition"):
        load_problem("quadratic", condition=0.5)


def test_quadratic_axes_are_rotated():
    hessian = load_problem("quadratic").hessian
    assert (hessian - torch.diag(torch.diag(hessian))).abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "smaller"),
    [("breast-cancer-mlp", 530), ("digits-mlp", 2410), ("fashion-cnn", 3946), ("shakespeare-gpt", 28480)],
)
def test_full_size_is_larger(name, smaller):
    full = load_problem(name, size="full")
    assert len(full.x0) > smaller
    assert full.n_samples >= ROWS[name].samples


def test_full_resnet_is_resnet_20():
    problem = load_problem("fashion-resnet", size="full", n_samples=2)
    convolutions = [s for s in problem.parameter_shapes if len(s) == 4 and s[-1] == 3]
    assert len(convolutions) == 19
    assert 260_000 < problem.n_parameters < 285_000


def test_n_samples_takes_the_first_images():
    few, more = load_problem("fashion-cnn", n_samples=8), load_problem("fashion-cnn", n_samples=16)
    assert torch.equal(few.inputs, more.inputs[:8])
    for wrong in (0, 6001):
        with pytest.raises(InputError, match=f"n_samples is {wrong}; fashion_mnist has 1 to 6000"):
            load_problem("fashion-cnn", n_samples=wrong)


def test_context_of_the_gpt():
    problem = load_problem("shakespeare-gpt", context=8, n_samples=4, tied=False)
    assert problem.inputs.shape == (4, 8)
    assert "head.weight" in problem.parameter_names
    with pytest.raises(InputError, match="context is 0"):
        load_problem("shakespeare-gpt", context=0)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"There is no problem 'fashon-cnn'\. Did you mean 'fashion-cnn'"):
        load_problem("fashon-cnn")
    with pytest.raises(InputError, match="Did you mean 'quadratic'"):
        problem_options("quadratc")


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"no option of digits-mlp 'n_sample'\. Did you mean 'n_samples'"):
        load_problem("digits-mlp", n_sample=3)
    with pytest.raises(InputError, match="size is 'huge'"):
        load_problem("digits-mlp", size="huge")


def test_options_are_listed():
    assert problem_options("fashion-cnn") == ["n_samples", "folder", "dtype", "device"]
