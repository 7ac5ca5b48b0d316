"""A user's own problem from a file."""

import textwrap

import pytest
import torch

from noisekit.errors import InputError, NonFiniteError
from noisekit.problems import load_problem, problem_from_path

GOOD = """
    import torch
    from torch import nn
    from dataclasses import dataclass
    from helper_beside import WIDTH
    import noisekit as nk

    @dataclass(frozen=True)
    class Sizes:
        width: "int" = WIDTH

    def make_problem(seed, n=6):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(n, Sizes().width, generator=generator)
        model = nn.Linear(Sizes().width, 2)
        return nk.ModelProblem(model, nn.MSELoss(), inputs, torch.zeros(n, 2), name="mine")

    def without_arguments():
        return nk.Quadratic(torch.ones(3))

    class Bare:
        name = "bare"
        x0 = torch.ones(2)

    def incomplete():
        return Bare()

    def flat_loss():
        bare = Bare()
        bare.loss = lambda x: x.sum()
        bare.gradient = lambda x: x
        return bare

    def no_start():
        bare = Bare()
        bare.loss = lambda x: x.sum(-1)
        bare.gradient = lambda x: x
        bare.x0 = torch.ones(2, 2)
        return bare

    def fails_later():
        bare = Bare()
        bare.loss = lambda x: {}["data"]
        bare.gradient = lambda x: x
        return bare

    def not_finite():
        bare = Bare()
        bare.loss = lambda x: x.sum(-1)
        bare.gradient = lambda x: x / 0
        return bare

    def fails():
        raise RuntimeError("the disk is full")

    CONSTANT = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "helper_beside.py").write_text("WIDTH = 3\n")
    path = tmp_path / "my_module.py"
    path.write_text(textwrap.dedent(GOOD))
    return path


def test_the_function_makes_the_problem(file):
    problem = problem_from_path(f"{file}:make_problem", seed=4, n=5)
    assert problem.name == "mine"
    assert problem.n_samples == 5
    expected = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    assert torch.equal(problem.inputs, expected)


def test_load_problem_takes_the_same_path(file):
    assert load_problem(f"{file}:without_arguments", seed=3).x0.shape == (3,)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("make_problm", "Did you mean 'make_problem'"),
        ("incomplete", "returned a Bare, which is no problem: it has no loss, gradient"),
        ("flat_loss", r"loss\(x\) of .* gives \(\) for x of shape \(2, 2\); it needs \(2,\)"),
        ("no_start", "x0 of .* is not a vector"),
        ("fails_later", r"loss\(x\) of .* failed: KeyError: 'data'"),
        ("fails", "failed: RuntimeError: the disk is full"),
        ("CONSTANT", "is an int; it needs to be a function"),
        ("not a name", "not of the form my_module.py:make_problem"),
    ],
)
def test_what_is_wrong_is_said(file, function, message):
    with pytest.raises(InputError, match=message):
        problem_from_path(f"{file}:{function}")


def test_a_gradient_that_is_infinite_at_the_start_is_named(file):
    with pytest.raises(NonFiniteError, match=r"gradient\(x\) of .* is NaN or infinite at x0"):
        problem_from_path(f"{file}:not_finite")


def test_a_wrong_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"There is no file 'absent\.py'"):
        problem_from_path("absent.py:make_problem")
    with pytest.raises(InputError, match="not of the form"):
        problem_from_path("module:make_problem")
    broken = tmp_path / "broken.py"
    broken.write_text("def make_problem(:\n")
    with pytest.raises(InputError, match=r"broken\.py' failed: SyntaxError"):
        problem_from_path(f"{broken}:make_problem")
